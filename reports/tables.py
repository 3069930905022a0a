"""Tables of cells with metrics, and of the closed forms beside them."""

from __future__ import annotations

from collections.abc import Iterator

from reports import chart_rows
from reports.document import Document
from reports.html import interval, items, table

TABLE = (
    ("Output tokens/s", "output_throughput", 1.0),
    ("Requests/s", "request_throughput", 1.0),
    ("Goodput requests/s", "request_goodput", 1.0),
    ("TTFT p50, s", "median_ttft_ms", 1e-3),
    ("TPOT p50, ms", "median_tpot_ms", 1.0),
    ("E2E p50, s", "median_e2el_ms", 1e-3),
    ("E2E p99, s", "p99_e2el_ms", 1e-3),
    ("GPU busy, %", "gpu_busy", 100.0),
)


def metrics(document: Document) -> str | None:
    """A line per cell, a column per metric that any of them knows."""
    among = chart_rows.cells(document)
    columns = [column for column in TABLE if any(cell.get(column[1]) for cell in among)]
    several = len({cell.get("concurrency") for cell in among}) > 1
    lines = [
        (
            chart_rows.label(cell, among) + (f" · C = {cell['concurrency']}" if several else ""),
            *(interval(chart_rows.stated(cell, key), scale) for _, key, scale in columns),
        )
        for cell in among
    ]
    return table(("", *(title for title, _, _ in columns)), lines) if lines else None


def notes(document: Document) -> str | None:
    """What is extrapolated, censored or unknown."""
    lines = list(_notes(document))
    return items(lines) if lines else None


def _notes(document: Document) -> Iterator[str]:
    among = chart_rows.cells(document)
    known = {key for _, key, _ in TABLE} - {"request_goodput"}
    for cell in among:
        name = chart_rows.label(cell, among)
        for reason in cell.get("extrapolated", []):
            yield f"Extrapolated, {name}: {reason}"
        reasons = {why for key, why in (cell.get("reasons") or {}).items() if key in known}
        for why in sorted(reasons):
            yield f"Not known, {name}: {why}"
    censored = chart_rows.censored(among)
    if censored:
        yield censored


def closed_forms(document: Document) -> str | None:
    """Each formula beside the simulated value."""
    lines = [
        (
            (line["formula"], line["quantity"]),
            line["architecture"],
            chart_rows.number(line["value"]),
            interval(line["simulated"]),
            "n/a" if line["error"] is None else f"{line['error']:+.0%}",
            line["why"],
        )
        for line in document.get("formulas") or []
    ]
    head = ("Formula", "Of", "Formula says", "Simulated", "Off by", "Because")
    return table(head, lines, words=(1, 5)) if lines else None
