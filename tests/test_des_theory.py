"""With the right costs the simulated world is a queue that theory has solved.

Each test asks that the formula lies inside an interval of the mean over independent runs, at
t = 4 (so that fixed seeds pass for a reason), and that this interval is narrow enough to matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from pdvsim.acceptance import Acceptance
from pdvsim.core import EAGER, EXECUTORS, Executor, Stage
from pdvsim.des import HostCosts, simulate
from pdvsim.des.clock import Clock
from pdvsim.des.contention import Speeds, sizes_of
from pdvsim.des.sharing import SharedServer
from pdvsim.metrics import summarize
from pdvsim.work import Work
from pdvsim.workload import Lengths, closed_loop, poisson
from tests.fakes import config_of

ONE_TOKEN = Lengths(1, 1)
ONE_DRAFT = Acceptance.constant(0.5, 4)
# A stage to prefill and a stage to decode, and one round is all that a request needs.
TWO_STATIONS = Executor(
    name="two stations",
    batched=False,
    prefill=(Stage.PREFILL_VERIFIER,),
    speculate=(),
    check=(Stage.VERIFY,),
    synchronous=True,
    bonus_token=False,
    prefill_emits=0,
    truncates=False,
)


class RandomCosts:
    """Device seconds of each stage drawn by a function of its own; no host time."""

    def __init__(self, draws: Mapping[Stage, Callable[[], float]]) -> None:
        self._draws = draws

    def cost(self, stage: Stage, work: Work) -> tuple[float, float]:
        draw = self._draws.get(stage)
        return 0.0, draw() if draw is not None else 0.0


def agree(samples: Sequence[float], formula: float, precision: float) -> None:
    """`formula` is inside mean +- 4 standard errors, and those are within `precision` of it."""
    mean = np.mean(samples)
    error = np.std(samples, ddof=1) / np.sqrt(len(samples))
    assert 4 * error < precision * formula, f"too wide to mean anything: {mean} +- {4 * error}"
    assert abs(mean - formula) < 4 * error, f"{mean} +- {4 * error}, theory says {formula}"


def open_queue(service: Callable[[np.random.Generator], float], rate: float, seed: int) -> float:
    """Mean time in system, seconds, of a single server that `plain` makes."""
    plan, draws = np.random.SeedSequence(seed).spawn(2)
    rng = np.random.default_rng(draws)
    costs = RandomCosts({Stage.DECODE: lambda: service(rng)})
    workload = poisson(rate, 3000, ONE_TOKEN, ONE_DRAFT, plan)
    record = simulate(config_of("plain", batch_cap=1), workload, costs)
    mean = summarize(record)["mean_e2el_ms"]
    assert mean is not None
    return mean / 1e3


@pytest.mark.slow
@pytest.mark.parametrize("load", [0.3, 0.6])
def test_mm1(load: float) -> None:
    times = [open_queue(lambda rng: rng.exponential(1.0), load, seed) for seed in range(8)]
    agree(times, 1.0 / (1.0 - load), 0.15)


@pytest.mark.slow
@pytest.mark.parametrize("load", [0.3, 0.7])
def test_md1(load: float) -> None:
    times = [open_queue(lambda rng: 1.0, load, seed) for seed in range(8)]
    agree(times, 1.0 + load / (2.0 * (1.0 - load)), 0.15)


@pytest.mark.slow
def test_mg1_waits_by_the_second_moment() -> None:
    """Pollaczek and Khinchine, with half of the services 0.5 and half 1.5 s long."""
    times = [open_queue(lambda rng: rng.choice((0.5, 1.5)), 0.6, seed) for seed in range(8)]
    agree(times, 1.0 + 0.6 * 1.25 / (2.0 * (1.0 - 0.6)), 0.15)


def shared(work: Callable[[np.random.Generator], float], load: float, seed: int) -> list[Any]:
    """(work, time in system) of 4000 Poisson arrivals at a processor-sharing server."""
    rng = np.random.default_rng(seed)
    env = Clock()
    server = SharedServer(env, lambda kinds: [1.0 / len(kinds)] * len(kinds))
    done: list[tuple[float, float]] = []

    def arrivals() -> Any:
        for _ in range(4000):
            yield env.timeout(rng.exponential(1.0 / load))
            seconds, since = work(rng), env.now
            server.run(seconds, lambda s=seconds, t=since: done.append((s, env.now - t)))

    env.process(arrivals())
    env.run()
    assert len(done) == 4000
    assert server.busy_s == pytest.approx(sum(seconds for seconds, _ in done))
    return done


@pytest.mark.parametrize(
    "work", [lambda rng: 1.0, lambda rng: rng.exponential(1.0)], ids=["constant", "exponential"]
)
def test_processor_sharing_does_not_care_about_the_distribution(work: Any) -> None:
    times = [float(np.mean([t for _, t in shared(work, 0.5, seed)])) for seed in range(8)]
    agree(times, 1.0 / (1.0 - 0.5), 0.15)


def test_processor_sharing_slows_everyone_down_alike() -> None:
    """E[T | work] = work / (1 - load)."""
    runs = [shared(lambda rng: rng.choice((0.4, 1.6)), 0.5, seed) for seed in range(8)]
    for size in (0.4, 1.6):
        agree([float(np.mean([t for s, t in run if s == size])) for run in runs], 2 * size, 0.15)


def mva(service_s: Sequence[float], customers: int) -> float:
    """Throughput of a closed network of exponential first-come first-served stations, by mean
    value analysis (Reiser and Lavenberg 1980)."""
    queues = np.zeros(len(service_s))
    throughput = 0.0
    for n in range(1, customers + 1):
        residence = np.array(service_s) * (1.0 + queues)
        throughput = n / residence.sum()
        queues = throughput * residence
    return throughput


@pytest.mark.slow
@pytest.mark.parametrize("customers", [1, 2, 5])
@pytest.mark.parametrize("decode_s", [1.0, 0.4])
def test_two_lanes_are_a_closed_network(customers: int, decode_s: float) -> None:
    rates = []
    for seed in range(8):
        plan, draws = np.random.SeedSequence(seed).spawn(2)
        rng = np.random.default_rng(draws)
        costs = RandomCosts(
            {
                Stage.PREFILL_VERIFIER: lambda rng=rng: rng.exponential(1.0),
                Stage.VERIFY: lambda rng=rng: rng.exponential(decode_s),
            }
        )
        workload = closed_loop(customers, ONE_TOKEN, ONE_DRAFT, plan, cycles=2400 // customers)
        config = config_of("pd", TWO_STATIONS, batch_cap=customers)
        # Both stations use the verifier: without its lock they serve independently.
        record = simulate(config, workload, costs, HostCosts(locks=frozenset()))
        rate = summarize(record)["request_throughput"]
        assert rate is not None
        rates.append(rate)
    agree(rates, mva((1.0, decode_s), customers), 0.1)


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_threads_share_the_gil(workers: int) -> None:
    """Work that is all launching: throughput follows the measured speeds, and stays at that of
    the last one measured beyond it."""
    speeds = (1.0, 0.7, 0.4)
    host = HostCosts(gil_speeds=speeds, locks=frozenset())
    together = workers * speeds[workers - 1] if workers <= 3 else 3 * speeds[2]

    class Launches:
        def cost(self, *_: Any) -> tuple[float, float]:
            return 0.01, 0.0

    workload = closed_loop(
        2 * workers, Lengths(4, 40), Acceptance.constant(1.0, 4), np.random.SeedSequence(0), 20
    )
    record = simulate(config_of("baseline", workers=workers), workload, Launches(), host)
    rate = summarize(record)["request_throughput"]
    launches = len(EAGER.prefill) + 10 * (len(EAGER.speculate) + len(EAGER.check))
    assert rate == pytest.approx(together / (0.01 * launches), rel=0.02)


def test_stages_on_two_streams_slow_each_other_down() -> None:
    """Two stages at 0.8 and 0.5 of their speed: the slower one finishes alone."""
    env = Clock()
    contention = {
        (Stage.DRAFT, Stage.VERIFY): Speeds.constant(0.8),
        (Stage.VERIFY, Stage.DRAFT): Speeds.constant(0.5),
    }
    from pdvsim.core import Stream
    from pdvsim.des.gpu import Gpu, Operation

    gpu = Gpu(env, contention, 0.0)
    draft = Operation(Stage.DRAFT, (), Stream.DRAFT)
    verify = Operation(Stage.VERIFY, (), Stream.VERIFY)
    behind = Operation(Stage.DECODE, (), Stream.DRAFT)
    for operation, work_s in ((draft, 1.0), (verify, 1.0), (behind, 1.0)):
        operation.remaining_s = work_s
        gpu.submit(operation)
    env.run()
    assert draft.ended_s == pytest.approx(1.0 / 0.8)
    # Then it runs beside `behind`, which does not slow it down.
    assert verify.ended_s == pytest.approx(1.25 + (1.0 - 0.5 * 1.25))
    assert behind.started_s == pytest.approx(draft.ended_s)
    assert behind.ended_s == pytest.approx(2.25)


def test_delays_of_three_streams_add_up() -> None:
    """Held up by 1 s a second of work beside one, by 0.5 s beside the other: 2.5 times as long."""
    from pdvsim.core import Stream
    from pdvsim.des.gpu import Gpu, Operation

    env = Clock()
    contention = {
        (Stage.DRAFT, Stage.VERIFY): Speeds.constant(0.5),
        (Stage.DRAFT, Stage.PREFILL_VERIFIER): Speeds.constant(1.0 / 1.5),
    }
    gpu = Gpu(env, contention, 0.0)
    draft = Operation(Stage.DRAFT, (), Stream.DRAFT)
    others = [
        Operation(Stage.VERIFY, (), Stream.VERIFY),
        Operation(Stage.PREFILL_VERIFIER, (), Stream.PREFILL),
    ]
    for operation, work_s in ((draft, 1.0), *((other, 9.0) for other in others)):
        operation.remaining_s = work_s
        gpu.submit(operation)
    env.run()
    assert draft.ended_s == pytest.approx(2.5)
    assert [other.ended_s for other in others] == pytest.approx([9.0, 9.0])


@pytest.mark.parametrize(
    ("stage", "other", "sizes"),
    [
        ((Stage.DRAFT, 32, 128), (Stage.VERIFY, 8, 40), (40, 0)),
        ((Stage.VERIFY, 8, 40), (Stage.DRAFT, 32, 128), (32, 0)),
        ((Stage.VERIFY, 32, 160), (Stage.PREFILL_VERIFIER, 2, 600), (160, 600)),
        ((Stage.PREFILL_VERIFIER, 2, 600), (Stage.DRAFT, 8, 32), (8, 600)),
    ],
)
def test_the_slow_down_goes_by_the_other_round_and_the_prompt(
    stage: tuple[Stage, int, int], other: tuple[Stage, int, int], sizes: tuple[int, int]
) -> None:
    assert sizes_of(stage, other) == sizes


def test_speeds_are_between_those_measured() -> None:
    speeds = Speeds([(4, 100, 0.8), (16, 100, 0.6), (4, 400, 0.4)])
    assert speeds.at(1, 50) == 0.8 and speeds.at(99, 100) == 0.6
    assert speeds.at(8, 100) == pytest.approx(0.7)
    assert speeds.at(8, 200) == pytest.approx(0.55)
    assert speeds.at(64, 9999) == 0.4


def test_an_event_holds_back_what_waits_for_it() -> None:
    from pdvsim.core import Stream
    from pdvsim.des.gpu import Gpu, Operation

    env = Clock()
    gpu = Gpu(env, {}, 0.0)
    draft = Operation(Stage.DRAFT, (), Stream.DRAFT)
    verify = Operation(Stage.VERIFY, (), Stream.VERIFY, after=(draft,))
    chain = [draft, verify]
    for operation in chain:
        operation.remaining_s = 1.0
        gpu.submit(operation)
    env.run()
    assert [(op.started_s, op.ended_s) for op in chain] == [(0.0, 1.0), (1.0, 2.0)]


@pytest.mark.parametrize("executor", sorted(EXECUTORS))
def test_faster_stages_never_lower_throughput_of_one_lane(executor: str) -> None:
    """One thread, one request at a time: time is the sum of the stages."""
    rates = []
    for device_s in (0.004, 0.002, 0.001):
        costs = RandomCosts(dict.fromkeys(Stage, lambda device_s=device_s: device_s))
        workload = closed_loop(4, Lengths(8, 16), ONE_DRAFT, np.random.SeedSequence(1))
        config = config_of("pdv", EXECUTORS[executor], batch_cap=4)
        rates.append(summarize(simulate(config, workload, costs))["output_throughput"])
    assert all(later == pytest.approx(2 * earlier) for earlier, later in pairwise(rates))
