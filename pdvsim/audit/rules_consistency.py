"""Rules about the table against itself: copies, sums, and what cannot differ."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from math import log, sqrt
from statistics import fmean, stdev

from pdvsim.audit.finding import Finding, Limits, Severity
from pdvsim.audit.rules_load import Checked, names, rounded
from pdvsim.audit.table import Cell, Served, Table

AGREE = 0.01  # relative; totals and means of the same numbers
AFTER_LAST = 0.05
SAME_DIGITS = 4
SAME_LOADS = 3
LOAD_SPAN = 1.25
COPIED_SHARE = 0.02
LEAST_PAIRED = 3
CONFIDENCE = 0.95

_METRICS = ("output_throughput", "request_throughput", "latency_s", "latency_p99_s", "ttft_s")


def duplicates(table: Table, limits: Limits) -> Checked:
    """Rows that appear twice: a cell with all its numbers, or a request within a cell."""
    findings = []
    seen: dict[tuple[object, ...], Cell] = {}
    doubled = []
    for cell in table.cells:
        pair = cell.pair.name if cell.pair else None
        key = (cell.system, cell.load, pair, *(getattr(cell, name) for name in _METRICS))
        if key in seen and any(value is not None for value in key[3:]):
            doubled.append(cell)
        seen[key] = cell
    if doubled:
        findings.append(
            _copies(doubled, f"{len(doubled)} cells appear twice with the same numbers", {})
        )
    for cell in table.cells:
        counts = Counter(request.id for request in cell.done)
        twice = [id for id, count in counts.items() if count > 1]
        if twice:
            message = f"{cell.name}: {len(twice)} of {len(counts)} request ids appear twice"
            findings.append(_copies([cell], message, {"request_ids": twice[:10]}))
            continue
        copied = _copied_requests(cell.done)
        if copied > max(2, COPIED_SHARE * len(cell.done)):
            message = (
                f"{cell.name}: {copied} of {len(cell.done)} requests have the very times of "
                f"another one"
            )
            findings.append(_copies([cell], message, {"copied": copied}))
    return len(table.cells), findings


def _copied_requests(done: Sequence[Served]) -> int:
    """Requests that share every time with an earlier one; needs two times a request to judge."""
    keys = Counter((r.latency_s, *r.timings) for r in done if r.timings)
    return sum(count - 1 for count in keys.values())


def _copies(cells: Sequence[Cell], message: str, evidence: dict[str, int | list[str]]) -> Finding:
    return Finding(
        "duplicates",
        Severity.ERROR,
        names(cells),
        message,
        evidence,
        "The raw log of the runs: a copied row is no measurement.",
    )


def identical(table: Table, limits: Limits) -> Checked:
    """Different loads or systems with the same digits."""
    findings = []
    measured = [c for c in table.cells if c.output_throughput and c.mean_latency_s]
    same: dict[tuple[object, ...], list[Cell]] = defaultdict(list)
    for cell in measured:
        same[cell.pair, cell.output_throughput, cell.mean_latency_s].append(cell)
    for group in same.values():
        where = {(cell.system, cell.load) for cell in group}
        if len(where) < 2:
            continue
        systems = {cell.system for cell in group}
        first, others = group[0], len(where) - 1
        which = next(c for c in group if (c.system, c.load) != (first.system, first.load)).name
        which += f" (and {others - 1} more)" if others > 1 else ""
        findings.append(
            Finding(
                "identical",
                Severity.ERROR if len(systems) < len(where) else Severity.WARNING,
                names(group),
                f"{first.name} and {which} show the same throughput and latency to the last digit",
                {
                    "output_throughput": first.output_throughput or 0.0,
                    "latency_s": first.mean_latency_s or 0.0,
                },
                "The raw logs of these runs.",
            )
        )
    for _, cells in table.by_system():
        groups: dict[float, list[Cell]] = defaultdict(list)
        for cell in cells:
            if cell.output_throughput and len(_digits(cell.output_throughput)) >= SAME_DIGITS:
                groups[cell.output_throughput].append(cell)
        for throughput, group in groups.items():
            loads = sorted({cell.load for cell in group if cell.load})
            if len(loads) < SAME_LOADS or loads[-1] < LOAD_SPAN * loads[0]:
                continue
            findings.append(
                Finding(
                    "identical",
                    Severity.WARNING,
                    names(group),
                    f"{group[0].system} shows {throughput:g} tokens/s at {len(loads)} loads from "
                    f"{loads[0]:g} to {loads[-1]:g}: something other than the load sets it",
                    {
                        "output_throughput": throughput,
                        "completed": rounded([c.samples for c in group]),
                        "output_tokens": rounded([c.tokens for c in group], 6),
                        "elapsed_s": rounded([cell.elapsed_s for cell in group]),
                    },
                    "Which requests completed at each load, and when.",
                )
            )
    return len(measured), findings


def _digits(value: float) -> str:
    return f"{value:.15g}".replace(".", "").lstrip("0")


def arithmetic(table: Table, limits: Limits) -> Checked:
    """Numbers of one row that must agree with each other and with the requests behind it."""
    findings = []
    for cell in table.cells:
        for what, stated, derived, slack in _sums(cell):
            if abs(stated - derived) > (AGREE + slack) * max(abs(stated), abs(derived)):
                findings.append(_disagreement(cell, what, stated, derived))
        for what, small, large in _orders(cell, table.windowed):
            if small is not None and large is not None and small > large * (1 + AGREE):
                findings.append(_disagreement(cell, what, small, large))
    return len(table.cells), findings


def _sums(cell: Cell) -> list[tuple[str, float, float, float]]:
    """(what, stated, derived, extra relative slack) of everything that is known twice."""
    rows: list[tuple[str, float, float, float]] = []
    slack = cell.resolution / cell.output_throughput if cell.output_throughput else 0.0

    def know(what: str, stated: float, derived: float, extra: float = 0.0) -> None:
        rows.append((what, stated, derived, extra))

    if cell.duration_s and cell.output_throughput and cell.tokens:
        derived = cell.tokens / cell.duration_s
        know("output throughput and tokens / duration", cell.output_throughput, derived, slack)
    if cell.duration_s and cell.request_throughput and cell.samples:
        derived = cell.samples / cell.duration_s
        know("request throughput and completed / duration", cell.request_throughput, derived)
    if cell.latency_s and cell.done:
        derived = fmean(r.latency_s or 0.0 for r in cell.done)
        know("mean latency and that of its requests", cell.latency_s, derived)
    if cell.completed is not None and cell.done:
        know("completed and its requests", cell.completed, len(cell.done))
    if cell.offered is not None and cell.completed is not None:
        ended = cell.completed + (cell.failed or 0)
        if ended > cell.offered:
            failed = f" + {cell.failed} failed" if cell.failed else ""
            know(f"{cell.completed} completed{failed} and requests offered", ended, cell.offered)
    return rows


def _orders(cell: Cell, windowed: bool) -> list[tuple[str, float | None, float | None]]:
    """(what, the smaller, the larger) of everything that has an order."""
    length_s = None if windowed else cell.elapsed_s
    return [
        ("goodput and request throughput", cell.request_goodput, cell.served_per_s),
        ("TTFT and end-to-end latency", cell.ttft_s, cell.latency_s),
        ("latency and TTFT + ITL for each further token", cell.latency_s, _most_latency_s(cell)),
        ("mean latency and the length of the run", cell.latency_s, length_s),
    ]


def _most_latency_s(cell: Cell) -> float | None:
    """Mean of TTFT and all gaps: a request of n tokens has at most n - 1. What follows the last
    token is a few percent at most."""
    if cell.ttft_s is None or cell.gap_s is None or not cell.tokens or not cell.samples:
        return None
    gaps = max(cell.tokens / cell.samples - 1, 0.0)
    return (cell.ttft_s + gaps * cell.gap_s) * (1 + AFTER_LAST)


def _disagreement(cell: Cell, what: str, first: float, second: float) -> Finding:
    return Finding(
        "arithmetic",
        Severity.ERROR,
        (cell.name,),
        f"{cell.name}: {what} do not go together ({first:.4g} and {second:.4g})",
        {"first": float(f"{first:.6g}"), "second": float(f"{second:.6g}")},
        "The request log that the row was computed from.",
    )


def gains(table: Table, limits: Limits) -> Checked:
    """Whether a difference in latency between two systems at one load exceeds its noise; systems
    that are neighbours in the order of latency are compared.

    The interval is Student's on log latency, paired where both ran the same requests. Requests
    of one run are correlated, so it is too narrow: what it covers is noise for certain.
    """
    checked, noisy = 0, list[tuple[Cell, Cell, float, float]]()
    for _, cells in table.by_load():
        timed = [cell for cell in cells if cell.mean_latency_s]
        timed.sort(key=lambda cell: cell.mean_latency_s or 0.0)
        for a, b in pairwise(timed):
            if a.system == b.system:
                continue
            checked += 1
            gain = log((b.mean_latency_s or 1.0) / (a.mean_latency_s or 1.0))
            half = _half_width(a, b)
            if half is None or abs(gain) < half:
                noisy.append((a, b, gain, half if half is not None else float("inf")))
    if not noisy:
        return checked, []
    finding = Finding(
        "gains",
        Severity.NOTE,
        names([cell for a, b, _, _ in noisy for cell in (a, b)]),
        f"at {len(noisy)} of {checked} loads the difference in latency between two systems does "
        f"not exceed its noise, or has none that can be estimated",
        {
            "latency_ratio": rounded([2.718281828**gain for _, _, gain, _ in noisy]),
            "half_width_percent": [
                f"{100 * half:.3g}" if half < 1e9 else "unknown" for _, _, _, half in noisy
            ],
        },
        "Repeat both with several seeds; compare runs, paired by seed.",
    )
    return checked, [finding]


def _half_width(a: Cell, b: Cell) -> float | None:
    """Half width of the interval of log(latency of b / latency of a); None if unknown."""
    from scipy.special import stdtrit

    mine = {r.id: r for r in a.done}
    shared = [(mine[r.id], r) for r in b.done if r.id in mine]
    logs = [
        log((y.latency_s or 1) / (x.latency_s or 1))
        for x, y in shared
        if x.output_tokens == y.output_tokens and x.latency_s and y.latency_s
    ]
    if len(logs) >= LEAST_PAIRED and len(logs) == len(a.done) == len(b.done):
        return float(stdtrit(len(logs) - 1, (1 + CONFIDENCE) / 2)) * stdev(logs) / sqrt(len(logs))
    relative = [_relative_error(cell) for cell in (a, b)]
    if None in relative:
        return None
    counts = min(a.samples or 2, b.samples or 2) - 1
    error = sqrt(sum((value or 0.0) ** 2 for value in relative))
    return float(stdtrit(counts, (1 + CONFIDENCE) / 2)) * error


def _relative_error(cell: Cell) -> float | None:
    """Relative standard error of the mean latency."""
    count = cell.samples or 0
    if count < 2 or not cell.mean_latency_s:
        return None
    spread = cell.latency_std_s
    if spread is None and len(cell.done) == count:
        spread = stdev(r.latency_s or 0.0 for r in cell.done)
    return None if spread is None else spread / cell.mean_latency_s / sqrt(count)
