"""The rows behind each chart, as plain dicts from a JSON document. No chart library here.

A document is what a command prints with --json:
    predict, bench   cells with metrics as {value, low, high}; bench may add `telemetry`
    validate         cells whose `predicted` and `measured` each hold metrics like that
    reproduce        cells with published_tps, predicted_tps, ...; and `gains`
Those of explain, crossover and ablate have their rows in `reports.analysis`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.document import Document

Row = dict[str, Any]

CAUSES = ("device", "launch", "gil", "lock", "wake")
# More rows than this are aggregated before they are drawn.
MOST_ROWS = 5000


def metric(cell: Mapping[str, Any], name: str, scale: float = 1.0) -> Row | None:
    """{value, low, high} of a metric, scaled; without an interval low = high = value."""
    found = stated(cell, name)
    if found is None:
        return None
    value = scale * found["value"]
    low, high = found.get("low"), found.get("high")
    return {
        "value": value,
        "low": value if low is None else scale * low,
        "high": value if high is None else scale * high,
    }


def stated(cell: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """A metric as the document has it, with or without an interval; None without a value."""
    found = cell.get(name)
    if isinstance(found, (int, float)):
        return {"value": found}
    if not isinstance(found, Mapping) or found.get("value") is None:
        return None
    return found


def cells(document: Document) -> list[Mapping[str, Any]]:
    """Cells that carry metrics of their own: those of predict and bench, and the predicted
    side of validate."""
    return [
        {**cell, **cell.get("predicted", {})}
        for cell in document.get("cells", [])
        if "architecture" in cell
    ]


def label(cell: Mapping[str, Any], among: Sequence[Mapping[str, Any]]) -> str:
    """The architecture, with the executor or pair where `among` has several."""
    differing = [
        name for name in ("executor", "pair") if len({other.get(name) for other in among}) > 1
    ]
    return " · ".join(str(cell.get(name)) for name in ("architecture", *differing))


def throughput(document: Document) -> list[Row]:
    """architecture, concurrency, value, low, high, text: output tokens/s."""
    among = cells(document)
    rows = []
    for cell in among:
        found = metric(cell, "output_throughput")
        if found:
            text = f"{number(found['value'])} ({number(found['low'])} to {number(found['high'])})"
            rows.append(
                {
                    "architecture": label(cell, among),
                    "concurrency": cell.get("concurrency"),
                    **found,
                    "text": text,
                }
            )
    return rows


def latency(document: Document) -> list[Row]:
    """architecture, concurrency, latency (TTFT, TPOT, E2E), statistic, value, low, high: seconds,
    but milliseconds for TPOT."""
    among = cells(document)
    rows = []
    for cell in among:
        for name, title, scale in (
            ("ttft", "TTFT, s", 1e-3),
            ("tpot", "TPOT, ms", 1.0),
            ("e2el", "E2E latency, s", 1e-3),
        ):
            for statistic in ("median", "p99"):
                found = metric(cell, f"{statistic}_{name}_ms", scale)
                if found:
                    rows.append(
                        {
                            "architecture": label(cell, among),
                            "concurrency": cell.get("concurrency"),
                            "latency": title,
                            "statistic": statistic,
                            **found,
                        }
                    )
    return rows


def pareto(document: Document) -> list[Row]:
    """architecture, concurrency, latency_s and tokens_per_s with their ends, and `frontier`:
    whether no other point is both faster and higher."""
    among = cells(document)
    rows = []
    for cell in among:
        e2e = metric(cell, "median_e2el_ms", 1e-3)
        tps = metric(cell, "output_throughput")
        if e2e and tps:
            rows.append(
                {
                    "architecture": label(cell, among),
                    "concurrency": cell.get("concurrency"),
                    "latency_s": e2e["value"],
                    "latency_low": e2e["low"],
                    "latency_high": e2e["high"],
                    "tokens_per_s": tps["value"],
                    "tokens_low": tps["low"],
                    "tokens_high": tps["high"],
                }
            )
    for row in rows:
        row["frontier"] = not any(
            other["latency_s"] <= row["latency_s"]
            and other["tokens_per_s"] >= row["tokens_per_s"]
            and other is not row
            for other in rows
        )
    return rows


def stage_time(document: Document) -> list[Row]:
    """architecture, stage, cause, milliseconds: mean per execution of the stage, at the highest
    load of each architecture."""
    among = cells(document)
    rows: list[Row] = []
    for cell in _highest_load(among):
        for stage, parts in (cell.get("stages") or {}).items():
            if parts.get("count"):
                rows.extend(
                    {
                        "architecture": label(cell, among),
                        "stage": stage.replace("_", " "),
                        "cause": cause,
                        "order": CAUSES.index(cause),
                        "milliseconds": 1e3 * parts.get(cause, 0.0) / parts["count"],
                        "executions": parts["count"],
                    }
                    for cause in CAUSES
                )
    return rows


def _highest_load(among: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    best: dict[str, Mapping[str, Any]] = {}
    for cell in among:
        name = label(cell, among)
        if name not in best or cell.get("concurrency", 0) >= best[name].get("concurrency", 0):
            best[name] = cell
    return list(best.values())


def timeline(document: Document) -> list[Row]:
    """architecture, track, stage, start_ms, end_ms, batch: what ran where, host and device."""
    among = cells(document)
    rows = []
    for cell in _highest_load(among):
        spans = cell.get("timeline") or []
        origin = min((span["launched_s"] for span in spans), default=0.0)
        for span in spans:
            for track, start, end in (
                (f"thread {span['lane']}", span["launched_s"], span["launch_end_s"]),
                (f"stream {span['stream']}", span["started_s"], span["ended_s"]),
            ):
                if end > start:
                    rows.append(
                        {
                            "architecture": label(cell, among),
                            "track": track,
                            "stage": span["stage"].replace("_", " "),
                            "start_ms": 1e3 * (start - origin),
                            "end_ms": 1e3 * (end - origin),
                            "batch": span["batch"],
                        }
                    )
    return merged(rows)


def merged(spans: list[Row], most: int = MOST_ROWS) -> list[Row]:
    """At most `most` spans: neighbours of one stage on one track become one where the gap
    between them is too small to be seen, and smaller ones still if that does not do."""
    gap_ms = 0.0
    rows = spans
    while len(rows) > most:
        gap_ms = 2.0 * gap_ms or max(row["end_ms"] for row in rows) / most
        last: dict[tuple[str, str], Row] = {}
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


COMPARED = (
    ("output_throughput", "output tokens/s", 1.0),
    ("median_e2el_ms", "E2E p50, s", 1e-3),
    ("median_ttft_ms", "TTFT p50, s", 1e-3),
    ("median_tpot_ms", "TPOT p50, ms", 1.0),
)


def compared(document: Document) -> list[Row]:
    """series, concurrency, quantity, measured, predicted, low, high, and error_percent with its
    ends: predicted / measured - 1."""
    rows = []
    for cell in document.get("cells", []):
        if "published_tps" in cell:
            rows.extend(_published(cell))
        elif "measured" in cell:
            name = {"series": cell["architecture"], "concurrency": cell.get("concurrency")}
            for key, quantity, scale in COMPARED:
                measured = metric(cell["measured"], key, scale)
                predicted = metric({**cell, **cell.get("predicted", {})}, key, scale)
                if measured and predicted:
                    rows.append(_error(name, quantity, measured["value"], predicted))
    return [row for row in rows if row]


def _published(cell: Mapping[str, Any]) -> list[Row]:
    name = {"series": cell["engine"], "concurrency": cell["concurrency"]}
    rows = []
    for key, quantity, scale in (
        ("tps", "tokens/s", 1.0),
        ("latency_ms", "mean latency, s", 1e-3),
    ):
        stated = {
            "value": cell.get(f"predicted_{key}"),
            "low": cell.get(f"predicted_{key}_low"),
            "high": cell.get(f"predicted_{key}_high"),
        }
        predicted = metric({"stated": stated}, "stated", scale)
        published = metric(cell, f"published_{key}", scale)
        if published and predicted:
            rows.append(_error(name, quantity, published["value"], predicted))
    return rows


def _error(name: Row, quantity: str, measured: float, predicted: Row) -> Row:
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


def gains(document: Document) -> list[Row]:
    """concurrency, which (published, predicted), gain, low, high: ratio of two engines."""
    rows = []
    for gain in document.get("gains", []):
        for which in ("published", "predicted"):
            value = gain.get(which)
            if value:
                low, high = gain.get(f"{which}_low"), gain.get(f"{which}_high")
                rows.append(
                    {
                        "concurrency": gain["concurrency"],
                        "which": which,
                        "gain": value,
                        "low": low or value,
                        "high": high or value,
                    }
                )
    return rows


def censored(among: Sequence[Mapping[str, Any]]) -> str:
    """One sentence on the requests in flight at the end of runs; empty without any."""
    found = [(label(cell, among), metric(cell, "censored")) for cell in among]
    counts = [
        f"{name} {number(seen['value'])}" for name, seen in found if seen and seen["value"] >= 0.5
    ]
    if not counts:
        return ""
    return (
        f"Censored: requests in flight at the end ({', '.join(counts)}); "
        f"TTFT and E2E latency are Kaplan-Meier estimates."
    )


FACTS = (
    *("command", "source", "format", "first", "second", "over", "metric", "scale", "published"),
    *("seed", "replications", "runs", "pairs_of_runs", "interval", "acceptance"),
)


def provenance(document: Document) -> list[tuple[str, str]]:
    """(what, value) of everything that says where the numbers come from."""
    rows = [
        (name.replace("_", " "), text(document[name]))
        for name in FACTS
        if document.get(name) is not None
    ]
    for name in ("profile", "telemetry", "calibrated_from"):
        rows.extend(_flat(name, document.get(name) or {}))
    rows.extend(_flat("argument", document.get("arguments") or {}))
    return rows


def _flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [row for key, item in value.items() for row in _flat(f"{prefix} {key}", item)]
    if value is None or (isinstance(value, list) and len(value) > 12):
        return []
    return [(prefix.replace("_", " "), text(value))]


def text(value: Any) -> str:
    """A value of a document in words."""
    if isinstance(value, list):
        return "; ".join(text(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {text(item)}" for key, item in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def number(value: float | None) -> str:
    """Three significant digits."""
    from pdvsim.output import number as significant

    return significant(value)
