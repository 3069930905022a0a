"""Rules about time and counts: who was counted, for how long, at what load."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from pdvsim.audit.finding import Finding, Limits, Number, Severity
from pdvsim.audit.table import Cell, Table

Checked = tuple[int, list[Finding]]

SAME_END = 0.004  # relative; runs of different loads do not end this close together by chance
UNFINISHED_ERROR = 0.05
UNFINISHED_WARNING = 0.01
FEW_SAMPLES = 10
PERCENTILE_SAMPLES = 100
OVERLOAD = 1.1
IN_FLIGHT_SLACK = 0.03
STEADY_SLACK = 0.25  # X R against N when both come from a window of the run


def names(cells: Sequence[Cell]) -> tuple[str, ...]:
    return tuple(cell.name for cell in cells)


def rounded(values: Sequence[float | None], digits: int = 4) -> list[float]:
    """Evidence as a list of numbers; what is not known is left out."""
    return [float(f"{value:.{digits}g}") for value in values if value is not None]


def truncation(table: Table, limits: Limits) -> Checked:
    """Runs cut at one time limit while requests were in flight.

    Runs at different loads last differently; several that end at the same instant, the longest
    of the table, were stopped. That harms the numbers if unfinished requests were a share worth
    naming; how many there were comes from the offered count, the rate, or the concurrency.
    """
    timed = [cell for cell in table.cells if cell.elapsed_s]
    if table.counts_unfinished:
        return 0, []
    limit_s, members = _common_end(timed)
    cut = [cell for cell in members if _cut_short(cell, members)]
    if not cut:
        return len(timed), []
    shares = [cell.unfinished_share for cell in cut]
    evidence: dict[str, Number] = {
        "time_limit_s": round(limit_s, 2),
        "elapsed_s": rounded([cell.elapsed_s for cell in cut]),
        "completed": [float(cell.samples or 0) for cell in cut],
        "unfinished_share": rounded([share[0] for share in shares if share], 3),
        "output_tokens": [float(cell.tokens) for cell in cut if cell.tokens is not None],
        "output_throughput_tokens_per_s": rounded([cell.output_throughput for cell in cut]),
    }
    message = (
        f"{len(cut)} of {len(table.cells)} cells were cut at {limit_s:.1f} s with requests in "
        f"flight, whatever their load: their throughput and latency describe the cut"
    )
    settle = (
        "Run until every request is done, or measure a steady state that counts tokens when "
        "they are produced and treats requests in flight as censored."
    )
    finding = Finding("truncation", Severity.ERROR, names(cut), message, evidence, settle)
    return len(timed), [finding]


def _common_end(timed: Sequence[Cell]) -> tuple[float, list[Cell]]:
    """The latest end that cells share, and those cells; (0, []) if there is none."""
    configured = [c for c in timed if c.time_limit_s and _elapsed(c) >= 0.98 * c.time_limit_s]
    if configured:
        return max(cell.time_limit_s or 0.0 for cell in configured), configured
    best: tuple[float, list[Cell]] = (0.0, [])
    for anchor in sorted(timed, key=lambda cell: cell.elapsed_slack):
        end_s = _elapsed(anchor)
        if any(_elapsed(c) > end_s * (1 + SAME_END + c.elapsed_slack) for c in timed):
            continue
        members = [
            cell
            for cell in timed
            if abs(_elapsed(cell) - end_s)
            <= end_s * (SAME_END + cell.elapsed_slack + anchor.elapsed_slack)
        ]
        if len(members) >= 2 and len(members) > len(best[1]):
            best = end_s, members
    return best


def _elapsed(cell: Cell) -> float:
    return cell.elapsed_s or 0.0


def _cut_short(cell: Cell, members: Sequence[Cell]) -> bool:
    """Whether more requests were unfinished than chance or a normal end leaves."""
    known = cell.unfinished_share
    if known is None:
        return False
    share, basis = known
    if basis == "offered":
        return share > UNFINISHED_ERROR
    # Two systems under the same arrivals may end together, and so do closed loops of the same
    # number of requests at capacity. Different loads with different counts do not.
    loads, counts = {c.load for c in members}, {c.samples for c in members}
    together = len(loads) >= 2 and len(counts) >= 2 and len(members) >= 3
    if basis == "rate":
        expected = (cell.rate_per_s or 0.0) * _elapsed(cell)
        # What is in flight at the cut: at least X R of the completed requests (Little).
        in_flight = cell.in_flight or 0.0
        least = in_flight / (in_flight + max(cell.samples or 0, 1))
        beyond_chance = share > 2 * UNFINISHED_ERROR + 3 / sqrt(expected)
        return beyond_chance or (together and least > UNFINISHED_ERROR)
    return together and len(loads) >= 3 and share > 2 * UNFINISHED_ERROR


def survivorship(table: Table, limits: Limits) -> Checked:
    """Throughput and latency over completed requests only, while others were left out."""
    if table.counts_unfinished:
        return 0, []
    checked, by_severity = 0, dict[Severity, list[tuple[Cell, int, float]]]()
    for cell in table.cells:
        left_out = _left_out(cell)
        if left_out is None:
            continue
        checked += 1
        missing, share = left_out
        if not missing or (cell.output_throughput is None and cell.latency_s is None):
            continue
        severity = (
            Severity.ERROR
            if share > UNFINISHED_ERROR
            else Severity.WARNING
            if share > UNFINISHED_WARNING
            else Severity.NOTE
        )
        by_severity.setdefault(severity, []).append((cell, missing, share))
    findings = []
    for severity, hit in by_severity.items():
        cells = [cell for cell, _, _ in hit]
        worst, missing, share = max(hit, key=lambda row: row[2])
        evidence = {
            "offered": [float((c.samples or 0) + missing) for c, missing, _ in hit],
            "completed": [float(cell.samples or 0) for cell in cells],
            "left_out_share": rounded([share for _, _, share in hit], 3),
            "tokens_of_completed": [float(c.tokens) for c in cells if c.tokens is not None],
            "throughput_x_elapsed_tokens": rounded(
                [(c.output_throughput or 0.0) * _elapsed(c) for c in cells], 6
            ),
        }
        message = (
            f"throughput and latency count survivors: {worst.name} leaves out {missing} of "
            f"{missing + (worst.samples or 0)} requests ({share:.0%}), so slow or unfinished "
            f"work counts as zero tokens and no latency"
        )
        settle = (
            "Report offered and completed counts; count tokens when produced; estimate latency "
            "with the unfinished requests as censored (Kaplan-Meier)."
        )
        findings.append(Finding("survivorship", severity, names(cells), message, evidence, settle))
    return checked, findings


def _left_out(cell: Cell) -> tuple[int, float] | None:
    """(requests left out, their share of those offered), or None if the cell cannot say."""
    if cell.offered is not None and cell.samples is not None:
        missing = max(0, cell.offered - cell.samples)
        return missing, missing / max(cell.offered, 1)
    numbers = {request.number for request in cell.done} - {None}
    if len(numbers) < FEW_SAMPLES:
        return None
    # Requests are numbered as they come. Gaps among the late ones are the normal end of a run;
    # gaps among the early half are requests that others overtook or that were dropped.
    low, high = min(n for n in numbers if n is not None), max(n for n in numbers if n is not None)
    early = range(low, low + (high - low) // 2 + 1)
    missing = sum(number not in numbers for number in early)
    return missing, missing / len(early)


def littles_law(table: Table, limits: Limits) -> Checked:
    """Mean in flight = throughput x latency, against the concurrency or rate that is claimed."""
    checked, findings = 0, []
    low: list[Cell] = []
    for cell in table.cells:
        in_flight, served = cell.in_flight, cell.served_per_s
        if in_flight is None or served is None:
            continue
        if cell.concurrency is None and cell.rate_per_s is None:
            continue
        checked += 1
        if cell.concurrency is not None:
            slack = STEADY_SLACK if table.counts_unfinished else IN_FLIGHT_SLACK
            if in_flight > cell.concurrency * (1 + slack + cell.elapsed_slack):
                findings.append(_too_many(cell, in_flight))
            elif in_flight < _least_in_flight(cell, slack):
                low.append(cell)
        noise = 4 / sqrt(max(cell.samples or 1, 1))
        if cell.rate_per_s is not None and served > cell.rate_per_s * (1 + max(noise, 0.1)):
            findings.append(_faster_than_offered(cell, served))
    paced = [cell for cell in low if cell.rate_per_s is not None]
    held = [cell for cell in low if cell.rate_per_s is None]
    for cells, severity in ((paced, Severity.NOTE), (held, Severity.ERROR)):
        if cells:
            findings.append(_too_few(cells, severity))
    return checked, findings


def _least_in_flight(cell: Cell, slack: float) -> float:
    """What a closed loop of N must show: the loop runs dry only over the last latency."""
    slots = min(cell.concurrency or 0.0, float(cell.offered or cell.samples or 0))
    longest, elapsed = cell.longest_latency_s, cell.elapsed_s
    if not elapsed or not cell.mean_latency_s:
        return 0.0
    tail = min(1.0, (longest or 3 * cell.mean_latency_s) / elapsed)
    return slots * (1 - tail) * (0.95 - slack)


def _too_many(cell: Cell, in_flight: float) -> Finding:
    return Finding(
        "littles_law",
        Severity.ERROR,
        (cell.name,),
        f"throughput x latency puts {in_flight:.3g} requests in flight, but at most "
        f"{cell.concurrency:g} may be",
        {
            "in_flight": round(in_flight, 3),
            "concurrency": float(cell.concurrency or 0),
            "requests_per_s": float(f"{cell.served_per_s or 0:.4g}"),
            "mean_latency_s": float(f"{cell.mean_latency_s or 0:.4g}"),
        },
        "Recompute throughput and latency from one request log with arrivals and completions.",
    )


def _faster_than_offered(cell: Cell, served: float) -> Finding:
    return Finding(
        "littles_law",
        Severity.ERROR,
        (cell.name,),
        f"{served:.3g} requests/s complete, but only {cell.rate_per_s:g} requests/s arrive",
        {"requests_per_s": served, "rate_per_s": float(cell.rate_per_s or 0)},
        "Recompute the throughput from the request log; check the units of the rate.",
    )


def _too_few(cells: Sequence[Cell], severity: Severity) -> Finding:
    worst = min(cells, key=lambda cell: (cell.in_flight or 0.0) / (cell.concurrency or 1.0))
    why = (
        "the offered rate sets the load, so the label is no concurrency"
        if severity is Severity.NOTE
        else "the other slots were idle or held by requests that the table does not count"
    )
    return Finding(
        "littles_law",
        severity,
        names(cells),
        f"{worst.name}: throughput x latency accounts for {worst.in_flight or 0:.3g} of "
        f"{worst.concurrency:g} requests in flight; {why}",
        {
            "in_flight": rounded([cell.in_flight for cell in cells]),
            "concurrency": rounded([cell.concurrency for cell in cells]),
        },
        "Give the number in flight over time, and every request's arrival and completion.",
    )


def samples(table: Table, limits: Limits) -> Checked:
    """Completed requests behind each cell."""
    counted = [cell for cell in table.cells if cell.samples is not None]
    groups = (
        (Severity.ERROR, 0, 3, "no spread can be estimated, any difference is one sample's noise"),
        (Severity.WARNING, 3, FEW_SAMPLES, "means are too noisy to compare"),
    )
    findings = []
    for severity, low, high, why in groups:
        cells = [cell for cell in counted if low <= (cell.samples or 0) < high]
        if cells:
            evidence = {"completed": [float(cell.samples or 0) for cell in cells]}
            findings.append(
                Finding(
                    "samples",
                    severity,
                    names(cells),
                    f"{len(cells)} cells rest on fewer than {high} completed requests: {why}",
                    evidence,
                    f"At least {PERCENTILE_SAMPLES} completed requests a cell and several seeds.",
                )
            )
    tails = [
        cell
        for cell in counted
        if cell.latency_p99_s is not None
        and (cell.samples or 0) >= FEW_SAMPLES
        and (cell.samples or 0) < PERCENTILE_SAMPLES
    ]
    if tails:
        findings.append(
            Finding(
                "samples",
                Severity.NOTE,
                names(tails),
                f"a 99th percentile of fewer than {PERCENTILE_SAMPLES} requests is their maximum",
                {"completed": [float(cell.samples or 0) for cell in tails]},
                f"At least {PERCENTILE_SAMPLES} completed requests a cell.",
            )
        )
    return len(counted), findings


def overload(table: Table, limits: Limits) -> Checked:
    """Offered load against the capacity that the table itself shows: its best completed rate."""
    offered = [cell for cell in table.cells if cell.rate_per_s and cell.served_per_s]
    beyond: list[tuple[Cell, float]] = []
    for cell in offered:
        capacity = max(
            other.served_per_s or 0.0
            for other in table.cells
            if (other.pair == cell.pair and (other.samples or 0) >= FEW_SAMPLES) or other is cell
        )
        if (cell.rate_per_s or 0.0) > OVERLOAD * capacity:
            beyond.append((cell, capacity))
    findings = []
    for severity in (Severity.ERROR, Severity.NOTE):
        hit = [pair for pair in beyond if _overload_severity(table, pair[0]) is severity]
        if not hit:
            continue
        cells = [cell for cell, _ in hit]
        worst, capacity = max(hit, key=lambda pair: (pair[0].rate_per_s or 0.0) / pair[1])
        then = (
            "so completed counts depend on the length of the run"
            if severity is Severity.ERROR
            else "the queue was worked off in the end, so latency depends on the length of the run"
        )
        findings.append(
            Finding(
                "overload",
                severity,
                names(cells),
                f"{worst.name} is offered {worst.rate_per_s:.3g} requests/s, but no cell completes "
                f"more than {capacity:.3g}: {(worst.rate_per_s or 0) / capacity:.3g} times its "
                f"capacity, {then}",
                {
                    "rate_per_s": rounded([cell.rate_per_s for cell in cells]),
                    "completed_per_s": rounded([cell.served_per_s for cell in cells]),
                    "capacity_per_s": float(f"{capacity:.4g}"),
                },
                "Offer loads up to capacity, or measure saturated throughput in a closed loop.",
            )
        )
    return len(offered), findings


def _overload_severity(table: Table, cell: Cell) -> Severity:
    known = cell.unfinished_share
    if known is None or table.counts_unfinished:
        return Severity.NOTE
    share, basis = known
    bar = UNFINISHED_ERROR
    if basis == "rate":  # random arrivals, and the drain after the last one
        bar = 0.2 + 3 / sqrt((cell.rate_per_s or 0.0) * _elapsed(cell))
    return Severity.ERROR if share > bar else Severity.NOTE
