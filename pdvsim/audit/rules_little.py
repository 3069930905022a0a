"""Little's law: mean in flight = throughput x latency, against what the table claims."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from pdvsim.audit.finding import Finding, Limits, Number, Severity
from pdvsim.audit.rules_load import Checked, names, rounded
from pdvsim.audit.table import Cell, Table

MOST_SLACK = 0.03
LEAST_SLACK = 0.08  # of the slots, lost between two requests by the client
STEADY_SLACK = 0.3  # X R against N when both come from a window of the run
ESTIMATE_SLACK = 0.25  # TTFT + (n - 1) TPOT of means, for a mean of products
LONGEST = 50.0  # times the mean: the longest latency allowed for where nothing bounds it


def littles_law(table: Table, limits: Limits) -> Checked:
    """Mean in flight = throughput x latency, against the concurrency or rate that is claimed.

    Without a latency, TTFT alone is the least that it can be. A number in flight that the file
    states itself counts as well.
    """
    checked, findings = 0, []
    low: list[Cell] = []
    for cell in table.cells:
        if cell.concurrency is None and cell.rate_per_s is None:
            continue
        served = cell.served_per_s
        known = _in_flight(cell)
        if known is None and (served is None or cell.rate_per_s is None):
            continue
        checked += 1
        if known is not None and cell.concurrency is not None:
            slack = STEADY_SLACK if table.counts_unfinished else MOST_SLACK
            if known[0] > cell.concurrency * (1 + slack + cell.elapsed_slack):
                findings.append(_too_many(cell, *known))
            elif _estimated(cell) > cell.concurrency * (1 + ESTIMATE_SLACK):
                findings.append(_probably_too_many(cell))
            elif _runs_dry(cell, table.windowed):
                low.append(cell)
        noise = 4 / sqrt(max(cell.samples or 1, 1))
        if served and cell.rate_per_s and served > cell.rate_per_s * (1 + max(noise, 0.1)):
            findings.append(_faster_than_offered(cell, served))
    for reason in dict.fromkeys(_reason(cell) for cell in low):
        cells = [cell for cell in low if _reason(cell) == reason]
        findings.append(_too_few(cells, *reason))
    return checked, findings


def _in_flight(cell: Cell) -> tuple[float, str] | None:
    """(least mean number in flight that the cell's numbers prove, what it was computed from)."""
    if cell.in_flight is not None:
        return cell.in_flight, "throughput x latency"
    if cell.in_flight_stated is not None:
        return cell.in_flight_stated, "the file's own count"
    if cell.ttft_s is not None and cell.served_per_s is not None:
        return cell.ttft_s * cell.served_per_s, "throughput x TTFT alone"
    return None


def _estimated(cell: Cell) -> float:
    """Mean in flight by TTFT + (n - 1) TPOT, where no latency is stated; else 0.

    The mean of n times TPOT over requests is not the product of the means: an estimate.
    """
    latency = _latency_of_parts(cell)
    if cell.in_flight is not None or latency is None or cell.served_per_s is None:
        return 0.0
    return latency * cell.served_per_s


def _latency_of_parts(cell: Cell) -> float | None:
    if cell.ttft_s is None or cell.tpot_s is None or not cell.tokens or not cell.samples:
        return None
    return cell.ttft_s + max(cell.tokens / cell.samples - 1, 0.0) * cell.tpot_s


def _runs_dry(cell: Cell, windowed: bool) -> bool:
    """Whether so few are in flight that the N slots of a closed loop can't all have been in use
    until the last request was started.

    They are in use until then; afterwards at least one is. With n R requests x seconds of N T
    slot-seconds, the rest of the run after that start is at least (N T - n R) / (N - 1) long, and
    the last request to end was running through all of it: some latency is as long. The longest
    latency is stated, or at most mean + std sqrt(n - 1) (Samuelson 1968); where nothing bounds
    it, it is taken to be at most `LONGEST` means, and the finding is a warning.
    """
    in_flight, elapsed, mean = cell.in_flight, cell.elapsed_s, cell.mean_latency_s
    slots = min(cell.concurrency or 0.0, float(cell.offered or cell.samples or 0))
    if in_flight is None or not elapsed or not mean:
        return False
    if windowed:  # the loop runs on after the window
        return in_flight < slots * (1 - STEADY_SLACK)
    needed = (slots * (1 - LEAST_SLACK) - in_flight) * elapsed / max(slots - 1, 1)
    return needed > _longest_s(cell, mean)


def _bound_s(cell: Cell) -> float | None:
    """The longest latency as stated, or as mean and standard deviation allow."""
    mean, spread, count = cell.mean_latency_s, cell.latency.std, cell.samples
    if cell.longest_latency_s is not None or mean is None or spread is None or not count:
        return cell.longest_latency_s
    return mean + spread * sqrt(count - 1)


def _longest_s(cell: Cell, mean: float) -> float:
    bound = _bound_s(cell)
    return max(
        LONGEST * mean if bound is None else bound,
        *(value for _, value in cell.latency.percentiles),
        0.0,
    )


def _reason(cell: Cell) -> tuple[Severity, str]:
    """How much it weighs that too few are in flight, and what may explain it."""
    if cell.sessions is not None:
        why = f"{cell.sessions}, so the concurrency counts sessions, not requests in flight"
        return Severity.NOTE, why
    if cell.rate_per_s is not None:
        why = "the offered rate sets the load, so the label is no concurrency"
        return Severity.NOTE, why
    why = "the other slots were idle or held by requests that the table does not count"
    if _bound_s(cell) is None:
        why += f", unless one request took more than {LONGEST:g} times the mean latency"
        return Severity.WARNING, why
    return Severity.ERROR, why


def _numbers(cell: Cell, in_flight: float) -> dict[str, Number]:
    evidence: dict[str, Number] = {
        "in_flight": round(in_flight, 3),
        "concurrency": float(cell.concurrency or 0),
    }
    others = (
        ("requests_per_s", cell.served_per_s),
        ("mean_latency_s", cell.mean_latency_s),
        ("mean_ttft_s", cell.ttft_s),
        ("mean_tpot_s", cell.tpot_s),
        ("in_flight_stated", cell.in_flight_stated),
    )
    return evidence | {name: float(f"{v:.4g}") for name, v in others if v is not None}


def _too_many(cell: Cell, in_flight: float, by: str) -> Finding:
    stated, parts = cell.in_flight_stated, _estimated(cell)
    more = f" (with TPOT: {parts:.3g})" if parts else ""
    if stated is not None and not by.startswith("the file"):
        more += f" (the file itself states {stated:.4g})"
    return Finding(
        "littles_law",
        Severity.ERROR,
        (cell.name,),
        f"{by} puts {in_flight:.3g} requests in flight{more}, but at most {cell.concurrency:g} "
        f"may be",
        _numbers(cell, in_flight),
        "Recompute throughput and latency from one request log with arrivals and completions.",
    )


def _probably_too_many(cell: Cell) -> Finding:
    return Finding(
        "littles_law",
        Severity.WARNING,
        (cell.name,),
        f"throughput x (TTFT + TPOT for each further token) puts about {_estimated(cell):.3g} "
        f"requests in flight, but at most {cell.concurrency:g} may be",
        _numbers(cell, _estimated(cell)),
        "Give the mean end-to-end latency (vLLM: --percentile-metrics ttft,tpot,itl,e2el).",
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


def _too_few(cells: Sequence[Cell], severity: Severity, why: str) -> Finding:
    worst = min(cells, key=lambda cell: (cell.in_flight or 0.0) / (cell.concurrency or 1.0))
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
