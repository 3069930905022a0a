"""Tables that come through a pipe, which can be read only once."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from pdvsim.errors import InputError
from pdvsim.json_file import MOST_BYTES

STDIN = Path("-")


@contextmanager
def as_file(path: Path) -> Iterator[Path]:
    """`path`, or for standard input (`-`) and pipes a file with what came out of them. Errors
    call it by the name that it was given.

    Raises:
        InputError: it cannot be read, or more comes out of it than a table has.
    """
    if path != STDIN and not path.is_fifo() and not path.is_char_device():
        yield path
        return
    name = "standard input" if path == STDIN else str(path)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "table"
        try:
            if path == STDIN:
                _copy(sys.stdin.buffer, file)
            else:
                with path.open("rb") as pipe:
                    _copy(cast(BinaryIO, pipe), file)
        except OSError as error:
            raise InputError(f"cannot read {name}: {error.strerror}") from None
        if file.stat().st_size > MOST_BYTES:
            raise InputError(f"{name}: larger than {MOST_BYTES >> 20} MiB")
        try:
            yield file
        except InputError as error:
            raise InputError(str(error).replace(str(file), name)) from None


def _copy(source: BinaryIO, file: Path) -> None:
    with file.open("wb") as target:
        left = MOST_BYTES + 1
        while left and (block := source.read(min(left, 1 << 20))):
            target.write(block)
            left -= len(block)
