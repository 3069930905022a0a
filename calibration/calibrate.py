"""Measures one pair on one machine and fits its profile.

Nothing end to end is measured: stages one at a time on one thread, what threads cost, what
launching threads do to each other, and what stages on two streams do to each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from calibration import host
from calibration.ceilings import measure_ceilings
from calibration.contention import fit_contention, measure_pairs, request_tokens
from calibration.fit import estimate
from calibration.stage_fits import Samples, fit_stages, gil_speeds, run_spread
from calibration.stages import (
    blocker,
    context_growth,
    kernel_seconds,
    requests_for,
    time_rounds,
    time_stage,
)
from pdvsim.core import Stage, Stream
from pdvsim.models import Pair
from pdvsim.profile_file import SCHEMA_VERSION, Ceilings, Estimate, HostFit, ProfileFile, Provenance
from pdvsim.store import Store
from realengine.build import Opened

CACHE_SHARE = 0.8
MOST_PROMPT_TOKENS = 65_536
RESERVE_BYTES = 6 << 30  # graphs, workspaces, activations of a long prefill

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        prompts: prompt lengths, tokens.
        batches: batch sizes; (1,) for an executor that takes one request per launch.
        rounds: rounds per point and pass.
        passes: how often everything is gone through; their spread is the run-to-run spread.
        race_seconds, race_rounds: how long threads are raced at a time, and how often.
        beside: batch sizes of a round stage that runs beside another stage.
    """

    prompts: tuple[int, ...] = (10, 64, 256, 512)
    batches: tuple[int, ...] = (1,)
    rounds: int = 6
    passes: int = 4
    race_seconds: float = 0.6
    race_rounds: int = 6
    beside: tuple[int, ...] = ()

    def points(self, most_tokens: int, draft_tokens: int) -> list[tuple[int, int]]:
        """(prompt, batch) that fit into a cache of `most_tokens`; long prompts in small batches
        only, as they say how cost grows with context and take long to prefill."""
        growth = context_growth(self.rounds, draft_tokens) + 2 * draft_tokens + 16
        return [
            (prompt, batch)
            for prompt in self.prompts
            for batch in self.batches
            if batch * (prompt + growth) <= most_tokens and batch * prompt <= MOST_PROMPT_TOKENS
        ]


EAGER_PLAN = Plan()
GRAPH_PLAN = Plan(
    prompts=(64, 256, 512),
    batches=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    passes=2,
    race_seconds=0.3,
    beside=(2, 8, 32, 64, 96, 128),
)


def quick(plan: Plan) -> Plan:
    """A look at the machine instead of a profile."""
    return Plan(
        plan.prompts[:2], plan.batches[:3], rounds=4, passes=2, race_seconds=0.2, race_rounds=3
    )


def calibrate(
    opened: Opened,
    plan: Plan,
    most_tokens: int,
    store: Store,
    provenance: dict[str, Any],
    name: str,
    on_step: Callable[[int], None],
) -> tuple[ProfileFile, Samples, Samples]:
    """Measure everything that `store` does not hold yet, then fit.

    Args:
        most_tokens: what the engine's cache holds.
        on_step: called with the number of steps that there are, after each.

    Returns:
        The profile, the raw stage samples behind it, and the rows of stages side by side.
    """
    engine, seed = opened.engine, int(provenance["seed"])
    cuda, synchronous = opened.device.type == "cuda", engine.executor.synchronous
    points = plan.points(most_tokens, engine.draft_tokens)
    block = blocker(engine) if cuda and not synchronous else None
    profiled = plan.prompts if cuda and synchronous else ()
    largest = max(batch for _, batch in points)
    most_beside = min(largest, most_tokens // request_tokens(engine.draft_tokens)) // 2
    beside = [b for b in plan.beside if block is not None and b <= most_beside]
    steps = plan.passes * len(points) + len(profiled) + len(beside) + 6 + cuda

    def step(key: str, measurement: Callable[[], T], kind: type[T]) -> T:
        value = store.measure(key, measurement, kind)
        on_step(steps)
        return value

    engine.start()
    ids = _Ids()
    for prompt, batch in points if synchronous else points[: len(plan.batches)]:
        # Pays for first use: of every shape, or of every batch size that graphs exist for.
        time_rounds(engine, batch, prompt, 2, ids.take(3 * batch), seed, block)
    passes: list[Samples] = []
    for number in range(plan.passes):
        samples: Samples = []
        for prompt, batch in points:
            samples += step(
                f"rounds-{number}-{prompt}-{batch}",
                partial(
                    time_rounds,
                    *(engine, batch, prompt, plan.rounds, ids.take(3 * batch), seed, block),
                ),
                Samples,
            )
        passes.append(samples)
    kernels: Samples = []
    for prompt in profiled:
        kernels += step(
            f"kernels-{prompt}",
            partial(kernel_seconds, engine, prompt, ids.take(2), seed),
            Samples,
        )
    pairs: Samples = []
    for batch in beside:
        assert block is not None
        pairs += step(
            f"beside-{batch}",
            partial(measure_pairs, engine, batch, ids.take(100_000), block),
            Samples,
        )
    threads = {
        "wake_s": step("wake", host.wake_seconds, list[float]),
        "lock_wake_s": step("lock_wake", host.lock_wake_seconds, list[float]),
        "poll_overhead_s": step("poll", host.poll_overhead_seconds, list[float]),
    }
    races = [
        step(f"race-{n}", partial(_race, opened, plan, n, seed), list[dict[str, list[float]]])
        for n in (2, 3)
    ]
    ceilings = None
    if cuda:
        ceilings = step("ceilings", partial(measure_ceilings, opened.device), dict[str, float])
    rng = np.random.default_rng(seed)
    every = [sample for one in passes for sample in one]
    stages = fit_stages(every, kernels, engine, cuda, rng)
    profile = ProfileFile(
        schema_version=SCHEMA_VERSION,
        name=name,
        draft=opened.pair.draft,
        verifier=opened.pair.verifier,
        executor=engine.executor.name,
        stages=stages,
        host=HostFit(
            **{key: estimate(values, rng) for key, values in threads.items()},
            event_wake_s=_event_wake(every, synchronous, rng),
            gil_speeds=gil_speeds(races, rng),
            run_spread=run_spread(passes),
        ),
        contention=fit_contention(pairs, stages, rng),
        ceilings=Ceilings(**ceilings) if ceilings else None,
        provenance=Provenance(**provenance, measurements=f"{name}_samples.parquet"),
    )
    marked = [sample | {"pass": i} for i, one in enumerate(passes) for sample in one]
    return profile, marked + [sample | {"pass": -1} for sample in kernels], pairs


class _Ids:
    """Fresh request ids, so that no two measured requests share a cache."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, count: int) -> int:
        first = self._next
        self._next += count
        return first


def _event_wake(samples: Samples, synchronous: bool, rng: np.random.Generator) -> Estimate:
    """From the end of device work to the waiting thread running. A batched stage's own host time
    includes it already (`stage_fits.exposed_host_s`)."""
    if not synchronous:
        return Estimate(value=0.0, low=0.0, high=0.0)
    return estimate([sample["wait_s"] for sample in samples], rng)


def _race(opened: Opened, plan: Plan, threads: int, seed: int) -> list[dict[str, list[float]]]:
    """Race `threads` launching threads, each on a model and a stream of its own.

    A batched stage is one launch that holds the host for a fraction of a millisecond; there,
    threads race at launching small kernels."""
    if opened.engine.executor.synchronous:
        loops = _stage_loops(opened, threads, seed)
    else:
        loops = [host.kernel_loop(opened.device) for _ in range(threads)]
    return host.race(loops, plan.race_seconds, plan.race_rounds)


def _stage_loops(opened: Opened, threads: int, seed: int) -> list[host.Loop]:
    """Verify stage, draft stage and a second draft stage: no two share a model's lock. The third
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


def cache_tokens(pair: Pair, plan: Plan, draft_tokens: int, free_bytes: int | None) -> int:
    """Tokens of KV cache to calibrate with: what the largest point needs, or most of what
    `free_bytes` leaves beside the weights."""
    growth = context_growth(plan.rounds, draft_tokens) + 2 * draft_tokens + 16
    wanted = max(plan.batches) * (max(plan.prompts) + growth)
    if free_bytes is None:
        return wanted
    per_token = pair.draft.kv_bytes_per_token + pair.verifier.kv_bytes_per_token
    fitting = int(CACHE_SHARE * (free_bytes - pair.weight_bytes - RESERVE_BYTES) // per_token)
    return max(1024, min(wanted, fitting))
