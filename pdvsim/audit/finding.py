"""What a rule hands back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

Number: TypeAlias = float | int | str | Sequence[float] | Sequence[str]

# Dense bf16 of the fastest single GPU on sale (GB200: 8 TB/s, 2.5 PFLOP/s, NVIDIA datasheet):
# a floor computed with these is a floor on any GPU.
FASTEST_BYTES_PER_S = 8.0e12
FASTEST_FLOPS_PER_S = 2.5e15


class Severity(StrEnum):
    """How much a finding weighs. Only an error makes a claim of the table fail."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a table says and arithmetic does not.

    Attributes:
        cells: names of the cells concerned.
        evidence: the numbers, by name with units.
        settle: what would settle it.
    """

    rule: str
    severity: Severity
    cells: tuple[str, ...]
    message: str
    evidence: Mapping[str, Number]
    settle: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one rule saw: `checked` cells had the numbers it needs."""

    rule: str
    checked: int
    findings: tuple[Finding, ...]
    needs: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What the hardware can do.

    Attributes:
        gpu_memory_mib: memory of the GPU(s) together; None if not known.
        bytes_per_s: memory bandwidth, all GPUs together.
        flops_per_s: dense bf16 rate, all GPUs together.
    """

    gpu_memory_mib: float | None = None
    bytes_per_s: float = FASTEST_BYTES_PER_S
    flops_per_s: float = FASTEST_FLOPS_PER_S
