"""Tables of cells with metrics, and of the closed forms beside them."""

from __future__ import annotations

from collections.abc import Sequence

from pdvsim.documents.cells import CellsDocument, Prediction
from pdvsim.documents.tables import Reproduction
from pdvsim.documents.validation import Validation
from pdvsim.output import number
from pdvsim.quantities import COLUMNS, COMPARED, QUANTITIES
from reports.html import Cell, interval, items, table


def metrics(document: CellsDocument) -> str | None:
    """A line per cell, a column per metric that any of them knows."""
    columns = [
        QUANTITIES[name] for name in COLUMNS if any(row.metric(name) for row in document.cells)
    ]
    several = len(document.loads) > 1
    lines = [
        (
            row.label + (f" · C = {row.concurrency}" if several else ""),
            *(interval(row.metric(column.name), column.scale) for column in columns),
        )
        for row in document.cells
    ]
    return table(("", *(column.title for column in columns)), lines) if lines else None


def errors(document: CellsDocument | Reproduction) -> str | None:
    """Measured, predicted and the error of each cell, in numbers."""
    if not isinstance(document, Validation):
        return None
    lines: list[Sequence[Cell]] = []
    for row in document.cells:
        told: list[Cell] = []
        for name in COMPARED:
            scale, error = QUANTITIES[name].scale, row.errors[name]
            sides = (row.measured[name], row.metric(name))
            values = [number(scale * side.value) if side else "n/a" for side in sides]
            off = "n/a" if error is None else f"{100 * error:+.1f} %"
            told.append((f"{values[0]} : {values[1]}", off))
        lines.append((f"{row.label} · C = {row.concurrency}", *told))
    head = ("measured : predicted", *(QUANTITIES[name].title for name in COMPARED))
    return table(head, lines) if lines else None


def notes(document: CellsDocument) -> str | None:
    """What is extrapolated, censored or unknown."""
    return items(document.notes) if document.notes else None


def ranks(document: CellsDocument) -> str | None:
    """Who is best at each load, where there are several."""
    said = [rank.sentence for rank in document.ranks]
    close = [
        f"{tie.first} and {tie.second} are too close to call at C = {rank.concurrency}."
        for rank in document.ranks
        for tie in rank.ties
        if not tie.alike
    ]
    return items((*said, *close)) if len(said) > 1 or close else None


def closed_forms(document: CellsDocument) -> str | None:
    """Each formula beside the simulated value."""
    if not isinstance(document, Prediction):
        return None
    lines = [
        (
            (line.formula, line.quantity),
            line.label,
            number(line.value),
            interval(line.simulated),
            "n/a" if line.error is None else f"{line.error:+.0%}",
            line.why,
        )
        for line in document.formulas
    ]
    head = ("Formula", "Of", "Formula says", "Simulated", "Off by", "Because")
    return table(head, lines, words=(1, 5)) if lines else None
