"""Where the numbers of a page come from, as names and values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from pydantic import BaseModel

from pdvsim.cell import Cell
from pdvsim.documents import Document

# Of a document, as far as it has them.
FACTS = (
    *("kind", "pdvsim", "created", "git_revision", "command", "valid_for", "interval"),
    *("source", "format", "metric", "scale", "published", "files", "seed", "replications"),
    *("runs", "pairs_of_runs"),
)
ORIGINS = ("profile", "machine", "measured_on", "calibrated_from", "length")
LONG = 12  # values of a list


def provenance(document: Document) -> list[tuple[str, str]]:
    """(what, value) of everything that says where the numbers come from; what was never recorded
    is left out."""
    rows = [
        (name.replace("_", " "), text(value))
        for name in FACTS
        if (value := getattr(document, name, None)) is not None
    ]
    for name in ORIGINS:
        rows.extend(_flat(name, getattr(document, name, None)))
    rows.extend(_cells(document))
    return rows


def _cells(document: Document) -> Iterator[tuple[str, str]]:
    """What is the same in all cells, and the values of what is not."""
    cells = list(specified(document))
    for name in asdict(cells[0]) if cells else ():
        known = (getattr(cell, name) for cell in cells)
        values = dict.fromkeys(text(value) for value in known if value is not None)
        if any(values):
            yield f"cell {name.replace('_', ' ')}", "; ".join(values)


def specified(document: Document) -> Iterator[Cell]:
    """Every cell that a document knows the specification of."""
    for row in (*(getattr(document, "cells", None) or ()), *_sides(document)):
        cell = row if isinstance(row, Cell) else getattr(row, "cell", None)
        if cell is not None:
            yield cell


def _sides(document: Document) -> Iterator[Any]:
    for name in ("first", "second"):
        side = getattr(document, name, None)
        if isinstance(side, BaseModel):
            yield side


def _flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, Mapping):
        return [row for key, item in value.items() for row in _flat(f"{prefix} {key}", item)]
    if value is None or (isinstance(value, (list, tuple)) and len(value) > LONG):
        return []
    return [(prefix.replace("_", " "), text(value))]


def text(value: Any) -> str:
    """A value of a document in words."""
    if isinstance(value, BaseModel):
        value = dict(value)
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, (list, tuple)):
        return "; ".join(text(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {text(item)}" for key, item in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)
