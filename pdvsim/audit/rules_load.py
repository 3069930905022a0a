"""Rules about time and counts: who was counted, for how long, at what load."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from pdvsim.audit.finding import Finding, Limits, Number, Severity
from pdvsim.audit.table import Cell, Table
from pdvsim.models import Pair

Checked = tuple[int, list[Finding]]

SAME_END = 0.004  # relative; runs of different loads do not end this close together by chance
CAP_FULL = 0.7  # of a cap in use on average: requests waited for it
UNFINISHED_ERROR = 0.05
UNFINISHED_WARNING = 0.01
QUEUED = 0.25  # TTFT against the time after the last arrival; half of it in a growing queue
MOST_ANCHORS = 32  # cells tried as the common end; more would say no more
FEW_SAMPLES = 10
PERCENTILE_SAMPLES = 100
OVERLOAD = 1.1
BACKLOG = 1.3  # unfinished requests against X R; a queue that grows makes it twice the overload


def names(cells: Sequence[Cell]) -> tuple[str, ...]:
    return tuple(cell.name for cell in cells)


def rounded(values: Sequence[float | None], digits: int = 4) -> list[float]:
    """Evidence as a list of numbers; what is not known is left out."""
    return [float(f"{value:.{digits}g}") for value in values if value is not None]


def truncation(table: Table, limits: Limits) -> Checked:
    """Runs cut at a time limit while requests were in flight.

    Runs at different loads last differently; several that end at the same instant, the longest
    of the table, were stopped. That harms the numbers if unfinished requests were a share worth
    naming; how many there were comes from the offered count, the rate, or the concurrency.
    """
    if table.counts_unfinished:
        return 0, []
    timed = [cell for cell in table.cells if cell.elapsed_s]
    findings = [_stated_cut(cell) for cell in timed if cell.cut]
    limit_s, members = _common_end([cell for cell in timed if not cell.cut])
    # Two systems under the same arrivals may end together, and so do closed loops of the same
    # number of requests at capacity. Different loads with different counts do not.
    loads, counts = len({c.load for c in members}), len({c.samples for c in members})
    together = loads >= 2 and counts >= 2 and len(members) >= 3
    cut = [cell for cell in members if _cut_short(cell, together, loads)]
    if cut:
        findings.append(_common_cut(table, cut, limit_s))
    return len(timed), findings


def _stated_cut(cell: Cell) -> Finding:
    """A cell whose file says that it cut its requests."""
    share = (cell.unfinished_share or (0.0, ""))[0]
    evidence: dict[str, Number] = {
        "time_limit_s": float(cell.time_limit_s or 0),
        "elapsed_s": float(f"{_elapsed(cell):.4g}"),
        "completed": float(cell.samples or 0),
        "offered": float(cell.offered or 0),
        "unfinished_share": float(f"{share:.3g}"),
    }
    message = (
        f"{cell.name}: {cell.cut} ({cell.samples} of {cell.offered} were counted); throughput is "
        f"over {_elapsed(cell):.4g} s"
    )
    if cell.completed_span_s is not None:
        evidence["completed_span_s"] = cell.completed_span_s
        message += f", the stated duration of {cell.completed_span_s:.4g} s over completed ones"
    return Finding(
        "truncation",
        Severity.ERROR if share > UNFINISHED_ERROR else Severity.WARNING,
        (cell.name,),
        message,
        evidence,
        "Give the phase a grace period in which what was sent may finish, or run longer.",
    )


def _common_cut(table: Table, cut: Sequence[Cell], limit_s: float) -> Finding:
    """Cells that ended together, whatever their load."""
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
    return Finding("truncation", Severity.ERROR, names(cut), message, evidence, settle)


def _common_end(timed: Sequence[Cell]) -> tuple[float, list[Cell]]:
    """The latest end that cells share, and those cells; (0, []) if there is none."""
    configured = [c for c in timed if c.time_limit_s and _elapsed(c) >= 0.98 * c.time_limit_s]
    if configured:
        return max(cell.time_limit_s or 0.0 for cell in configured), configured
    # No cell may outlast the common end, so it lies where the longest cell allows it.
    least_s = max(
        (_elapsed(cell) / (1 + SAME_END + cell.elapsed_slack) for cell in timed), default=0.0
    )
    anchors = [cell for cell in timed if _elapsed(cell) >= least_s]
    best: tuple[float, list[Cell]] = (0.0, [])
    for anchor in sorted(anchors, key=lambda cell: cell.elapsed_slack)[:MOST_ANCHORS]:
        end_s = _elapsed(anchor)
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


def _cut_short(cell: Cell, together: bool, loads: int) -> bool:
    """Whether more requests were unfinished than chance or a normal end leaves.

    Args:
        together: cells of different loads and counts ended with this one.
        loads: how many loads did.
    """
    known = cell.unfinished_share
    if known is None:
        return False
    share, basis = known
    if basis == "offered":
        return share > UNFINISHED_ERROR
    if basis == "rate":
        expected = (cell.rate_per_s or 0.0) * _elapsed(cell)
        # What is in flight at the cut: at least X R of the completed requests (Little).
        in_flight = cell.in_flight or 0.0
        least = in_flight / (in_flight + max(cell.samples or 0, 1))
        beyond_chance = share > 2 * UNFINISHED_ERROR + 3 / sqrt(expected)
        return beyond_chance or (together and least > UNFINISHED_ERROR)
    return together and loads >= 3 and share > 2 * UNFINISHED_ERROR


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
    """Offered load against the capacity that the table itself shows: its best completed rate.

    A run that ends on time completes less than it was offered by what is in flight at the end;
    that alone is no overload. What waits for a client's cap is looked at by `client_queue`.
    """
    offered = [cell for cell in table.cells if cell.rate_per_s and cell.served_per_s]
    best: dict[Pair | None, float] = {}
    for cell in table.cells:
        if (cell.samples or 0) >= FEW_SAMPLES:
            best[cell.pair] = max(best.get(cell.pair, 0.0), cell.served_per_s or 0.0)
    beyond: list[tuple[Cell, float]] = []
    for cell in offered:
        capacity = max(best.get(cell.pair, 0.0), cell.served_per_s or 0.0)
        over = (cell.rate_per_s or 0.0) > OVERLOAD * capacity
        if over and _queue_grows(cell) and not waits_for_cap(cell):
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


def _queue_grows(cell: Cell) -> bool:
    """Whether more was unfinished, or more time passed after the last arrival, than the latency
    of the completed requests explains.

    A queue that grows until the last of n arrivals keeps them waiting for half of what it takes
    to work it off, on average, and so does their first token.
    """
    in_flight, latency_s = cell.in_flight, cell.mean_latency_s
    if cell.offered is None or cell.samples is None:
        return True
    unfinished = cell.offered - cell.samples
    after_s = _elapsed(cell) - cell.offered / (cell.rate_per_s or 1.0)  # the last arrival
    if unfinished > 0:
        if in_flight is None or latency_s is None:
            return True
        return unfinished > BACKLOG * in_flight + sqrt(in_flight) or after_s > latency_s
    if cell.ttft_s is not None and cell.ttft_s < QUEUED * after_s:
        return False
    return latency_s is None or after_s > BACKLOG * latency_s


def waits_for_cap(cell: Cell) -> bool:
    """Whether requests waited for the client's cap, outside of the latency that is stated."""
    if not cell.client_cap or cell.concurrency is None or cell.in_flight is None:
        return False
    return cell.in_flight > CAP_FULL * cell.concurrency


def client_queue(table: Table, limits: Limits) -> Checked:
    """Requests that came at a rate but were held back by the client's own cap on those in flight.

    Latency starts when the client sends a request, so the wait for the cap is not in it. With
    arrivals at r/s and completions at X < r, request i of n waits i (1/X - 1/r): the mean from
    its due time is R + (n - 1)/2 (1/X - 1/r).
    """
    capped = [
        cell
        for cell in table.cells
        if cell.client_cap and cell.concurrency and cell.rate_per_s and cell.served_per_s
    ]
    findings = []
    for cell in capped:
        rate, served = cell.rate_per_s or 1.0, cell.served_per_s or 1.0
        if not waits_for_cap(cell) or rate < OVERLOAD * served:
            continue
        stated = cell.mean_latency_s or 0.0
        count = cell.offered or cell.samples or 1
        due = stated + (count - 1) / 2 * (1 / served - 1 / rate)
        findings.append(
            Finding(
                "client_queue",
                Severity.WARNING,
                (cell.name,),
                f"{cell.name}: the stated latency ({stated:.3g} s) leaves out the wait at the "
                f"client's cap of {cell.concurrency:g}: {count} requests due at {rate:.3g}/s were "
                f"served at {served:.3g}/s, {due:.3g} s on average from when they were due",
                {
                    "stated_latency_s": float(f"{stated:.4g}"),
                    "latency_from_schedule_s": float(f"{due:.4g}"),
                    "rate_per_s": rate,
                    "completed_per_s": float(f"{served:.4g}"),
                },
                "Time requests from their arrival in the schedule, or offer a rate below capacity.",
            )
        )
    return len(capped), findings


def _overload_severity(table: Table, cell: Cell) -> Severity:
    known = cell.unfinished_share
    if known is None or table.counts_unfinished:
        return Severity.NOTE
    share, basis = known
    bar = UNFINISHED_ERROR
    if basis == "rate":  # random arrivals, and the drain after the last one
        bar = 0.2 + 3 / sqrt((cell.rate_per_s or 0.0) * _elapsed(cell))
    return Severity.ERROR if share > bar else Severity.NOTE
