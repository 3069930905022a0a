"""What is said where more requests come than can be served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pdvsim.output import number

if TYPE_CHECKING:
    from pdvsim.documents.cells import Row


def overloads(rows: Sequence[Row]) -> list[str]:
    """A sentence for each load at which some cells are overloaded."""
    lines = []
    for load in sorted({row.concurrency for row in rows}):
        found = [row for row in rows if row.concurrency == load and row.overloaded]
        if found:
            at = _rate(found[0])
            each = "; ".join(f"{row.label}, {_told(row)}" for row in found)
            lines.append(f"Overloaded{at}: {each}. A latency only says how long the run was.")
    return lines


def _rate(row: Row) -> str:
    rate = row.cell.rate_per_s if row.cell is not None else None
    return "" if rate is None else f" at C = {row.concurrency} and {rate:g} requests/s"


def _told(row: Row) -> str:
    assert row.overload is not None
    runs, of = row.overload.runs, row.length.runs
    return (
        f"whose queue grows by {number(row.overload.growth_per_s)} requests a second (capacity is "
        f"about {number(row.overload.served_per_s)}/s"
        + (f"; in {runs} of {of} runs)" if runs < of else ")")
    )


def at_times(rows: Sequence[Row]) -> list[str]:
    """Caveats on cells that are overloaded in some runs only, whose figures are of the others."""
    return [
        f"{row.label} is overloaded in {row.overload.runs} of {row.length.runs} runs"
        for row in rows
        if row.overload is not None and not row.overloaded
    ]
