"""One sentence that says what came out, and whether it may be relied on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from statistics import median
from typing import Any

from pdvsim import cli
from reports import audit, chart_rows, explain
from reports.chart_rows import number
from reports.document import CELLS, Document, kind


@dataclass(frozen=True, slots=True)
class Verdict:
    """`sentence`, and why it holds only with care (empty: it holds as it stands)."""

    sentence: str
    caveats: tuple[str, ...]

    @property
    def validity(self) -> str:
        if not self.caveats:
            return "VALID"
        return "VALID WITH CARE, because " + "; ".join(self.caveats)


def judge(document: Document) -> Verdict:
    """The verdict on any document: in the words of the command that wrote it, where it has some;
    else a comparison if it holds one, else the best architecture."""
    judges = {
        "explain": _explained,
        "crossover": _crossed,
        "ablate": _ablated,
        "audit": _audited,
    }
    found = judges.get(kind(document) or CELLS)
    if found is not None:
        return found(document)
    rows = chart_rows.compared(document)
    return _comparison(rows) if rows else _winner(document)


def _explained(document: Document) -> Verdict:
    """How far predicted shares are off, if any were measured; else the surest difference at the
    highest load."""
    gaps, differences = document["predicted_less_measured"], document["differences"]
    caveats = []
    if any(cell["replications"] < 2 for cell in document["cells"]):
        caveats.append("a single run has no interval")
    if gaps:
        return Verdict(_farthest(gaps), tuple(caveats))
    if not differences:
        return Verdict(_largest_cause(document), tuple(caveats))
    top = max(
        differences,
        key=lambda one: (one["concurrency"], one["decided"] is True, abs(one["whole_s"]["value"])),
    )
    if top["decided"] is False:
        caveats.append("the difference could be chance")
    return Verdict(top["sentence"], tuple(caveats))


def _farthest(gaps: Sequence[Mapping[str, Any]]) -> str:
    worst = max(gaps, key=lambda gap: abs(gap["worst_points"]))
    return (
        f"Predicted shares of the latency are at most {number(abs(worst['worst_points']))} points "
        f"off the measured ones in {plural(len(gaps), 'cell')}: farthest for {worst['worst']} in "
        f"{worst['architecture']} at C = {worst['concurrency']}."
    )


def _largest_cause(document: Document) -> str:
    totals, parts = explain.wholes(document), explain.causes(document)
    if not totals:
        return "No cell has a latency to explain."
    top = max(totals, key=lambda row: int(row["concurrency"]))
    place = ("architecture", "world", "concurrency")
    of_it = [row for row in parts if all(row[name] == top[name] for name in place)]
    largest = max(of_it, key=lambda row: float(row["seconds"]))
    return (
        f"At C = {top['concurrency']} ({top['world']}) a request takes {top['told']} s in "
        f"{top['architecture']}; the largest part is {largest['cause']}, {largest['told']} s."
    )


def _crossed(document: Document) -> Verdict:
    first, second = document["first"], document["second"]
    lines: list[str] = cli.load("crossover").sentences(dict(document))
    # Its crossings come first: a sentence for each, or one that says that there is none.
    kept = lines[: max(1, len(document["crossings"]))]
    better = dict.fromkeys(point["verdict"] for point in document["points"])
    if not document["crossings"] and len(set(better) & {first, second}) == 1:
        winner = next(name for name in better if name in (first, second))
        kept = [f"{winner} is better wherever one of them certainly is; no crossing is certain."]
    caveats = [
        f"{plural(len(loads), 'load')} {what}"
        for loads, what in (
            (document["undecided"], "left open: the ratio's interval includes 1"),
            ([p for p in document["points"] if not p["ratio"]], "without a ratio"),
        )
        if loads
    ]
    return Verdict(
        f"{document['metric']} of {second} against {first}: {' '.join(kept)}", tuple(caveats)
    )


def _ablated(document: Document) -> Verdict:
    caveats = []
    if document["replications"] < 2:
        caveats.append("a single run has no interval")
    elif not document["decided"]:
        caveats.append("the whole could be chance")
    return Verdict(document["sentence"], tuple(caveats))


def _audited(document: Document) -> Verdict:
    found = audit.counts(document)
    listed = [plural(number, severity) for severity, number in found.items()]
    source = PurePath(document["source"]).name
    verb = "fail" if found["error"] else "stand as far as arithmetic can tell"
    sentence = (
        f"Claims of {source} {verb}: {', '.join(listed[:-1])} and {listed[-1]} "
        f"over {plural(document['cells'], 'cell')}."
    )
    rules, blind = document["rules"], audit.blind(document)
    caveat = f"{len(blind)} of {len(rules)} rules had nothing to look at (listed below)"
    return Verdict(sentence, (caveat,) if blind else ())


def plural(count: int, noun: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _comparison(rows: list[dict[str, Any]]) -> Verdict:
    quantity = rows[0]["quantity"]
    rows = [row for row in rows if row["quantity"] == quantity and row["error_percent"] is not None]
    if not rows:
        return Verdict("No cell has both a prediction and a measurement.", ("it is empty",))
    errors = [abs(row["error_percent"]) for row in rows]
    inside = sum(row["low"] <= row["measured"] <= row["high"] for row in rows)
    worst = max(rows, key=lambda row: abs(row["error_percent"]))
    sentence = (
        f"Predicted {quantity} is off by {number(median(errors))} % in the median of {len(rows)} "
        f"cells and by {number(max(errors))} % at worst ({worst['series']} at concurrency "
        f"{worst['concurrency']}); {inside} of {len(rows)} measured values lie inside the "
        f"stated interval."
    )
    caveats = []
    if inside < 0.85 * len(rows):
        caveats.append(f"{len(rows) - inside} of {len(rows)} measured values are outside")
    return Verdict(sentence, tuple(caveats))


def _winner(document: Document) -> Verdict:
    rows = chart_rows.throughput(document)
    if not rows:
        return Verdict("No cell has a throughput.", ("there is nothing to compare",))
    load = max(row["concurrency"] for row in rows)
    ranked = sorted(
        (row for row in rows if row["concurrency"] == load), key=lambda row: -row["value"]
    )
    best = ranked[0]
    verb = "delivers" if len(ranked) > 1 else "is predicted to deliver"
    if document.get("command") == "bench":
        verb = "delivered"
    sentence = (
        f"At concurrency {load}, {best['architecture']} {verb} {best['text']} output tokens/s"
    )
    if len(ranked) > 1:
        second = ranked[1]
        lead = 100.0 * (best["value"] / second["value"] - 1.0) if second["value"] else 0.0
        clear = best["low"] > second["high"]
        sentence += f", {number(lead)} % more than {second['architecture']}" + (
            ", beyond both intervals" if clear else "; their intervals overlap, so either may win"
        )
    return Verdict(sentence + ".", tuple(_caveats(document)))


def _caveats(document: Document) -> list[str]:
    among: list[Mapping[str, Any]] = chart_rows.cells(document)
    caveats = []
    extrapolated = [chart_rows.label(cell, among) for cell in among if cell.get("extrapolated")]
    if extrapolated:
        names = ", ".join(dict.fromkeys(extrapolated))
        caveats.append(f"{names} left the calibrated range (listed below)")
    if any(cell.get("replications", 1) < 2 for cell in among):
        caveats.append("a single run has no interval")
    silent = [chart_rows.label(cell, among) for cell in among if not cell.get("output_throughput")]
    if silent:
        caveats.append(f"{', '.join(silent)} never left the warm-up")
    return caveats
