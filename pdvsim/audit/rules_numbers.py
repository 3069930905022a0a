"""Rules about single numbers: what no measurement can be, whatever the rest of the table says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from math import inf, isfinite, sqrt

from pdvsim.audit.finding import Finding, Limits, Severity
from pdvsim.audit.rules_load import Checked, names
from pdvsim.audit.table import Cell, Distribution, Served, Table

AGREE = 0.01  # relative; rounding of printed numbers
THEOREM_SLACK = 0.1  # interpolated percentiles and both kinds of standard deviation
FEWEST = 10  # requests below which interpolation moves percentiles more than the slack
SHOWN = 10

# Of every number of a cell: (what it is, least, most). Acceptance has a rule of its own.
_BOUNDS: dict[str, tuple[str, float, float]] = {
    "load": ("load", -inf, inf),
    "concurrency": ("concurrency", 0.0, inf),
    "in_flight_stated": ("requests in flight", 0.0, inf),
    "rate_per_s": ("offered rate", 0.0, inf),
    "duration_s": ("duration", 0.0, inf),
    "time_limit_s": ("time limit", 0.0, inf),
    "completed_span_s": ("duration", 0.0, inf),
    "offered": ("requests offered", 0, inf),
    "completed": ("requests completed", 0, inf),
    "failed": ("requests failed", 0, inf),
    "output_tokens": ("output tokens", 0, inf),
    "output_throughput": ("output throughput", 0.0, inf),
    "request_throughput": ("request throughput", 0.0, inf),
    "request_goodput": ("goodput", 0.0, inf),
    "latency_s": ("mean E2E latency", 0.0, inf),
    "latency_std_s": ("standard deviation of E2E latency", 0.0, inf),
    "latency_p50_s": ("median E2E latency", 0.0, inf),
    "latency_p99_s": ("p99 E2E latency", 0.0, inf),
    "ttft_s": ("mean TTFT", 0.0, inf),
    "tpot_s": ("mean TPOT", 0.0, inf),
    "gap_s": ("mean ITL", 0.0, inf),
    "accepted_length": ("tokens a round", 0.0, inf),
    "draft_tokens": ("draft tokens", 0.0, inf),
    "tokens_per_request": ("tokens of a request", 0.0, inf),
    "memory_mib": ("GPU memory", 0.0, inf),
    "utilization": ("GPU utilisation", 0.0, 1.0 + 1e-9),
}


_TIMES = ("latency", "TTFT", "TPOT", "ITL", "duration", "time")


def impossible(table: Table, limits: Limits) -> Checked:
    """Numbers that nothing can measure: negative, infinite, none at all (NaN), or a share above
    the whole."""
    wrong: dict[str, list[tuple[Cell, float]]] = {}
    for cell in table.cells:
        for what, value in _wrong(cell):
            wrong.setdefault(what, []).append((cell, value))
    findings = []
    for what, found in wrong.items():
        worst, value = found[0]
        more = f" (and {len(found) - 1} more such numbers)" if len(found) > 1 else ""
        unit = " s" if any(word in what for word in _TIMES) else ""
        findings.append(
            Finding(
                "impossible",
                Severity.ERROR,
                tuple(dict.fromkeys(names([cell for cell, _ in found]))),
                f"{worst.name}: {what} of {value:g}{unit}, which nothing can measure{more}",
                {what: [f"{value:g}" for _, value in found[:SHOWN]]},
                "The log that the number was computed from; check clocks, units and divisions.",
            )
        )
    return len(table.cells), findings


def _wrong(cell: Cell) -> Iterator[tuple[str, float]]:
    """(what, value) of every impossible number of a cell, those of its requests included."""
    seen = set()
    for name, (what, low, high) in _BOUNDS.items():
        value = getattr(cell, name)
        if value is not None and not _possible(value, low, high):
            seen.add((what, value))
            yield what, value
    if cell.acceptance_rate is not None and not isfinite(cell.acceptance_rate):
        yield "acceptance rate", cell.acceptance_rate
    for one in cell.distributions:
        for name, value in one.numbers:
            what = f"{name} {one.of}".replace("p50", "median")
            what = what.replace("standard deviation ", "standard deviation of ")
            if not _possible(value, 0.0, inf) and (what, value) not in seen:
                yield what, value
    for request in cell.requests:
        for what, number in _of_request(request):
            if not _possible(number, 0.0, inf):
                yield what, number


def _of_request(request: Served) -> Iterator[tuple[str, float]]:
    if request.latency_s is not None:
        yield "latency of a request", request.latency_s
    for timing in request.timings:
        yield "time of a request", timing
    for what, count in (
        ("output tokens of a request", request.output_tokens),
        ("drafted tokens of a request", request.drafted),
        ("accepted tokens of a request", request.accepted),
    ):
        if count is not None:
            yield what, count


def _possible(value: float, low: float, high: float) -> bool:
    return isfinite(value) and low <= value <= high


def possible(table: Table) -> Table:
    """The table without its impossible numbers, for all other rules."""
    return replace(table, cells=tuple(map(_possible_cell, table.cells)))


def _possible_cell(cell: Cell) -> Cell:
    if next(_wrong(cell), None) is None:
        return cell
    changes: dict[str, object] = {
        name: None
        for name, (_, low, high) in _BOUNDS.items()
        if (value := getattr(cell, name)) is not None and not _possible(value, low, high)
    }
    if cell.acceptance_rate is not None and not isfinite(cell.acceptance_rate):
        changes["acceptance_rate"] = None
    changes["distributions"] = tuple(
        one
        for one in cell.distributions
        if all(_possible(value, 0.0, inf) for _, value in one.numbers)
    )
    changes["requests"] = tuple(
        request
        for request in cell.requests
        if all(_possible(number, 0.0, inf) for _, number in _of_request(request))
    )
    return replace(cell, **changes)  # type: ignore[arg-type]


def statistics(table: Table, limits: Limits) -> Checked:
    """Mean, spread and percentiles of one quantity against each other.

    Percentiles rise; all lie between minimum and maximum, and so does the mean. What is never
    negative has a mean of at least (1 - q) x its q quantile (Markov). A quantile is at most
    std sqrt(q / (1 - q)) above the mean and std sqrt((1 - q) / q) below it (Cantelli).
    """
    checked, findings = 0, []
    for cell in table.cells:
        stated = [one for one in cell.distributions if len(one.numbers) > 1]
        if all(one.of != cell.latency.of for one in stated) and len(cell.latency.numbers) > 1:
            stated.append(cell.latency)
        checked += bool(stated)
        for one in stated:
            problems = _contradictions(one, cell.samples)
            if problems:
                findings.append(
                    Finding(
                        "statistics",
                        Severity.ERROR,
                        (cell.name,),
                        f"{cell.name}: {one.of}: {'; '.join(problems)}",
                        {f"{name}_s": float(f"{value:.6g}") for name, value in one.numbers},
                        "The values of all requests, sorted.",
                    )
                )
    return checked, findings


def _contradictions(one: Distribution, count: int | None) -> list[str]:
    problems = []
    known = [(f"p{percent:g}", value) for percent, value in one.percentiles]
    if one.least is not None:
        known.insert(0, ("the minimum", one.least))
    if one.most is not None:
        known.append(("the maximum", one.most))
    for (low, small), (high, large) in pairwise(known):
        if small > large * (1 + AGREE):
            problems.append(f"{low} ({small:.4g} s) is above {high} ({large:.4g} s)")
    mean, std = one.mean, one.std
    if mean is None:
        return problems
    if one.least is not None and mean < one.least * (1 - AGREE):
        problems.append(f"the mean ({mean:.4g} s) is below the minimum ({one.least:.4g} s)")
    if one.most is not None and mean > one.most * (1 + AGREE):
        problems.append(f"the mean ({mean:.4g} s) is above the maximum ({one.most:.4g} s)")
    if count is not None and count < FEWEST:
        return problems
    for percent, value in one.percentiles:
        q = percent / 100
        if mean * (1 + THEOREM_SLACK) < (1 - q) * value:
            problems.append(
                f"{1 - q:.2g} of the values lie at or above p{percent:g} ({value:.4g} s), so the "
                f"mean can't be {mean:.4g} s"
            )
        elif std is not None:
            above, below = std * sqrt(q / (1 - q)), std * sqrt((1 - q) / q)
            room = AGREE * mean
            slack = 1 + THEOREM_SLACK
            if not -below * slack - room <= value - mean <= above * slack + room:
                problems.append(
                    f"p{percent:g} ({value:.4g} s) is further from the mean ({mean:.4g} s) than a "
                    f"standard deviation of {std:.4g} s allows"
                )
    return problems
