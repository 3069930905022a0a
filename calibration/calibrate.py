"""Measures one pair on one machine and fits its profile.

Nothing end to end is measured: stages one at a time on one thread, what threads cost, and what
launching threads do to each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from calibration import host
from calibration.ceilings import measure_ceilings
from calibration.fit import Timing, estimate, fit_cost
from calibration.stages import kernel_seconds, requests_for, time_rounds, time_stage
from pdvsim.core import Stage, Stream
from pdvsim.profile import (
    SCHEMA_VERSION,
    Ceilings,
    Estimate,
    HostFit,
    ProfileFile,
    Provenance,
    Range,
    StageFit,
)
from pdvsim.store import Store
from realengine.build import Opened


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        prompts: prompt lengths, tokens.
        batches: batch sizes; (1,) for an executor that takes one request per launch.
        rounds: rounds per point and pass.
        passes: how often everything is gone through; their spread is the run-to-run spread.
        gil_seconds: how long threads are raced, for each number of threads.
    """

    prompts: tuple[int, ...] = (10, 64, 256, 512)
    batches: tuple[int, ...] = (1,)
    rounds: int = 6
    passes: int = 4
    gil_seconds: float = 5.0
    gil_segments: int = 5

    @property
    def steps(self) -> int:
        return self.passes * len(self.prompts) * len(self.batches) + len(self.prompts) + 7


def calibrate(
    opened: Opened,
    plan: Plan,
    store: Store,
    provenance: dict[str, Any],
    name: str,
    on_step: Callable[[], None],
) -> tuple[ProfileFile, list[dict[str, Any]]]:
    """Measure everything that `store` does not hold yet, then fit.

    Returns:
        The profile, and the raw stage samples behind it.
    """
    engine, seed = opened.engine, int(provenance["seed"])
    cuda = opened.device.type == "cuda"

    def step(key: str, measurement: Callable[[], Any]) -> Any:
        value = store.measure(key, measurement)
        on_step()
        return value

    engine.start()
    ids = _Ids()
    for prompt in plan.prompts:  # pays for first use
        for batch in plan.batches:
            time_rounds(engine, batch, prompt, 2, ids.take(2 * batch), seed)
    passes: list[list[dict[str, Any]]] = []
    for number in range(plan.passes):
        samples: list[dict[str, Any]] = []
        for prompt in plan.prompts:
            for batch in plan.batches:
                samples += step(
                    f"rounds-{number}-{prompt}-{batch}",
                    partial(
                        time_rounds, engine, batch, prompt, plan.rounds, ids.take(2 * batch), seed
                    ),
                )
        passes.append(samples)
    kernels: list[dict[str, Any]] = []
    for prompt in plan.prompts if cuda and engine.executor.synchronous else ():
        kernels += step(
            f"kernels-{prompt}",
            partial(kernel_seconds, engine, prompt, ids.take(2), seed),
        )
    threads = {
        "wake_s": step("wake", host.wake_seconds),
        "lock_wake_s": step("lock_wake", host.lock_wake_seconds),
        "poll_overhead_s": step("poll", host.poll_overhead_seconds),
    }
    rates = [step(f"gil-{count}", partial(_race, opened, plan, count, seed)) for count in (1, 2, 3)]
    ceilings = step("ceilings", partial(measure_ceilings, opened.device)) if cuda else None
    rng = np.random.default_rng(seed)
    samples = [sample for one in passes for sample in one]
    profile = ProfileFile(
        schema_version=SCHEMA_VERSION,
        name=name,
        pair=opened.loaded.pair.name,
        executor=engine.executor.name,
        draft_tokens=engine.draft_tokens,
        stages=fit_stages(samples, kernels, engine.executor.synchronous, cuda, rng),
        host=HostFit(
            **{key: estimate(values, rng) for key, values in threads.items()},
            event_wake_s=estimate([s["wait_s"] for s in samples], rng)
            if engine.executor.synchronous
            else estimate([0.0], rng),
            gil_speeds=gil_speeds(rates, rng),
            run_spread=run_spread(passes),
        ),
        contention=[],
        ceilings=Ceilings(**ceilings) if ceilings else None,
        provenance=Provenance(**provenance, measurements=f"{name}_samples.parquet"),
    )
    marked = [sample | {"pass": i} for i, one in enumerate(passes) for sample in one]
    return profile, marked + [sample | {"pass": -1} for sample in kernels]


class _Ids:
    """Fresh request ids, so that no two measured requests share a cache."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, count: int) -> int:
        first = self._next
        self._next += count
        return first


def fit_stages(
    samples: Sequence[dict[str, Any]],
    kernels: Sequence[dict[str, Any]],
    synchronous: bool,
    cuda: bool,
    rng: np.random.Generator,
) -> dict[Stage, StageFit]:
    """One fit per stage. Device time comes from `kernels` where there are any; on the CPU the
    launching thread does all the work, so the device has none."""
    by_stage: dict[Stage, list[dict[str, Any]]] = defaultdict(list)
    device: dict[Stage, list[Timing]] = defaultdict(list)
    for sample in samples:
        by_stage[Stage(sample["stage"])].append(sample)
    for sample in kernels or samples:
        seconds = sample["device_s"] if cuda else 0.0
        device[Stage(sample["stage"])].append(_timing(sample, seconds))
    fits = {}
    for stage, rows in by_stage.items():
        host_terms = ["fixed", "per_query_token"] if "prefill" in stage else ["fixed"]
        device_terms = ["fixed", "per_query_token", "per_context_token"]
        fits[stage] = StageFit(
            host=fit_cost([_timing(row, row["launch_s"]) for row in rows], host_terms, rng),
            device=fit_cost(device[stage], device_terms, rng),
            measured=Range(
                **{
                    key: (min(r[key] for r in rows), max(r[key] for r in rows))
                    for key in ("batch", "query_tokens", "context_tokens")
                }
            ),
        )
    return fits


def _timing(sample: dict[str, Any], seconds: float) -> Timing:
    return Timing(sample["batch"], sample["query_tokens"], sample["context_tokens"], seconds)


def run_spread(passes: Sequence[Sequence[dict[str, Any]]]) -> float:
    """Relative standard deviation of host speed between passes: each pass is the mean, over its
    stages, of the log of the stage's median launch time."""
    speeds = []
    for samples in passes:
        by_stage = defaultdict(list)
        for sample in samples:
            by_stage[sample["stage"]].append(sample["launch_s"])
        speeds.append(np.mean([np.log(np.median(values)) for values in by_stage.values()]))
    return float(np.std(speeds, ddof=1)) if len(speeds) > 1 else 0.0


def _race(opened: Opened, plan: Plan, threads: int, seed: int) -> list[list[list[float]]]:
    """Call rates of `threads` threads, each on a model of its own: first each alone, then all.

    Returns:
        [alone, together], each of shape (segments, threads).
    """
    loops = _loops(opened, threads, seed)
    each = plan.gil_seconds / 2
    alone = [host.gil_rates([loop], each, plan.gil_segments) for loop in loops]
    together = host.gil_rates(loops, plan.gil_seconds, plan.gil_segments)
    return [
        [[rates[i][0] for rates in alone] for i in range(plan.gil_segments)],
        together,
    ]


def _loops(opened: Opened, threads: int, seed: int) -> list[host.Loop]:
    """Draft stage, verify stage and a second draft stage: no two share a model's lock. The third
    thread drives an engine of its own over the same weights."""
    stages = (
        (Stage.VERIFY, Stream.VERIFY, opened.engine),
        (Stage.DRAFT, Stream.DRAFT, opened.engine),
        (Stage.DRAFT, Stream.PREFILL, opened.sibling()),
    )
    loops = []
    for i, (stage, stream, engine) in enumerate(stages[:threads]):
        (request,) = requests_for(engine, 1, 64, 4, 10_000_000 + 10 * threads + i, seed)
        for prefill in engine.executor.prefill:
            time_stage(engine, prefill, [request])
        engine.launch(Stage.DRAFT, [request], stream, ()).wait()
        loops.append(host.stage_loop(engine, stage, request, stream))
    return loops


def gil_speeds(
    races: Sequence[list[list[list[float]]]], rng: np.random.Generator
) -> list[Estimate]:
    """Speed of each of n launching threads relative to alone, n = 1, 2, ...: the geometric mean
    over the threads, segment by segment."""
    speeds = [Estimate(value=1.0, low=1.0, high=1.0)]
    for alone, together in races[1:]:
        base = np.median(np.array(alone), axis=0)
        relative = np.exp(np.mean(np.log(np.maximum(np.array(together) / base, 1e-3)), axis=1))
        speeds.append(estimate(np.minimum(relative, 1.0).tolist(), rng))
    return speeds
