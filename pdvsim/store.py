"""Finished measurements on disk, so that a killed run goes on where it stopped.

A JSON-lines file: the first line says what is being measured, each further one holds a finished
measurement. A line is written whole and synced; a half-written last line is measured again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pdvsim.errors import InputError


class Store:
    """Measurements by key."""

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        """Open `path`, or start it.

        Raises:
            InputError: it holds measurements of something else than `identity`.
        """
        self._path = path
        self._done: dict[str, Any] = {}
        lines = self._read()
        if lines:
            if lines[0] != identity:
                changed = sorted(k for k in identity if lines[0].get(k) != identity[k])
                raise InputError(
                    f"{path} holds an unfinished run of something else "
                    f"({', '.join(changed)} differ); finish that one or delete the file"
                )
            self._done = {line["key"]: line["value"] for line in lines[1:]}
        # Rewriting drops a half-written last line.
        content = [identity, *({"key": k, "value": v} for k, v in self._done.items())]
        temporary = path.with_suffix(path.suffix + ".tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in content))
        temporary.replace(path)

    def __contains__(self, key: str) -> bool:
        return key in self._done

    def measure(self, key: str, measurement: Callable[[], Any]) -> Any:
        """The value under `key`, measured now unless it is there already."""
        if key not in self._done:
            value = measurement()
            with self._path.open("a") as file:
                file.write(json.dumps({"key": key, "value": value}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            self._done[key] = value
        return self._done[key]

    def remove(self) -> None:
        """Delete the file: the profile has been written."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        lines = []
        for line in self._path.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return lines
