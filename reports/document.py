"""What kind of document a page is made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Document: TypeAlias = Mapping[str, Any]

CELLS = "cells"  # predict, bench, validate and reproduce: cells with metrics
# The list that each of the others has.
LISTS = {"explain": "cells", "crossover": "points", "ablate": "parts", "audit": "findings"}


def kind(document: object) -> str | None:
    """`CELLS`, or the command of `LISTS` that wrote `document`; None if no command did."""
    if not isinstance(document, Mapping):
        return None
    # An audit is exchanged between programs, so it does not say which command wrote it.
    command = document.get("command", "audit" if "findings" in document else CELLS)
    found = document.get(LISTS.get(command, "cells"))
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        return None
    return command if command in LISTS else CELLS
