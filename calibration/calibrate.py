"""Measures one pair on one machine and fits its profile.

Nothing end to end is measured: stages one at a time on one thread, what threads cost, what
launching threads do to each other, and what stages on two streams do to each other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np

from calibration import host
from calibration.ceilings import measure_ceilings
from calibration.contention import fit_contention, measure_pairs, request_tokens
from calibration.fit import estimate
from calibration.plan import Plan
from calibration.stage_fits import Samples, Sizes, fit_stages, gil_speeds, run_spread
from calibration.stages import (
    Blocker,
    blocker,
    kernel_seconds,
    requests_for,
    time_rounds,
    time_stage,
)
from calibration.trains import measure_host, measure_mixed, measure_prefill, measure_rounds
from pdvsim.core import Stage, Stream
from pdvsim.models import Pair
from pdvsim.profile_file import SCHEMA_VERSION, Ceilings, Estimate, HostFit, ProfileFile, Provenance
from pdvsim.store import Store
from realengine.build import Opened
from realengine.device import physical_index
from realengine.engine import Engine
from realengine.telemetry import memory_bytes

CACHE_SHARE = 0.8
RESERVE_BYTES = 6 << 30  # graphs, workspaces, activations of a long prefill
MOST_CHUNK = 2048
HOST_BATCHES = (1, 2, 8, 32, 64, 128, 256)

T = TypeVar("T")


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
    steps = _Steps(store, on_step)
    if synchronous:
        _plan_eager(steps, opened, plan, seed)
    else:
        _plan_batched(steps, opened, plan, most_tokens)
    steps.add("wake", host.wake_seconds, list[float])
    steps.add("lock_wake", host.lock_wake_seconds, list[float])
    steps.add("poll", host.poll_overhead_seconds, list[float])
    for n in (2, 3):
        race = partial(_race, opened, plan, n, seed)
        steps.add(f"race-{n}", race, list[dict[str, list[float]]])
    if cuda:
        steps.add("ceilings", partial(measure_ceilings, opened.device), dict[str, float])
    found = steps.run(engine)

    def of(kind: str) -> Samples:
        return [row for key, rows in found.items() if key.startswith(kind) for row in rows]

    passes = [of(f"rounds-{number}-") for number in range(plan.passes)]
    kernels, pairs = of("kernels-"), of("beside-")
    every = [sample for one in passes for sample in one]
    rng = np.random.default_rng(seed)
    stages = fit_stages(every, kernels, engine.executor, _sizes(engine), cuda, rng)
    threads = {
        "wake_s": found["wake"],
        "lock_wake_s": found["lock_wake"],
        "poll_overhead_s": found["poll"],
    }
    ceilings = found.get("ceilings")
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
            gil_speeds=gil_speeds([found[f"race-{n}"] for n in (2, 3)], rng),
            run_spread=run_spread(passes),
        ),
        contention=fit_contention(pairs, stages, rng),
        ceilings=Ceilings(**ceilings) if ceilings else None,
        provenance=Provenance(**provenance, measurements=f"{name}_samples.parquet"),
        gpu_bytes=memory_bytes(physical_index(opened.device)) if cuda else None,
    )
    marked = [sample | {"pass": i} for i, one in enumerate(passes) for sample in one]
    return profile, marked + [sample | {"pass": -1} for sample in kernels], pairs


class _Steps:
    """Measurements to take, each kept in a store once it is there."""

    def __init__(self, store: Store, on_step: Callable[[int], None]) -> None:
        self._store, self._on_step = store, on_step
        self._wanted: dict[str, tuple[Callable[[], Any], Any]] = {}
        self.first: list[Callable[[], object]] = []  # what pays for first use, each time anew

    def add(self, key: str, measurement: Callable[[], T], kind: type[T]) -> None:
        self._wanted[key] = measurement, kind

    def run(self, engine: Engine) -> dict[str, Any]:
        engine.start()
        for each in self.first:
            each()
        found = {}
        for key, (measurement, kind) in self._wanted.items():
            found[key] = self._store.measure(key, measurement, kind)
            self._on_step(len(self._wanted))
        return found


def _plan_eager(steps: _Steps, opened: Opened, plan: Plan, seed: int) -> None:
    engine, ids = opened.engine, _Ids()
    lengths = tuple(length for length in plan.lengths if length <= engine.draft_tokens)
    lengths = lengths or (engine.draft_tokens,)
    count = len(lengths) + 1
    for number in range(plan.passes):
        for prompt in plan.prompts:
            first = ids.take(count)
            if not number:
                fresh = ids.take(count)
                once = partial(time_rounds, engine, 1, prompt, lengths, 2, fresh, seed)
                steps.first.append(once)
            steps.add(
                f"rounds-{number}-{prompt}",
                partial(time_rounds, engine, 1, prompt, lengths, plan.rounds, first, seed),
                Samples,
            )
    if opened.device.type == "cuda":
        for prompt in plan.prompts:
            measured = partial(kernel_seconds, engine, prompt, lengths, ids.take(count), seed)
            steps.add(f"kernels-{prompt}", measured, Samples)


def _plan_batched(steps: _Steps, opened: Opened, plan: Plan, most_tokens: int) -> None:
    """Trains of rounds, prefills and mixed passes, twice over, what the host adds, and stages side
    by side."""
    engine, ids = opened.engine, _Ids()
    cuda = opened.device.type == "cuda"
    block, long_block = (blocker(engine, spins) if cuda else None for spins in (1, 5))
    most_context = min(decoder.longest_context_tokens for decoder in opened.pair.decoders)
    points = plan.points(most_tokens, most_context)
    prefills = plan.prefill_points(most_tokens, most_context)
    chunk = min(MOST_CHUNK, most_context - 128)
    drafts = engine.draft_tokens if engine.executor.speculate else 0

    for number in range(plan.passes):

        def add(
            kind: str, measurement: Callable[..., Samples], *given: Any, number: int = number
        ) -> None:
            steps.add(f"rounds-{number}-{kind}", partial(measurement, engine, *given), Samples)

        for at in points:
            given = at.batch, at.prompt_tokens, at.lengths, plan.rounds
            name = f"{at.prompt_tokens}-{at.batch}"
            add(f"train-{name}", measure_rounds, *given, ids.take(at.batch), block)
            if cuda and at.batch in HOST_BATCHES:
                add(f"host-{name}", measure_host, *given, ids.take(at.batch))
        for batch, tokens in prefills:
            add(
                f"prefill-{batch}-{tokens}",
                measure_prefill,
                *(batch, tokens, plan.rounds, ids.take(batch * (plan.rounds + 1)), block),
            )
        for i, one in enumerate(plan.mixed_points(most_context, chunk)):
            prompt = one.prompt_tokens
            if one.batch * (prompt + plan.growth) + chunk + one.cached_tokens > most_tokens:
                prompt = plan.prompts[0]
            given_ = one.batch, drafts, one.chunk_tokens, one.cached_tokens, prompt, plan.rounds
            add(f"mixed-{i}", measure_mixed, *given_, ids.take(one.batch + 1), long_block)
        if block is not None and not number:
            _plan_beside(steps, engine, plan, most_tokens, ids, block)


def _plan_beside(
    steps: _Steps, engine: Engine, plan: Plan, most_tokens: int, ids: _Ids, block: Blocker
) -> None:
    for at in plan.beside:
        room = (most_tokens - at.prompt_tokens) // request_tokens(at.draft_tokens)
        if 2 * at.batch <= min(room, max(plan.batches)):
            steps.add(
                f"beside-{at.batch}-{at.draft_tokens}-{at.prompt_tokens}",
                partial(measure_pairs, engine, at, ids.take(100_000), block),
                Samples,
            )


class _Ids:
    """Fresh request ids, so that no two measured requests share a cache."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, count: int) -> int:
        first = self._next
        self._next += count
        return first


def _sizes(engine: Any) -> Sizes:
    """What the engine pads to; an eager one, or one on the CPU, nothing."""
    found = getattr(engine, "sizes", None)
    if found is None:
        return Sizes()
    return Sizes(
        found.batches,
        found.prefill_tokens,
        tuple(sorted({batch for _, batch, _ in found.mixed})),
        tuple(sorted({rows for rows, _, _ in found.mixed})),
    )


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


def cache_tokens(pair: Pair, plan: Plan, free_bytes: int | None) -> int:
    """Tokens of KV cache to calibrate with: what the largest point needs, or most of what
    `free_bytes` leaves beside the weights."""
    reach = min(decoder.longest_context_tokens for decoder in pair.decoders)
    points = plan.points(1 << 60, reach)
    wanted = max(point.batch * (point.prompt_tokens + plan.growth) for point in points)
    wanted = max(wanted, *(b * (t + 32) for b, t in plan.prefill_points(1 << 60, reach)), 1024)
    if free_bytes is None:
        return wanted + 4096
    per_token = pair.draft.kv_bytes_per_token + pair.verifier.kv_bytes_per_token
    fitting = int(CACHE_SHARE * (free_bytes - pair.weight_bytes - RESERVE_BYTES) // per_token)
    return max(1024, min(wanted + 4096, fitting))
