"""Honest runs of any shape are not accused, and a wrong concurrency is.

Closed loops and open loops are run here by a few lines that share nothing with the simulator; what
a benchmark would state of them is audited.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pdvsim.audit import Cell, Distribution, Report, Severity, Table, audit

Latencies = NDArray[np.float64]
STATED = (
    ("mean",),
    ("mean", "std"),
    ("mean", "std", "percentiles"),
    ("mean", "std", "percentiles", "most"),
)


def latencies(seed: int, count: int, sigma: float) -> Latencies:
    """Log-normal, of median 4 s."""
    return 4.0 * np.exp(np.random.default_rng(seed).normal(0.0, sigma, count))


def closed_loop_s(slots: int, needed: Latencies) -> float:
    """Seconds that `slots` clients take, each with its next request as soon as one is done."""
    free = [0.0] * slots
    for latency in needed:
        heapq.heappush(free, heapq.heappop(free) + latency)
    return max(free)


def judged(needed: Latencies, elapsed_s: float, what: tuple[str, ...], **claims: Any) -> Report:
    """The audit of what is stated of a run; `what` says which statistics of its latency."""
    every = Distribution(
        "E2E latency",
        float(needed.mean()),
        float(needed.std()),
        float(needed.min()),
        float(needed.max()),
        tuple((p, float(np.percentile(needed, p))) for p in (50, 99)),
    )
    known = {name: getattr(every, name) for name in what}
    cell = Cell(
        "run",
        load=1,
        offered=len(needed),
        completed=len(needed),
        duration_s=elapsed_s,
        request_throughput=len(needed) / elapsed_s,
        latency_s=every.mean,
        distributions=(Distribution("E2E latency", **known),),
        **claims,
    )
    return audit(Table("made up", "csv", (cell,)))


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    slots=st.sampled_from([1, 2, 8, 64, 256]),
    turns=st.sampled_from([1, 1.5, 3, 10]),
    sigma=st.sampled_from([0.0, 0.3, 0.8, 1.5]),
    what=st.sampled_from(STATED),
)
def test_a_loop_kept_full_is_never_an_error(
    seed: int, slots: int, turns: float, sigma: float, what: tuple[str, ...]
) -> None:
    needed = latencies(seed, max(10, int(slots * turns)), sigma)
    report = judged(needed, closed_loop_s(slots, needed), what, concurrency=float(slots))
    assert [f.message for f in report.findings if f.severity is Severity.ERROR] == []


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rate=st.sampled_from([0.5, 2.0, 20.0]),
    count=st.sampled_from([30, 200, 1000]),
    sigma=st.sampled_from([0.0, 0.8, 1.5]),
    what=st.sampled_from(STATED),
)
def test_arrivals_that_are_served_at_once_are_never_an_error(
    seed: int, rate: float, count: int, sigma: float, what: tuple[str, ...]
) -> None:
    needed = latencies(seed, count, sigma)
    gaps = np.random.default_rng(seed + 1).exponential(1 / rate, count)
    elapsed_s = float((np.cumsum(gaps) + needed).max())
    report = judged(needed, elapsed_s, what, rate_per_s=rate, ttft_s=0.05)
    assert [f.message for f in report.findings if f.severity is Severity.ERROR] == []


@pytest.mark.parametrize("what", STATED[1:])
@pytest.mark.parametrize(("claimed", "says"), [(4, "at most 4 may be"), (32, "of 32 requests")])
def test_another_concurrency_than_there_was_is_an_error(
    what: tuple[str, ...], claimed: int, says: str
) -> None:
    """The loop had 8 slots; of 32, a quarter was in use."""
    needed = latencies(3, 800, 0.3)
    report = judged(needed, closed_loop_s(8, needed), what, concurrency=float(claimed))
    (finding,) = [f for f in report.findings if f.severity is Severity.ERROR]
    assert finding.rule == "littles_law" and says in finding.message
