"""Writing result files, and trying early whether they can be written."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pdvsim.errors import InputError

if TYPE_CHECKING:
    import polars as pl


def write_text(path: Path, text: str) -> None:
    """Write a result file, as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_parquet(
    path: Path, table: pl.DataFrame, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a table as sealed Parquet, as `write_bytes` does."""
    from pdvsim.parquet_file import sealed

    content = io.BytesIO()
    table.write_parquet(content, metadata=None if metadata is None else dict(metadata))
    write_bytes(path, sealed(content.getvalue()))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a result file, through links to what they point at.

    A regular file is replaced whole: a half-written one never appears under its name, nor stays
    beside it. Devices, pipes, and the file that stdout goes to, are written into.

    Raises:
        InputError: the file cannot be written there.
    """
    with _refusing(path):
        there = _status(path)
        printed = _printed_to(there)
        if printed is not None:
            sys.stdout.flush()
            with open(printed, "wb", closefd=False) as file:
                file.write(content)
        elif _replaceable(there):
            target = Path(os.path.realpath(path))
            with _beside(target) as file:
                if there is not None:
                    os.fchmod(file.fileno(), stat.S_IMODE(there.st_mode))
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(target)
        else:
            with path.open("wb") as file:
                file.write(content)


def check_writable(path: Path | None) -> None:
    """Refuse an output path early, before the work, by trying it.

    Raises:
        InputError: a result cannot be written there.
    """
    if path is None:
        return
    with _refusing(path):
        there = _status(path)
        if there is not None and (stat.S_ISDIR(there.st_mode) or stat.S_ISSOCK(there.st_mode)):
            raise IsADirectoryError(errno.EISDIR, "a folder or a socket")
        if there is not None and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if _printed_to(there) is None and _replaceable(there):
            _try_folder(Path(os.path.realpath(path)).parent)


def make_folder(path: Path | None) -> None:
    """Make the folder for results, before the work, and refuse one that cannot hold them.

    Raises:
        InputError: it cannot be made, or files cannot be written in it.
    """
    if path is None:
        return
    with _refusing(path):
        path.mkdir(parents=True, exist_ok=True)
        _try_folder(path)


def _try_folder(folder: Path) -> None:
    with _beside(folder / "x") as file:
        file.write(bytes(4096))
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Errors of the file system as sentences."""
    try:
        yield
    except FileNotFoundError:
        folder = Path(os.path.realpath(path)).parent
        raise InputError(f"cannot write {path}: there is no folder {folder}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot write {path}: {reason}") from None


def _status(path: Path) -> os.stat_result | None:
    """Of what stands at `path`, links followed; None for nothing."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _printed_to(there: os.stat_result | None) -> int | None:
    """The descriptor of stdout or stderr if it goes there, as with `/dev/stdout`."""
    for descriptor in (1, 2):
        with suppress(OSError):
            if there is not None and os.path.samestat(there, os.fstat(descriptor)):
                return descriptor
    return None


def _replaceable(there: os.stat_result | None) -> bool:
    return there is None or stat.S_ISREG(there.st_mode)


@contextmanager
def _beside(target: Path) -> Iterator[BinaryIO]:
    """A new file beside `target`, gone at the end unless it was renamed."""
    part = target.with_name(f".pdvsim-{os.urandom(8).hex()}.part")
    try:
        with part.open("xb") as file:
            yield file
    finally:
        part.unlink(missing_ok=True)
