"""The rows behind the charts of cells, as plain dicts from a typed document. No chart library here.

Those of explanations, crossovers and ablations stand in the modules of their pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pdvsim.documents.cells import CellsDocument, Row
from pdvsim.documents.tables import Reproduction
from pdvsim.documents.validation import Validation
from pdvsim.output import number
from pdvsim.quantities import COMPARED, QUANTITIES
from pdvsim.statistics import Interval

Record = dict[str, Any]

CAUSES = ("device", "launch", "gil", "lock", "wake")
# More rows than this are aggregated before they are drawn.
MOST_ROWS = 5000
LATENCIES = (
    *("median_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "p99_tpot_ms"),
    *("median_e2el_ms", "p99_e2el_ms"),
)


def ends(found: Interval, scale: float = 1.0) -> Record:
    """value, low, high, scaled; without an interval low = high = value, so that nothing is drawn
    beyond the value."""
    value = scale * found.value
    low = value if found.low is None else scale * found.low
    high = value if found.high is None else scale * found.high
    return {"value": value, "low": low, "high": high}


def _place(row: Row) -> Record:
    return {"architecture": row.label, "concurrency": row.concurrency}


def throughput(document: CellsDocument) -> list[Record]:
    """architecture, concurrency, value, low, high, text: output tokens/s."""
    return [
        {**_place(row), **ends(found), "text": _said(found)}
        for row in document.cells
        if (found := row.metric("output_throughput"))
    ]


def _said(found: Interval) -> str:
    if found.low is None or found.high is None:
        return f"{number(found.value)} (one run)"
    return f"{number(found.value)} ({number(found.low)} to {number(found.high)})"


def latency(document: CellsDocument) -> list[Record]:
    """architecture, concurrency, latency (with its unit), statistic, value, low, high."""
    rows = []
    for row in document.cells:
        for name in LATENCIES:
            quantity, found = QUANTITIES[name], row.metric(name)
            title, _, statistic = quantity.heading.rpartition(" ")
            if found:
                rows.append(
                    {
                        **_place(row),
                        "latency": f"{title}, {quantity.shown}",
                        "statistic": "median" if statistic == "p50" else statistic,
                        **ends(found, quantity.scale),
                    }
                )
    return rows


def pareto(document: CellsDocument) -> list[Record]:
    """architecture, concurrency, latency_s and tokens_per_s with their ends, and `frontier`:
    whether no other point is both faster and higher."""
    rows = []
    for row in document.cells:
        e2e, tps = row.metric("median_e2el_ms"), row.metric("output_throughput")
        if e2e and tps:
            seconds, tokens = ends(e2e, 1e-3), ends(tps)
            rows.append(
                {
                    **_place(row),
                    "latency_s": seconds["value"],
                    "latency_low": seconds["low"],
                    "latency_high": seconds["high"],
                    "tokens_per_s": tokens["value"],
                    "tokens_low": tokens["low"],
                    "tokens_high": tokens["high"],
                }
            )
    for point in rows:
        point["frontier"] = not any(
            other["latency_s"] <= point["latency_s"]
            and other["tokens_per_s"] >= point["tokens_per_s"]
            and other is not point
            for other in rows
        )
    return rows


def stage_time(document: CellsDocument) -> list[Record]:
    """architecture, stage, cause, milliseconds: mean per execution of the stage, at the highest
    load of each architecture."""
    return [
        {
            "architecture": row.label,
            "stage": stage.replace("_", " "),
            "cause": cause,
            "order": order,
            "milliseconds": 1e3 * getattr(parts, cause) / parts.count,
            "executions": parts.count,
        }
        for row in _highest_load(document.cells)
        for stage, parts in row.stages.items()
        if parts.count
        for order, cause in enumerate(CAUSES)
    ]


def _highest_load(rows: Sequence[Row]) -> list[Row]:
    best: dict[str, Row] = {}
    for row in rows:
        if row.label not in best or row.concurrency >= best[row.label].concurrency:
            best[row.label] = row
    return list(best.values())


def timeline(document: CellsDocument) -> list[Record]:
    """architecture, track, stage, start_ms, end_ms, batch: what ran where, host and device."""
    rows = []
    for row in _highest_load(document.cells):
        origin = min((span.launched_s for span in row.timeline), default=0.0)
        for span in row.timeline:
            for track, start, end in (
                (f"thread {span.lane}", span.launched_s, span.launch_end_s),
                (f"stream {span.stream}", span.started_s, span.ended_s),
            ):
                if end > start:
                    rows.append(
                        {
                            "architecture": row.label,
                            "track": track,
                            "stage": span.stage.replace("_", " "),
                            "start_ms": 1e3 * (start - origin),
                            "end_ms": 1e3 * (end - origin),
                            "batch": span.batch,
                        }
                    )
    return merged(rows)


def merged(spans: list[Record], most: int = MOST_ROWS) -> list[Record]:
    """At most `most` spans: neighbours of one stage on one track become one where the gap
    between them is too small to be seen, and smaller ones still if that does not do."""
    gap_ms = 0.0
    rows = spans
    while len(rows) > most:
        gap_ms = 2.0 * gap_ms or max(row["end_ms"] for row in rows) / most
        last: dict[tuple[str, str], Record] = {}
        rows = []
        for span in sorted(spans, key=lambda row: float(row["start_ms"])):
            track = (span["architecture"], span["track"])
            before = last.get(track)
            if (
                before is not None
                and before["stage"] == span["stage"]
                and span["start_ms"] - before["end_ms"] <= gap_ms
            ) or (before is not None and span["end_ms"] - before["start_ms"] <= gap_ms):
                before["end_ms"] = max(before["end_ms"], span["end_ms"])
            else:
                last[track] = dict(span)
                rows.append(last[track])
    return rows


def compared(document: CellsDocument | Reproduction) -> list[Record]:
    """series, concurrency, quantity, measured, predicted, low, high, and error_percent with its
    ends: predicted / measured - 1."""
    if isinstance(document, Reproduction):
        return _published(document)
    if not isinstance(document, Validation):
        return []
    rows = []
    for row in document.cells:
        name = {"series": row.label, "concurrency": row.concurrency}
        for key in COMPARED:
            quantity = QUANTITIES[key]
            measured, predicted = row.measured[key], row.metric(key)
            if measured and predicted:
                scale = quantity.scale
                seen = scale * measured.value
                rows.append(_error(name, quantity.title, seen, ends(predicted, scale)))
    return rows


def _published(document: Reproduction) -> list[Record]:
    rows = []
    for row in document.cells:
        name = {"series": row.engine, "concurrency": row.concurrency}
        tps, latency_ms = row.predicted.tps, row.predicted.latency_ms
        rows.append(_error(name, "tokens/s", row.published.tps, ends(tps)))
        if latency_ms is not None:
            seconds = 1e-3 * row.published.latency_ms
            rows.append(_error(name, "mean latency, s", seconds, ends(latency_ms, 1e-3)))
    return rows


def _error(name: Record, quantity: str, measured: float, predicted: Record) -> Record:
    def percent(value: float) -> float | None:
        return 100.0 * (value / measured - 1.0) if measured else None

    return {
        **name,
        "quantity": quantity,
        "measured": measured,
        "predicted": predicted["value"],
        "low": predicted["low"],
        "high": predicted["high"],
        "error_percent": percent(predicted["value"]),
        "error_low": percent(predicted["low"]),
        "error_high": percent(predicted["high"]),
    }


def gains(document: Reproduction) -> list[Record]:
    """concurrency, which (published, predicted), gain, low, high: ratio of two engines."""
    rows = []
    for gain in document.gains:
        both = (("published", Interval(gain.published, None, None)), ("predicted", gain.predicted))
        for which, found in both:
            if found is not None and found.value:
                whole = ends(found)
                whole["gain"] = whole.pop("value")
                rows.append({"concurrency": gain.concurrency, "which": which, **whole})
    return rows
