"""Tables and lists of documents of cells, as the documents have them."""

from __future__ import annotations

from pdvsim.documents import Table
from pdvsim.documents.benchmark import Benchmark
from pdvsim.documents.cells import CellsDocument, Prediction
from pdvsim.documents.validation import Validation
from pdvsim.verdict import better_on
from reports.html import items, table

WORDS = frozenset({"architecture", "of", "because"})  # columns that hold words


def html(made: Table) -> str | None:
    """None without lines."""
    words = [i for i, heading in enumerate(made.head) if heading in WORDS]
    return table(made.head, made.lines, words) if made.lines else None


def figures(document: CellsDocument) -> str | None:
    """A line per cell, a column per metric that any of them knows."""
    return html(document.figures())


def accepted(document: CellsDocument) -> str | None:
    """What was drafted and kept, where that was measured."""
    return html(document.accepted()) if isinstance(document, Benchmark) else None


def errors(document: CellsDocument) -> str | None:
    """Measured, predicted and the error of each cell, in numbers."""
    return html(document.held()) if isinstance(document, Validation) else None


def closed_forms(document: CellsDocument) -> str | None:
    """Each formula beside the simulated value."""
    if not isinstance(document, Prediction) or not document.formulas:
        return None
    return html(document.closed_forms())


def notes(document: CellsDocument) -> str | None:
    """What is extrapolated, censored or unknown."""
    return items(document.notes) if document.notes else None


def ranks(document: CellsDocument) -> str | None:
    """Who is best at each load, where there are several."""
    said = [" ".join((rank.sentence, *rank.decided_by)) for rank in document.ranks]
    close = [
        f"{tie.first} and {tie.second} are too close to call at C = {rank.concurrency}"
        + ("." if tie.share is None else f" ({better_on(tie.first, tie.share)}).")
        for rank in document.ranks
        for tie in rank.ties
        if not tie.alike
    ]
    return items((*said, *close)) if len(said) > 1 or close else None
