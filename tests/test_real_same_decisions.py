"""Both worlds run the same lane programs: under the same stage times they decide the same.

The real world adds scheduling noise of a millisecond here and there. A case is held against it
only if the simulated world itself decides the same under such noise; a case that fails runs
again with slower stages, so that a loaded machine is not taken for a defect.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pdvsim.architectures import ARCHITECTURES, Config
from pdvsim.cell import AUTO
from pdvsim.core import EXECUTORS, Executor, Stage
from pdvsim.des import HostCosts, simulate
from pdvsim.kv_cache import KvCache
from pdvsim.records import RunRecord
from pdvsim.work import Work
from pdvsim.workload import Workload
from realengine.world import run
from tests.engines import ScriptedEngine
from tests.fakes import TableCosts, config_of

SCALES = (1.0, 3.0, 8.0)
NOISE_S = 2e-3
NOISY_RUNS = 6

Decisions = dict[str, list[tuple[str, tuple[int, ...]]]]


class NoisyCosts:
    """Scripted costs, each launch late by up to NOISE_S."""

    def __init__(self, costs: TableCosts, seed: int) -> None:
        self._costs = costs
        self._rng = np.random.default_rng(seed)

    def cost(self, stage: Stage, work: Work) -> tuple[float, float]:
        host_s, device_s = self._costs.cost(stage, work)
        return host_s, device_s + self._rng.uniform(0.0, NOISE_S)


def decisions(record: RunRecord) -> Decisions:
    """What each lane ran, in its order."""
    ends = np.cumsum(record.column("batch")).astype(int)
    members = np.split(record.member_ids, ends)[:-1]
    stages = list(Stage)
    by_lane: Decisions = {lane: [] for lane in record.lanes}
    for row, ids in zip(record.stage_rows, members, strict=True):
        by_lane[record.lanes[int(row[1])]].append((stages[int(row[0])], tuple(ids.tolist())))
    return by_lane


def outcome(record: RunRecord) -> tuple[object, list[tuple[int, int, int, bool]]]:
    """Decisions and what every request came to."""
    by_lane = decisions(record)
    # Which of several equal workers wakes first is the operating system's choice.
    equal = all(lane.startswith("worker") for lane in by_lane)
    decided = sorted(by_lane.values()) if equal else by_lane
    requests = [
        (r.id, r.produced_tokens, r.rounds, r.completed_s is not None) for r in record.requests
    ]
    return decided, requests


def workload_of(rng: np.random.Generator, closed: bool, scale: float) -> Workload:
    count = int(rng.integers(2, 5))
    long = np.random.default_rng(count).choice([1, 100], count)
    return Workload(
        "closed-loop" if closed else "poisson",
        prompt_tokens=(rng.integers(1, 20, count) * long).tolist(),
        output_tokens=rng.integers(1, 8, count).tolist(),
        outcomes=[rng.integers(0, 5, 8).tolist() for _ in range(count)],
        arrival_s=None if closed else (np.cumsum(rng.uniform(0, 0.04, count)) * scale).tolist(),
        in_flight=min(count, 2) if closed else None,
    )


def cache_of(rng: np.random.Generator, workload: Workload) -> KvCache:
    """One that holds each request, and some of them together."""
    requests = workload.requests()
    cache = KvCache(0, 16, token_bytes=1, overrun_tokens=4, longest_tokens=10_000)
    longest = max(cache.pages_for(cache.reserved_tokens(one)) for one in requests)
    return replace(cache, pages=int(longest * rng.uniform(1.0, 2.5)))


def simulated_outcomes(
    config: Config, workload: Workload, costs: TableCosts, cache: KvCache
) -> list[object]:
    """Without noise first, then with."""
    host = HostCosts(wake_s=NOISE_S / 4, lock_wake_s=NOISE_S / 4, poll_overhead_s=1e-4)
    return [
        outcome(simulate(config, workload, costs, kv_cache=cache)),
        *(
            outcome(simulate(config, workload, NoisyCosts(costs, seed), host, None, cache))
            for seed in range(NOISY_RUNS)
        ),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("executor", EXECUTORS.values(), ids=list(EXECUTORS))
@pytest.mark.parametrize("name", ARCHITECTURES)
@settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much],
)
@given(seed=st.integers(0, 2**16), closed=st.booleans(), batch_cap=st.integers(1, 4))
def test_same_decisions(
    name: str, executor: Executor, seed: int, closed: bool, batch_cap: int
) -> None:
    for scale in SCALES:
        rng = np.random.default_rng(seed)
        costs = TableCosts({stage: scale * rng.uniform(5e-3, 15e-3) for stage in Stage})
        workload = workload_of(rng, closed, scale)
        config = config_of(
            name, executor, batch_cap=batch_cap, workers=2, prefill_batch=(1, 2, AUTO)[seed % 3]
        )
        cache = cache_of(np.random.default_rng(seed), workload)
        expected, *noisy = simulated_outcomes(config, workload, costs, cache)
        assume(all(other == expected for other in noisy))
        engine = ScriptedEngine(executor, config.draft_tokens, costs, cache)
        actual = outcome(run(config, workload, engine, stuck_s=10.0))
        if actual == expected:
            return
    assert actual == expected
