"""Cells over their runs, as they stand in documents: rows, and who is best at each load."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from pdvsim.cell import Cell
from pdvsim.documents.base import RunLength
from pdvsim.documents.cells import Overload, Rank, Row, Tie
from pdvsim.open_loop import Drift
from pdvsim.protocols import protocols
from pdvsim.sweep import CellResult
from pdvsim.verdict import PENDING, Contender, better_on, cell_notes, rank, ranking_metric


def row(result: CellResult) -> dict[str, Any]:
    """The fields of `Row`."""
    seconds, requests = result.metrics["duration_s"], result.metrics["completed"]
    return {
        "label": result.label,
        "concurrency": result.cell.concurrency,
        "cell": result.cell,
        "length": RunLength(
            runs=len(result.runs),
            seconds=seconds.value if seconds else None,
            requests=requests.value if requests else None,
        ),
        "metrics": result.metrics,
        "acceptance_per_position": result.acceptance_per_position,
        "reasons": result.reasons,
        "extrapolated": result.extrapolated,
        "impossible": result.impossible,
        "stages": result.stages,
        "timeline": result.timeline,
        "overload": _overload(result.overloaded),
    }


def _overload(found: Sequence[Drift]) -> Overload | None:
    if not found:
        return None
    return Overload(
        growth_per_s=fmean(one.growth_per_s for one in found),
        served_per_s=fmean(one.served_per_s for one in found),
        runs=len(found),
    )


def ranks(
    results: Sequence[CellResult], verb: str = "delivers", machines: bool = True
) -> list[Rank]:
    """Who is best at each load, in the order of loads.

    Args:
        machines: each run is of another plausible machine, as simulated ones are.
    """
    found = []
    for load in sorted({result.cell.concurrency for result in results}):
        here = [result for result in results if result.cell.concurrency == load]
        cell = here[0].cell
        metric = ranking_metric(cell.protocol, cell.slo is not None)
        if all(result.metrics[metric] is None and result.overloaded for result in here):
            metric = "request_throughput"
        contenders = [
            Contender(result.label, value, [run.metrics[metric] for run in result.runs], machines)
            for result in here
            if (value := result.metrics[metric]) is not None
        ]
        found.append(rank(contenders, metric, load, at(cell), verb))
    return found


def at(cell: Cell) -> str:
    """The load of a cell in words."""
    rate = "" if cell.rate_per_s is None else f" and {cell.rate_per_s:g} requests/s"
    return f"C = {cell.concurrency}{rate}"


def subject(cells: Sequence[Cell]) -> str:
    """What was run, in a line."""
    parts = [
        ", ".join(dict.fromkeys(getattr(cell, name) for cell in cells))
        for name in ("pair", "executor", "protocol")
    ]
    loads = ", ".join(map(str, dict.fromkeys(cell.concurrency for cell in cells)))
    return " · ".join((*parts, f"C = {loads}"))


def ranked(
    results: Sequence[CellResult],
    rows: Sequence[Row],
    notes: Sequence[str],
    verb: str,
    machines: bool = True,
) -> dict[str, Any]:
    """Cells, ranks and notes of a document, which is still to be judged.

    Args:
        machines: as in `ranks`.
    """
    found = ranks(results, verb, machines)
    close = [
        f"{tie.first} and {tie.second} are too close to call at C = {one.concurrency}"
        + ("" if tie.share is None else f" ({better_on(tie.first, tie.share)})")
        + _advice(results[0].cell, tie)
        for one in found
        for tie in one.ties
        if not tie.alike
    ]
    return {
        "cells": tuple(rows),
        "ranks": tuple(found),
        "verdict": PENDING,
        "notes": (*notes, *cell_notes(rows), *close),
    }


def _advice(cell: Cell, tie: Tie) -> str:
    """How to find out; a crossover goes over closed loops unless asked otherwise."""
    protocol = protocols()[cell.protocol]
    if cell.slo is not None or not (protocol.steady or not protocol.open_loop):
        return "."
    over = f" --over rate --protocol {protocol.name}" if protocol.steady else ""
    return f": pdvsim crossover {tie.first} {tie.second}{over} finds where they cross."
