"""Causes sum to the latency exactly, and each is what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdvsim.acceptance import Acceptance
from pdvsim.architectures import ARCHITECTURES, Config
from pdvsim.architectures.lane import ADMISSION_LIMIT, BATCH_END
from pdvsim.architectures.pdv import PREFILL_IN_TURN
from pdvsim.cell import AUTO, Value
from pdvsim.cli import run as pdvsim
from pdvsim.core import EXECUTORS, GRAPH, Stage
from pdvsim.des import HostCosts, simulate
from pdvsim.des.contention import Contention, Speeds
from pdvsim.des.world import SimulatedWorld
from pdvsim.explain import (
    Difference,
    Explained,
    Requests,
    Trace,
    explain_requests,
    explain_run,
    of_files,
    of_record,
    stream_seconds,
    thread_seconds,
)
from pdvsim.kv_cache import KvCache
from pdvsim.quantities import CAUSES
from pdvsim.records import STAGES, RunRecord
from pdvsim.spans import Spans
from pdvsim.workload import Lengths, Workload, closed_loop, poisson
from tests.fakes import HOST, FixedCosts, config_of

NANOSECOND = 1e-9
ACCEPTANCE = Acceptance.constant(0.7, 4)
LENGTHS = Lengths(16, 12, 0.5)


def loop(concurrency: int, seed: int = 0) -> Workload:
    return closed_loop(concurrency, LENGTHS, ACCEPTANCE, np.random.SeedSequence(seed))


def seconds(found: Requests, cause: str) -> np.ndarray:
    return np.asarray(found.seconds[:, CAUSES.index(cause)])


def simulated(
    architecture: str,
    concurrency: int = 4,
    executor: str = "eager",
    host: HostCosts = HOST,
    contention: Contention | None = None,
    costs: FixedCosts | None = None,
    workload: Workload | None = None,
    switched_off: tuple[str, ...] = (),
) -> RunRecord:
    return simulate(
        config_of(architecture, EXECUTORS[executor], concurrency, switched_off=switched_off),
        workload or loop(concurrency),
        costs or FixedCosts(),
        host,
        contention,
    )


def check_sums(trace: Trace) -> None:
    found = explain_requests(trace)
    assert np.abs(found.seconds.sum(axis=1) - found.e2e_s).max(initial=0.0) < NANOSECOND
    assert found.seconds.min(initial=0.0) > -NANOSECOND
    for budget in (thread_seconds(trace), stream_seconds(trace)):
        for parts in budget.values():
            assert abs(sum(parts.values()) - trace.end_s) < NANOSECOND
            assert min(parts.values()) > -NANOSECOND


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(list(ARCHITECTURES)),
    executor=st.sampled_from(list(EXECUTORS)),
    concurrency=st.integers(1, 12),
    launch_ms=st.floats(0.0, 5.0),
    device_ms=st.floats(0.0, 5.0),
    gil=st.floats(0.2, 1.0),
    speed=st.floats(0.2, 1.0),
    factor=st.sampled_from([0.3, 1.0, 1.5]),
    prefill_batch=st.just(AUTO) | st.integers(1, 4),
    workers=st.integers(1, 3),
    rate=st.none() | st.floats(1.0, 200.0),
    deadline_s=st.none() | st.floats(0.01, 0.5),
    switched_off=st.sets(st.sampled_from([ADMISSION_LIMIT, BATCH_END, PREFILL_IN_TURN])),
    seed=st.integers(0, 2**32),
)
def test_causes_sum_to_the_latency_and_threads_to_the_run(
    name: str,
    executor: str,
    concurrency: int,
    launch_ms: float,
    device_ms: float,
    gil: float,
    speed: float,
    factor: float,
    prefill_batch: Value,
    workers: int,
    rate: float | None,
    deadline_s: float | None,
    switched_off: set[str],
    seed: int,
) -> None:
    seeds = np.random.SeedSequence(seed)
    workload = (
        closed_loop(concurrency, LENGTHS, ACCEPTANCE, seeds, deadline_s=deadline_s)
        if rate is None
        else poisson(rate, 20, LENGTHS, ACCEPTANCE, seeds, deadline_s=deadline_s)
    )
    record = simulate(
        config_of(
            name,
            EXECUTORS[executor],
            batch_cap=concurrency,
            admission_factor=factor,
            prefill_batch=prefill_batch,
            workers=workers,
            switched_off=switched_off,
        ),
        workload,
        FixedCosts(launch_ms / 1e3, device_ms / 1e3),
        HostCosts(1e-4, 5e-5, 2e-5, 6e-5, (1.0, gil)),
        {(a, b): Speeds.constant(speed) for a in Stage for b in Stage},
    )
    check_sums(of_record(record))


def test_one_request_alone_waits_for_nobody() -> None:
    """Launches of 1 ms hide half of each stage's 2 ms; the rest is the device and waking up."""
    found = explain_requests(of_record(simulated("pdv", 1)))
    for cause in ("queueing", "admission hold", "lock wait", "GIL wait", "batch mates"):
        assert np.allclose(seconds(found, cause), 0.0, atol=NANOSECOND)
    assert np.allclose(seconds(found, "launch"), seconds(found, "device"))
    stages = np.round(seconds(found, "launch") / 1e-3)
    # Besides, each arrival finds the worker polling or at the end of its turn.
    woken = seconds(found, "wake-up and polling") - stages * HOST.event_wake_s
    assert np.all(woken > -NANOSECOND) and np.all(woken < 1e-4)


def test_the_gil_wait_is_what_sharing_the_gil_adds() -> None:
    shared = explain_requests(of_record(simulated("pd", 4)))
    alone = explain_requests(of_record(simulated("pd", 4, host=HostCosts(gil_speeds=(1.0,) * 8))))
    assert seconds(shared, "GIL wait").mean() > 1e-4
    assert np.allclose(seconds(alone, "GIL wait"), 0.0, atol=NANOSECOND)


def test_a_lock_that_is_off_is_not_waited_for() -> None:
    held = explain_requests(of_record(simulated("three_lane", 4)))
    free = simulated("three_lane", 4, host=HostCosts(locks=frozenset()))
    assert seconds(held, "lock wait").mean() > 1e-4
    assert np.allclose(seconds(explain_requests(of_record(free)), "lock wait"), 0.0)


def test_slow_down_needs_another_stream() -> None:
    halved = {(a, b): Speeds.constant(0.5) for a in Stage for b in Stage}
    costs = FixedCosts(1e-4, 4e-3)
    for architecture, some in (("pd", True), ("pdv", False)):
        record = simulated(architecture, 4, "graph", contention=halved, costs=costs)
        slow = seconds(explain_requests(of_record(record)), "device slow-down")
        assert bool(slow.mean() > 1e-4) is some


def test_the_admission_hold_is_what_the_limit_keeps_out() -> None:
    burst = poisson(1e4, 12, LENGTHS, ACCEPTANCE, np.random.SeedSequence(3))
    held = explain_requests(of_record(simulated("pd", 2, workload=burst)))
    free = simulated("pd", 2, workload=burst, switched_off=(ADMISSION_LIMIT,))
    assert seconds(held, "admission hold").mean() > 0.05
    assert np.allclose(seconds(explain_requests(of_record(free)), "admission hold"), 0.0)


@pytest.mark.parametrize("limited", [True, False])
def test_waiting_for_memory_is_a_cause_of_its_own(limited: bool) -> None:
    """Three workers, memory for one request: the others wait for it, however idle the lanes. Where
    the rule keeps out as many, that is the cause."""
    cache = KvCache(60, 1, token_bytes=1, overrun_tokens=4, longest_tokens=100)
    alike = closed_loop(3, Lengths(16, 12), ACCEPTANCE, np.random.SeedSequence(0))
    architecture = "pd" if limited else "baseline"
    config = config_of(architecture, workers=3, batch_cap=1 if limited else 8)
    world = SimulatedWorld(config, alike, FixedCosts(), HOST, kv_cache=cache)
    found = explain_requests(of_record(world.run()))
    full, held = seconds(found, "KV cache full"), seconds(found, "admission hold")
    cause, other = (held, full) if limited else (full, held)
    assert cause.mean() > 0.4 * found.e2e_s.mean()
    assert np.allclose(other, 0.0)


@pytest.mark.parametrize(("architecture", "held"), [("pdv", True), ("pd", False)])
def test_only_lanes_that_hold_a_turn_make_requests_wait_for_its_end(
    architecture: str, held: bool
) -> None:
    record = simulated(architecture, 6, host=HostCosts())
    trace = of_record(record)
    found = explain_requests(trace)
    assert bool(found.turn_end_s.mean() > 1e-3) is held
    if held:  # requests complete when their last turn ends, so its end was found exactly
        last = np.append(trace.first_entry[1:], True)
        ends = trace.take_end[trace.take[trace.entry_row[last]]]
        completed = trace.requests["completed_s"][trace.entry_request[last]]
        done = ~np.isnan(completed)
        assert np.allclose(ends[done], completed[done], atol=NANOSECOND)


def test_completing_each_round_at_once_ends_the_wait_for_the_turn() -> None:
    found = explain_requests(
        of_record(simulated("pdv", 6, host=HostCosts(), switched_off=(BATCH_END,)))
    )
    assert np.allclose(found.turn_end_s, 0.0, atol=NANOSECOND)


def test_wasted_drafts_follow_acceptance() -> None:
    for probability, least, most in ((1.0, 0.0, 0.0), (0.0, 1.0, 1.0)):
        kept = Acceptance.constant(probability, 4)
        workload = closed_loop(2, LENGTHS, kept, np.random.SeedSequence(1))
        trace = of_record(simulated("baseline", 2, workload=workload))
        found = explain_requests(trace)
        drafting = seconds(found, "launch") + seconds(found, "device")
        assert np.all(found.wasted_s >= least * 0.3 * drafting - NANOSECOND)
        assert np.all(found.wasted_s <= most * drafting + NANOSECOND)


def test_files_say_what_the_record_says(tmp_path: Path) -> None:
    record = simulated("three_lane", 4)
    record.write(tmp_path, "any name")
    assert explain_run(of_files(tmp_path / "any name")) == explain_run(of_record(record))


def test_a_slow_host_is_no_gil_wait(profile: str, tmp_path: Path) -> None:
    """A single thread whose launches take twice what the profile says."""
    record = simulated("pdv", 4, costs=FixedCosts(0.028, 0.0))
    replace(record, world="real").write(tmp_path, "slow")
    from pdvsim.profile import load_profile

    found = explain_requests(of_files(tmp_path / "slow", load_profile(profile)))
    assert np.allclose(seconds(found, "GIL wait"), 0.0)
    assert np.abs(found.seconds.sum(axis=1) / found.e2e_s - 1.0).max() < 1e-3


def test_a_difference_is_the_sum_of_its_parts() -> None:
    cells = [
        Explained(
            name,
            "simulated",
            4,
            [explain_run(of_record(simulated(name, 4, workload=loop(4, i)))) for i in range(3)],
        )
        for name in ("pd", "pdv")
    ]
    difference = Difference(*cells)
    parts = [difference.part(cause).value for cause in CAUSES]
    assert sum(parts) == pytest.approx(difference.whole.value, abs=NANOSECOND)
    assert "batch mates +" in difference.sentence()
    assert "in pdv than in pd" in difference.sentence()


def test_spans() -> None:
    two = Spans(np.array([0.0, 1.0, 5.0, 9.0]), np.array([2.0, 3.0, 6.0, 8.0]))
    assert two.within(np.array([-1.0, 2.5, 3.5]), np.array([10.0, 5.5, 4.5])).tolist() == [4, 1, 0]
    rest = two - Spans(np.array([1.0]), np.array([5.5]))
    assert (rest.starts.tolist(), rest.ends.tolist()) == ([0.0, 5.5], [1.0, 6.0])


def test_the_command(profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replace(simulated("pd", 4), world="real").write(tmp_path, "mine")
    arguments = ["explain", "--concurrency", "2,4", "--profile", profile]
    arguments += ["--output-tokens", "8", "--replications", "2"]
    arguments += ["--records", str(tmp_path / "mine")]
    assert pdvsim([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(c["label"], c["world"], c["concurrency"]) for c in document["cells"]] == [
        ("pd", "simulated", 2),
        ("pdv", "simulated", 2),
        ("pd", "simulated", 4),
        ("pdv", "simulated", 4),
        ("pd", "real", 4),
    ]
    for cell in document["cells"]:
        shares = [cause["share"]["value"] for cause in cell["causes"].values()]
        assert sum(shares) == pytest.approx(1.0)
    assert len(document["differences"]) == 2
    assert document["predicted_less_measured"][0]["concurrency"] == 4
    assert pdvsim([*arguments, "--threads"]) == 0
    shown = capsys.readouterr().out
    assert "thread decode" in shown and "stream main" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--architecture", "x"], "unknown architecture 'x'"),
        (["--concurrency", "x"], "write whole numbers"),
        (["--concurrency", "4", "--replications", "0"], "replications is 0"),
        (["--records", "nowhere/pd-eager-closed-loop-c8-0"], "there is no such file"),
    ],
)
def test_bad_arguments(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert pdvsim(["explain", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_mixed_pass_wastes_what_its_rounds_had_of_it() -> None:
    """Two short requests round while a third's prompt is taken in: all drafts are rejected, so
    their drafts, and the rounds' share of every pass, were for nothing."""
    plan = Workload("poisson", [4, 4, 99], [30, 30, 2], [bytes(30)] * 3, arrival_s=[0.0, 0.0, 0.1])
    config = Config("continuous", GRAPH, 3, parameters={"token_budget": 20})
    record = simulate(config, plan, FixedCosts(0.0, 0.01))
    found = explain_requests(of_record(record))
    mixed = record.column("stage") == STAGES.index(Stage.MIXED)
    for i, wasted_s in zip(found.index, found.wasted_s, strict=True):
        request = record.requests[i]
        expected_s = 0.0
        start = 0
        for row, batch in enumerate(record.column("batch").astype(int)):
            members = record.member_ids[start : start + batch].tolist()
            start += batch
            # Drafts for a round that a request did not come to are not of its latency.
            late = record.column("started_s")[row] >= request.completed_s - 1e-9
            if request.id not in members or late:
                continue
            spent_s = record.column("device_alone_s")[row]
            stage = STAGES[int(record.column("stage")[row])]
            if stage in (Stage.DRAFT, Stage.VERIFY):
                expected_s += spent_s
            elif mixed[row] and request.first_token_s < record.column("settled_s")[row]:
                rounds = sum(
                    record.requests[member].first_token_s < record.column("settled_s")[row]
                    for member in members
                )
                expected_s += spent_s * rounds * 5 / record.column("query_tokens")[row]
        assert wasted_s == pytest.approx(expected_s)
        assert bool(expected_s > 0) is (request.rounds > 0)
    assert mixed.sum() > 5
