"""Parquet files, which may be damaged: the one reader, and the seal that it looks for.

What reads Parquet can end the whole process over one flipped bit, since it believes sizes. So what
we write carries a *seal*, a digest of all its other bytes, between the data and the footer, where
other readers of Parquet don't look. A sealed file is only read if its seal is whole; one without
(another program wrote it) is first read by a process of its own.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

import polars as pl

from pdvsim.errors import InputError

Found = TypeVar("Found")

_MARK = b"sealed by pdvsim"
_SEAL_BYTES = len(_MARK) + hashlib.sha256().digest_size
_TAIL_BYTES = 8  # length of the footer, and the format's name
_TRIAL = (
    "import sys, polars as pl; pl.read_parquet(sys.argv[1]); pl.read_parquet_metadata(sys.argv[1])"
)
_TRIAL_S = 60.0


def sealed(content: bytes) -> bytes:
    """The Parquet file `content` with a seal."""
    footer = _footer(content)
    data, rest = content[:footer], content[footer:]
    return data + _seal(data, rest) + rest


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


def _read(path: Path, what: str, call: Callable[[BinaryIO], Found]) -> Found:
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; {what} is needed")
    try:
        content = path.read_bytes()
        if _whole(content) or _tried(path):
            return call(io.BytesIO(content))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, MemoryError):
        pass
    raise InputError(f"{path}: no readable Parquet file; {what} is needed")


def _whole(content: bytes) -> bool:
    """Whether `content` has the seal that fits it."""
    footer = _footer(content)
    data, seal, rest = content[: footer - _SEAL_BYTES], content[:footer], content[footer:]
    return len(data) > 0 and seal[-_SEAL_BYTES:] == _seal(data, rest)


def _footer(content: bytes) -> int:
    """Where the footer begins, if `content` is a Parquet file."""
    length = int.from_bytes(content[-_TAIL_BYTES:-4], "little")
    return max(0, len(content) - _TAIL_BYTES - length)


def _seal(data: bytes, rest: bytes) -> bytes:
    return _MARK + hashlib.sha256(data + rest).digest()


def _tried(path: Path) -> bool:
    """Whether a process of its own can read `path`, which has no seal or a broken one."""
    if _MARK in path.read_bytes():
        return False
    trial = [sys.executable, "-c", _TRIAL, str(path)]
    try:
        done = subprocess.run(trial, capture_output=True, timeout=_TRIAL_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
