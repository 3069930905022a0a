"""What a lane runs at once, where it is alone, leaves the very bytes that events would leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdvsim.acceptance import Acceptance
from pdvsim.architectures import ARCHITECTURES, Architecture, Config
from pdvsim.architectures.lane import Lanes, PollUntil, Program
from pdvsim.core import EXECUTORS, Drafter, Stage
from pdvsim.des import HostCosts, simulate
from pdvsim.des.contention import Speeds
from pdvsim.des.runs import Runs
from pdvsim.kv_cache import KvCache
from pdvsim.records import RunRecord
from pdvsim.work import Work
from pdvsim.workload import Lengths, Workload, closed_loop, draw
from tests.fakes import config_of

PAGE_TOKENS, OVERRUN = 16, 8


class DrawnCosts:
    """Noise for every launch in its turn, so that who asks when shows; or whole milliseconds, so
    that much happens at one instant."""

    def __init__(self, seed: int, device_s: float, whole: bool) -> None:
        self._rng = np.random.default_rng(seed)
        self._device_s = device_s
        self._whole = whole

    def cost(self, stage: Stage, work: Work) -> tuple[float, float]:
        host, device = self._rng.random(2)
        if self._whole:
            return 1e-3 * round(host), 1e-3 * round(3 * device)
        return 1e-3 * host, self._device_s * device * (1.0 + 1e-3 * work.context_tokens)


def cancelling(found: Architecture) -> Architecture:
    """`found` beside a thread that cancels what waits for its next round, now and then."""

    def canceller(lanes: Lanes) -> Program:
        for completed in range(1, 10):
            yield PollUntil(lambda at=completed: lanes.completed >= at and lanes.decode, 1e-3)
            if lanes.decode:  # they may be gone when it wakes
                lanes.decode.peek().cancelled = True

    def programs(lanes: Lanes) -> dict[str, Program]:
        return {**found.programs(lanes), "canceller": canceller(lanes)}

    return replace(found, name=f"cancelling {found.name}", programs=programs)


@st.composite
def workloads(draw_: st.DrawFn) -> Workload:
    seed = np.random.SeedSequence(draw_(st.integers(0, 1000)))
    lengths = Lengths(
        draw_(st.integers(1, 40)),
        draw_(st.sampled_from([1, 5, 60])),
        draw_(st.sampled_from([0, 0.9])),
    )
    acceptance = Acceptance.constant(draw_(st.sampled_from([0.0, 0.7, 1.0])), 8)
    deadline_s = draw_(st.sampled_from([None, 0.05]))
    if draw_(st.booleans()):
        return closed_loop(
            draw_(st.integers(1, 9)), lengths, acceptance, seed, 1, deadline_s=deadline_s
        )
    gap_s = draw_(st.sampled_from([1e-4, 1e-2, 0.3]))
    rng = np.random.default_rng(seed)
    gaps = draw_(st.sampled_from([rng.exponential(gap_s, 12), gap_s * rng.integers(0, 3, 12)]))
    prompts, outputs, outcomes = draw(12, lengths, acceptance, seed)
    return Workload(
        "trace",
        prompts,
        outputs,
        outcomes,
        arrival_s=np.cumsum(gaps).tolist(),
        deadline_s=deadline_s,
    )


configs = st.builds(
    config_of,
    name=st.sampled_from([*ARCHITECTURES, *(f"cancelling {name}" for name in ARCHITECTURES)]),
    executor=st.sampled_from([*EXECUTORS.values(), EXECUTORS["graph"].with_drafter(Drafter.NONE)]),
    batch_cap=st.integers(1, 6),
    draft_tokens=st.integers(1, 8),
    switched_off=st.sets(st.sampled_from(["admission limit", "batch-end completion"])),
    workers=st.integers(1, 3),
    prefill_batch=st.integers(1, 3),
    token_budget=st.sampled_from([8, 64, 2048]),
)
hosts = st.builds(
    HostCosts,
    wake_s=st.sampled_from([0.0, 1e-3]),
    lock_wake_s=st.sampled_from([0.0, 5e-5]),
    event_wake_s=st.sampled_from([0.0, 1e-3, 2e-5]),
    gil_speeds=st.sampled_from([(1.0,), (1.0, 0.5)]),
)


def bytes_of(record: RunRecord) -> dict[str, Any]:
    """All that a run leaves."""
    return {
        "rows": record.stage_rows.tobytes(),
        "member_ids": record.member_ids.tobytes(),
        "member_tokens": record.member_tokens.tobytes(),
        "shut_s": record.shut_s.tolist(),
        "end_s": record.end_s,
        "busy_s": record.busy_s,
        "requests": [
            [getattr(request, name) for name in request.__slots__] for request in record.requests
        ],
    }


@pytest.fixture(scope="module", autouse=True)
def _known() -> Iterator[None]:
    """The cancelling architectures go by their names here."""
    with pytest.MonkeyPatch.context() as patch:
        for found in list(ARCHITECTURES.values()):
            one = cancelling(found)
            patch.setitem(ARCHITECTURES, one.name, one)
        yield


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    config=configs,
    workload=workloads(),
    host=hosts,
    seed=st.integers(0, 1000),
    device_s=st.sampled_from([0.0, 1e-4, 1e-2]),
    whole=st.booleans(),
    slow=st.sampled_from([{}, {(Stage.VERIFY, Stage.PREFILL_VERIFIER): Speeds.constant(0.5)}]),
    pages=st.sampled_from([13, 40, 1000]),
)
def test_at_once_by_events_or_verb_by_verb_the_record_is_the_same(
    config: Config,
    workload: Workload,
    host: HostCosts,
    seed: int,
    device_s: float,
    whole: bool,
    slow: Mapping[Any, Any],
    pages: int,
) -> None:
    cache = KvCache(pages, PAGE_TOKENS, 1, OVERRUN, 200)

    def record() -> dict[str, Any]:
        costs = DrawnCosts(seed, device_s, whole)
        return bytes_of(simulate(config, workload, costs, host, slow, cache))

    at_once = record()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runs, "_at_once", lambda self, lane, parts, done, drafts: done)
        by_events = record()
        patch.setattr(Runs, "run", lambda self, lane, run: self._world.plainly(lane, run))
        by_verbs = record()
    assert at_once == by_events == by_verbs
