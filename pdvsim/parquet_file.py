"""The one reader of Parquet files, which may be damaged."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import polars as pl

from pdvsim.errors import InputError

Found = TypeVar("Found")


def read_table(path: Path, what: str) -> pl.DataFrame:
    """The table in `path`.

    Args:
        what: the kind of file that is needed, for errors.

    Raises:
        InputError: not there, or not such a file.
    """
    return _read(path, what, pl.read_parquet)


def read_metadata(path: Path, what: str) -> dict[str, str]:
    """The metadata of the table in `path`; see `read_table`."""
    return _read(path, what, pl.read_parquet_metadata)


def _read(path: Path, what: str, call: Callable[[Path], Found]) -> Found:
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; {what} is needed")
    try:
        with _silent():
            return call(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, MemoryError):
        raise InputError(f"{path}: no readable Parquet file; {what} is needed") from None


@contextmanager
def _silent() -> Iterator[None]:
    """Polars can panic over a damaged file, and prints that before Python hears of it."""
    with suppress(OSError, ValueError, AttributeError):  # stderr is closed, or there is none
        sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
