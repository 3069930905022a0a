"""What must hold in every simulated run, and how its locks, threads and clock behave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from pdvsim.acceptance import Acceptance
from pdvsim.architectures import ARCHITECTURES, Architecture, Config
from pdvsim.architectures.lane import Lanes, PollUntil, Program, WaitUntil
from pdvsim.cell import AUTO
from pdvsim.core import EXECUTORS, Model, Stage
from pdvsim.des import HostCosts, simulate
from pdvsim.des.host import Lock
from pdvsim.errors import InvariantError, PdvsimError
from pdvsim.invariants import check
from pdvsim.metrics import summarize
from pdvsim.pdverify.protocol import pdverify
from pdvsim.record_files import stage_table
from pdvsim.records import RunRecord
from pdvsim.work import Work
from pdvsim.workload import Lengths, Workload, closed_loop, poisson
from tests.fakes import HOST, FixedCosts, config_of


class UnevenCosts:
    """Costs that grow with the work, different for every stage."""

    def cost(self, stage: Stage, work: Work) -> tuple[float, float]:
        weight = 1 + list(Stage).index(stage)
        return 1e-4 * weight, 1e-5 * (20 + weight * work.new_tokens + 0.01 * work.context_tokens)


configs = st.builds(
    config_of,
    name=st.sampled_from(sorted(ARCHITECTURES)),
    executor=st.sampled_from(list(EXECUTORS.values())),
    batch_cap=st.integers(1, 12),
    draft_tokens=st.just(4),
    admission_factor=st.sampled_from([0.3, 1.0, 1.5]),
    workers=st.integers(1, 5),
    prefill_batch=st.just(AUTO) | st.integers(1, 4),
    verify_batch=st.just(AUTO) | st.integers(1, 8),
    verify_lead=st.integers(0, 3),
    queue_limit=st.sampled_from([1, 4, 1024]),
)
hosts = st.builds(
    HostCosts,
    wake_s=st.sampled_from([0.0, 1e-4]),
    lock_wake_s=st.sampled_from([0.0, 5e-5]),
    event_wake_s=st.sampled_from([0.0, 2e-5]),
    poll_overhead_s=st.sampled_from([0.0, 6e-5]),
    gil_speeds=st.sampled_from([(1.0,), (1.0, 0.5), (1.0, 0.6, 0.4)]),
    locks=st.frozensets(st.sampled_from(list(Model))),
)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    seed = np.random.SeedSequence(draw(st.integers(0, 1000)))
    lengths = Lengths(
        draw(st.integers(1, 40)), draw(st.integers(1, 30)), draw(st.sampled_from([0, 0.5]))
    )
    acceptance = Acceptance.constant(draw(st.sampled_from([0.0, 0.7, 1.0])), 4)
    deadline_s = draw(st.sampled_from([None, 0.05]))
    kind = draw(st.sampled_from(["closed-loop", "poisson", "pdverify"]))
    if kind == "closed-loop":
        return closed_loop(
            draw(st.integers(1, 12)), lengths, acceptance, seed, 1, deadline_s=deadline_s
        )
    if kind == "poisson":
        rate = draw(st.sampled_from([1.0, 100.0, 10_000.0]))
        return poisson(rate, draw(st.integers(1, 20)), lengths, acceptance, seed, deadline_s)
    return pdverify(draw(st.integers(1, 8)), lengths, acceptance, seed)


@settings(max_examples=120, deadline=None)
@given(configs, workloads(), hosts)
def test_every_run_keeps_its_books(config: Config, workload: Workload, host: HostCosts) -> None:
    record = simulate(config, workload, UnevenCosts(), host)
    check(record)
    summary = summarize(record)
    done = sum(request.completed_s is not None for request in record.requests)
    if workload.deadline_s is None:
        # Several may complete at the instant at which the run ends.
        assert (workload.stop_after or len(workload)) <= done <= len(record.requests)
    assert summary["in_flight_at_end"] == len(record.requests) - done
    busy = summary["gpu_busy"]
    assert busy is None or 0.0 <= busy <= 1.0 + 1e-9
    for request in record.requests:
        if config.executor.truncates and request.completed_s is not None:
            assert request.produced_tokens == request.output_tokens


def small_run(architecture: str, executor: str, seed: int = 0) -> RunRecord:
    workload = closed_loop(
        6, Lengths(16, 16, 0.5), Acceptance.constant(0.7, 4), np.random.SeedSequence(seed)
    )
    config = config_of(architecture, EXECUTORS[executor], batch_cap=6, workers=3)
    return simulate(config, workload, UnevenCosts(), HOST)


@pytest.mark.parametrize("executor", sorted(EXECUTORS))
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_same_seed_same_bytes(architecture: str, executor: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        small_run(architecture, executor).write(tmp_path, name)
    small_run(architecture, executor, seed=1).write(tmp_path, "other")
    for table in ("requests", "stages"):
        first, second, other = (
            (tmp_path / f"{name}_{table}.parquet").read_bytes() for name in ("a", "b", "other")
        )
        assert first == second
        assert first != other


def test_every_stage_of_a_chain_is_recorded() -> None:
    """A lane waits for the last stage of a chain only; the others happened too."""
    rows = stage_table(small_run("pdv", "graph"))
    counts = dict(rows["stage"].value_counts().iter_rows())
    assert counts["draft"] == counts["verify"]
    assert counts["prefill_draft"] == counts["prefill_verifier"]


class Hands:
    """Two threads and a lock."""

    def __init__(self, wake_s: float) -> None:
        self.env = simpy.Environment()
        self.lock = Lock(self.env, wake_s)
        self.held: list[tuple[str, float]] = []

    def thread(self, name: str, start_s: float, hold_s: float, times: int, rest_s: float) -> None:
        def body() -> Any:
            yield self.env.timeout(start_s)
            for _ in range(times):
                waiting = self.lock.acquire()
                if waiting is not None:
                    yield waiting
                self.held.append((name, self.env.now))
                yield self.env.timeout(hold_s)
                self.lock.release()
                if rest_s:
                    yield self.env.timeout(rest_s)

        self.env.process(body())


def test_a_thread_that_comes_back_at_once_barges_past_the_waiter() -> None:
    """As with threading.Lock: the waiter has to wake up first, and finds the lock taken."""
    hands = Hands(wake_s=0.1)
    hands.thread("greedy", 0.0, 1.0, 3, 0.0)
    hands.thread("patient", 0.5, 1.0, 1, 0.0)
    hands.env.run()
    assert [name for name, _ in hands.held] == ["greedy", "greedy", "greedy", "patient"]
    assert hands.held[-1][1] == pytest.approx(3.1)


def test_a_thread_that_rests_hands_the_lock_over() -> None:
    hands = Hands(wake_s=0.1)
    hands.thread("first", 0.0, 1.0, 2, 0.5)
    hands.thread("second", 0.5, 1.0, 1, 0.0)
    hands.env.run()
    assert [name for name, _ in hands.held] == ["first", "second", "first"]
    assert hands.held[1][1] == pytest.approx(1.1)


def stuck(verb: Any) -> Architecture:
    def lane(lanes: Lanes) -> Program:
        while True:
            yield verb(lambda: False, 0.1)

    return Architecture(
        "stuck",
        "It waits for nothing.",
        lambda lanes: {"lane": lane(lanes)},
        lambda lanes: True,
        (),
    )


@pytest.mark.parametrize("verb", [WaitUntil, PollUntil])
def test_a_stuck_run_says_so(verb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "stuck", stuck(verb))
    workload = closed_loop(3, Lengths(4, 4), Acceptance.constant(0.7, 4), np.random.SeedSequence(0))
    with pytest.raises(InvariantError, match=r"stuck at 0\.000000 s with 3 requests unfinished"):
        simulate(config_of("stuck"), workload, FixedCosts())


def lane_of(body: Callable[[Lanes], Program]) -> Architecture:
    return replace(stuck(WaitUntil), programs=lambda lanes: {"lane": body(lanes)})


def spinning(lanes: Lanes) -> Program:
    while True:
        yield PollUntil(lambda: True, 0.1)


def shouting(lanes: Lanes) -> Program:
    yield "Take"  # type: ignore[misc]


def ending(lanes: Lanes) -> Program:
    yield PollUntil(lambda: True, 0.1)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (spinning, r"time stands still at 0\.000000 s: lane lane of stuck has asked for 1,000,000"),
        (shouting, "a lane program yields a str, which is no verb"),
        (ending, r"stuck at 0\.000000 s with 3 requests unfinished"),
    ],
)
def test_a_program_that_gets_nowhere_is_stopped(
    body: Callable[[Lanes], Program], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHITECTURES, "stuck", lane_of(body))
    workload = closed_loop(3, Lengths(4, 4), Acceptance.constant(0.7, 4), np.random.SeedSequence(0))
    with pytest.raises(PdvsimError, match=says):
        simulate(config_of("stuck"), workload, FixedCosts())


def test_a_stuck_run_ends_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "stuck", stuck(WaitUntil))
    workload = pdverify(16, Lengths(4, 4), Acceptance.constant(0.7, 4), np.random.SeedSequence(0))
    record = simulate(config_of("stuck"), workload, FixedCosts())
    assert record.end_s == 60.0
    check(record)


def test_an_idle_poll_costs_up_to_its_interval() -> None:
    """A worker that polls every 10 us finds a request at the next tick after its arrival."""
    workload = poisson(
        10.0, 50, Lengths(1, 1), Acceptance.constant(0.0, 4), np.random.SeedSequence(3)
    )
    record = simulate(config_of("pdv", poll_s=0.01), workload, FixedCosts(0.0, 1e-6))
    waits = [(request.admitted_s or 0.0) - request.arrival_s for request in record.requests]
    assert min(waits) >= 0.0
    assert max(waits) <= 0.01
    assert np.mean(waits) == pytest.approx(0.005, rel=0.3)
