"""Finished measurements on disk, so that a killed run goes on where it stopped.

A JSON-lines file: the first line says what is being measured, each further one holds a finished
measurement, written whole and synced. Every line carries a digest of itself and of what is being
measured, so a damaged line, or one of another run, is known by itself and measured again. The
file is only appended to, and locked while its run lives.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import stat
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from pdvsim.errors import InputError
from pdvsim.json_file import MOST_BYTES, parse_json
from pdvsim.output import finite

T = TypeVar("T")


def partial_path(out: Path | None) -> Path | None:
    """Where the finished measurements of a run with the output `out` are kept: beside what it
    points at, under its whole name. None for no output, or a device."""
    if out is None or (out.exists() and not out.is_file()):
        return None
    target = Path(os.path.realpath(out))
    return target.with_name(f"{target.name}.partial.jsonl")


class Store:
    """Measurements by key."""

    def __init__(self, path: Path | None, identity: Mapping[str, Any]) -> None:
        """Open `path`, or start it; None keeps measurements in memory alone.

        Args:
            identity: all that makes two measurements under one key the same.

        Raises:
            InputError: it belongs to another identity, to another run that still lives, or is no
                such file.
        """
        self._path = path
        self._identity: dict[str, Any] = json.loads(json.dumps(finite(identity)))
        self._kept: dict[str, Any] = {}
        self._file: io.FileIO | None = None
        if path is None:
            return
        try:
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from None
        try:
            self._lock(self._file)
            self._read(self._file)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __contains__(self, key: str) -> bool:
        return key in self._kept

    def measure(self, key: str, make: Callable[[], T], kind: type[T]) -> T:
        """The value under `key`, made now unless it is there already.

        Args:
            kind: of the value: what pydantic can check and turn into JSON and back. What comes
                back is the same whether it was made now or before.
        """
        adapter = TypeAdapter(kind)
        if key in self._kept:
            try:
                return adapter.validate_python(self._kept[key])
            except ValidationError:
                self._say(f"{key} is not what this pdvsim measures; it is measured again")
        value = finite(adapter.dump_python(make(), mode="json"))
        checked = adapter.validate_python(value)
        self._append({"key": key, "value": value, "digest": self._digest(key, value)})
        self._kept[key] = value
        return checked

    def remove(self) -> None:
        """Delete the file: the result has been written."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self.close()

    def abandon(self) -> None:
        """Let another run have the file; without any measurement it is deleted."""
        if self._kept:
            self.close()
        else:
            self.remove()

    def close(self) -> None:
        """Let another run have the file."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def _lock(self, file: io.FileIO) -> None:
        """Held until this process ends, however it ends."""
        there = os.fstat(file.fileno())
        if not stat.S_ISREG(there.st_mode):
            raise InputError(f"{self._path}: not a file; give the run another output")
        if there.st_size > MOST_BYTES:
            raise InputError(f"{self._path}: too large for an unfinished run; delete it")
        taken = False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            taken = True
        except OSError:  # a file system without locks
            pass
        if taken or os.fstat(file.fileno()).st_nlink == 0:  # the other has just finished
            raise InputError(
                f"{self._path}: another run is writing to it; let that one end, or give this one "
                f"another output"
            )

    def _read(self, file: io.FileIO) -> None:
        file.seek(0)
        content = file.readall()
        whole = content.rfind(b"\n") + 1  # what follows was being written when the run died
        if whole < len(content):
            file.truncate(whole)
        if whole == 0:
            self._append({"identity": self._identity, "digest": self._digest(None, None)})
            return
        first, *lines = map(_parsed, content[:whole].rstrip(b"\n").split(b"\n"))
        known = self._is_identity(first)
        damaged = 0
        for line in lines:
            match line:
                case {"key": str(key), "value": value, "digest": digest} if digest == self._digest(
                    key, value
                ):
                    self._kept.setdefault(key, value)
                case _:
                    damaged += 1
        if not known and damaged == len(lines):
            raise InputError(
                f"{self._path}: no line of it is whole, or of this measurement; delete the file"
            )
        if damaged:
            self._say(f"damaged lines: {damaged} of {len(lines)}; they are measured again")
        elif not known:
            self._say("its first line is damaged; the others are known by their digests")

    def _is_identity(self, line: Any) -> bool:
        match line:
            case {"identity": dict(found), "digest": digest} if digest == _digest(found, None):
                if found != self._identity:
                    keys = sorted({*found, *self._identity})
                    changed = [k for k in keys if found.get(k) != self._identity.get(k)]
                    raise InputError(
                        f"{self._path} holds an unfinished run of something else "
                        f"({', '.join(changed)} differ); finish that one or delete the file"
                    )
                return True
        return False

    def _append(self, line: Mapping[str, Any]) -> None:
        if self._file is None:
            return
        content = (json.dumps(line, allow_nan=False) + "\n").encode()
        try:
            while content:
                content = content[self._file.write(content) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise InputError(
                f"cannot write {self._path}: {error.strerror}; what it holds is kept: call again "
                f"to go on"
            ) from None

    def _digest(self, key: str | None, value: Any) -> str:
        return _digest(self._identity, key, value)

    def _say(self, what: str) -> None:
        with suppress(OSError):
            print(f"pdvsim: {self._path}: {what}", file=sys.stderr)


def _digest(identity: Mapping[str, Any], key: str | None, value: Any = None) -> str:
    canonical = json.dumps([identity, key, value], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _parsed(line: bytes) -> Any:
    """The document in a line; None for a damaged one."""
    try:
        return parse_json(line.decode("utf-8"), "a line", "a measurement")
    except (InputError, UnicodeDecodeError):
        return None
