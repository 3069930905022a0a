"""Open loops: whether the system keeps up with what arrives, and runs long enough for their tail.

A system that is slower than its arrivals has no latency: the longer the run, the longer the wait.
And one that just keeps up has a tail that a short run ends before: it takes many requests until
the queue has been as long as it gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, log, sqrt

import numpy as np
from numpy.typing import NDArray

from pdvsim.cell import Cell
from pdvsim.errors import InputError
from pdvsim.machine import Calibration, Replication
from pdvsim.pool import run_all
from pdvsim.protocols import protocols
from pdvsim.records import RunRecord

BLOCKS = 10
T_OVERLOAD = 2.82  # Student's t with 9 degrees of freedom, one side, 1 in 100
FIRST_REQUESTS, MOST_REQUESTS = 1_000, 4_000
TAIL = 0.99
WITHIN = 0.2


@dataclass(frozen=True, slots=True)
class Drift:
    """How the queue of a run went on.

    Attributes:
        growth_per_s: requests that arrived less those that completed, per second.
        served_per_s: requests that completed per second in the later half of the arrivals; the
            capacity of a system that is overloaded.
        overloaded: whether the growth is certain.
    """

    growth_per_s: float
    served_per_s: float
    overloaded: bool


def drift(record: RunRecord) -> Drift | None:
    """How the queue went on while requests arrived, from the first tenth of them on.

    Requests in the system are counted at the ends of ten equal spans. Under an overload what they
    gain in each is about alike, and independent; of a queue that only swings, gains and losses
    follow each other, so that their mean is surer than the test believes, which errs to its side.
    The test is Student's, at 1 in 100; the deviation is taken to be at least that of Poisson
    arrivals. (Of single servers at 95 % of their capacity, 1 run in 1,600 was called overloaded; at
    110 %, 99 % of runs of 4,000 requests with services alike, 85 % with exponential ones.) A system
    that is still filling up grows, too: it is overloaded only with more requests than it serves at
    once.

    Returns:
        None for a run too short to say anything.
    """
    arrivals = np.array([request.arrival_s for request in record.requests])
    if len(arrivals) < 5 * BLOCKS:
        return None
    begin, end = float(arrivals[len(arrivals) // 10]), float(arrivals[-1])
    edges = np.linspace(begin, end, BLOCKS + 1)
    done = _count(_sorted([request.completed_s for request in record.requests]), edges)
    inside = _count(arrivals, edges) - done
    gains = np.diff(inside)
    noise = max(float(gains.std(ddof=1)), sqrt(len(arrivals) * 0.9 / BLOCKS))
    served = done[BLOCKS] - done[BLOCKS // 2]
    certain = gains.mean() > T_OVERLOAD * noise / sqrt(BLOCKS)
    span_s = (end - begin) / BLOCKS
    return Drift(
        growth_per_s=float(gains.mean()) / span_s,
        served_per_s=float(served) / (span_s * (BLOCKS - BLOCKS // 2)),
        overloaded=bool(certain and inside[BLOCKS] > record.config.batch_cap),
    )


def _sorted(times: list[float | None]) -> NDArray[np.float64]:
    return np.sort([time for time in times if time is not None])


def _count(times: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many of the ascending `times` lie at or before each edge."""
    return np.searchsorted(times, edges, side="right").astype(np.float64)


def excursions(values: NDArray[np.float64], share: float = TAIL) -> int:
    """How many times a run has been beyond its own quantile, and back below half of its share.

    Neighbouring requests wait alike: what a run tells of its tail goes by how many separate queues
    were that long, not by how many requests stood in them.

    Args:
        values: in order of time.
    """
    if not len(values):
        return 0
    quantile, back = np.quantile(values, [share, share / 2.0], method="inverted_cdf")
    where = (values > quantile).astype(np.int8) - (values <= back)
    turns = where[where != 0]
    rises = np.count_nonzero((turns[1:] > 0) & (turns[:-1] < 0))
    return int(rises) + bool(len(turns) and turns[0] > 0)


def enough(share: float, within: float) -> int:
    """Excursions that tell a quantile within such a share of it, 95 times in 100.

    Their number scatters by its square root, and as much again by how long each is (variance 2);
    of an exponential tail the quantile follows the share beyond it with its logarithm.
    """
    return ceil(2.0 * (1.96 / (within * log(1.0 / (1.0 - share)))) ** 2)


@dataclass(frozen=True, slots=True)
class Wanted:
    """How long a run is to be.

    Attributes:
        within: how far the p99 of TTFT and E2E latency of a run may be from that of a run without
            end, as a share of it (`enough`).
        most_requests: of a run, reached or not.
        share: another quantile than the 99th percentile.
    """

    within: float = WITHIN
    most_requests: int = MOST_REQUESTS
    share: float = TAIL

    def __post_init__(self) -> None:
        if not 0.0 < self.within <= 10.0:
            raise InputError(f"--tail-within is {self.within:g}; it must be above 0, up to 10")
        if not 1 <= self.most_requests <= 1_000_000:
            raise InputError(
                f"--most-requests is {self.most_requests}; it must be between 1 and 1000000"
            )


@dataclass(frozen=True, slots=True)
class Length:
    """A cell whose runs are as long as they have to be.

    Attributes:
        settled: whether its p99 is known as well as was wanted; also where it has none, since the
            system is overloaded.
        overloaded: whether the first replication is.
    """

    cell: Cell
    settled: bool = True
    overloaded: bool = False


def is_open(cell: Cell) -> bool:
    """Whether the length of a run of `cell` is left open: steady arrivals, of no stated number."""
    return protocols()[cell.protocol].steady and cell.requests is None


def lengthened(
    cells: Sequence[Cell],
    calibration: Calibration,
    wanted: Wanted,
    workers: int | None = 1,
    on_run: Callable[[int, int], None] | None = None,
) -> list[Length]:
    """`long_enough` of each cell."""
    if not any(map(is_open, cells)):
        return [Length(cell) for cell in cells]
    return run_all(long_enough, [(cell, calibration, wanted) for cell in cells], workers, on_run)


def long_enough(task: tuple[Cell, Calibration, Wanted]) -> Length:
    """`cell` with as many requests as its tail needs, found on its first replication, whose run is
    doubled until it does, or until it is certain that the system is overloaded."""
    cell, calibration, wanted = task
    if not is_open(cell):
        return Length(cell)
    count = min(max(FIRST_REQUESTS, 8 * cell.concurrency), wanted.most_requests)
    while True:
        tried = replace(cell, requests=count)
        record = Replication(tried, calibration, 0).run()
        found = drift(record)
        if found is not None and found.overloaded:
            # Four times as long, the test is twice as sure, also on a slightly faster machine.
            longer = min(4 * count, wanted.most_requests)
            return Length(replace(cell, requests=longer), overloaded=True)
        if _settled(record, wanted):
            return Length(tried)
        if count == wanted.most_requests:
            return Length(tried, settled=False)
        count = min(2 * count, wanted.most_requests)


def _settled(record: RunRecord, wanted: Wanted) -> bool:
    """Whether the run tells the quantile of TTFT and E2E latency so well."""
    measured = record.requests[record.workload.warmup :]
    for ends in ("first_token_s", "completed_s"):
        seconds = [getattr(r, ends) - r.arrival_s for r in measured if r.completed_s is not None]
        if excursions(np.array(seconds), wanted.share) < enough(wanted.share, wanted.within):
            return False
    return True
