"""GPUs by the vendors' data sheets: two rates and the memory, which is all that a transfer of a
profile to another GPU knows of it (`pdvsim.transfer`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from pdvsim.json_file import read_json

FILE = Path(__file__).parent / "data" / "gpus.json"


@dataclass(frozen=True, slots=True)
class Gpu:
    """Peaks of a GPU.

    Attributes:
        driver_name: as the driver calls it.
        copy_bytes_per_s: of its memory.
        matmul_flops_per_s: dense, BF16.
        memory_bytes: all of it, as the driver says.
        source: the data sheet.
    """

    name: str
    driver_name: str
    copy_bytes_per_s: float
    matmul_flops_per_s: float
    memory_bytes: int
    source: str


@cache
def gpus() -> dict[str, Gpu]:
    """All that are known, by the name that `--gpu` takes."""
    document = read_json(FILE, "the table of GPUs")
    return TypeAdapter(dict[str, Gpu]).validate_python(document["gpus"])


def called(driver_name: str) -> Gpu | None:
    """The GPU that a driver calls so; None if it is not known."""
    return next((one for one in gpus().values() if one.driver_name == driver_name), None)
