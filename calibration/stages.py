"""Times every stage on an engine, one thread, nothing else running.

A sample is one launch: `launch_s` on the host until the call returned, `wait_s` until its tokens
were settled, `device_s` of device work. The synchronous executor's device time comes from its
kernels (`kernel_seconds`): launched one by one they leave gaps. A batched stage is launched twice
as often: once plainly, for the host, and once behind a spinning kernel (`hidden`), so that its
launch is over before the device begins and the span between its events is device work alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pdvsim.acceptance import Acceptance
from pdvsim.core import Request, Stage, Stream, settle
from pdvsim.work import work_of
from realengine.engine import Engine, Ticket

# Keeps every round's yield typical; the costs do not depend on which tokens were accepted.
_ACCEPTANCE = 0.7
SPIN_CYCLES = 5_000_000  # about 3 ms: longer than any launch of a graph

Blocker = Callable[[Stream], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed launch of a stage, of requests with prompts of `prompt_tokens`; see the module."""

    stage: str
    prompt_tokens: int
    passes: int
    batch: int
    longest_new_tokens: int
    chunk_tokens: int
    prompts: int
    new_tokens: int
    context_tokens: int
    prompt_pairs: float
    launch_s: float
    wait_s: float
    device_s: float
    hidden: bool = False


def blocker(engine: Any, spins: int = 1) -> Blocker:
    """A function that keeps one of the engine's streams busy for `spins` times SPIN_CYCLES."""
    import torch

    def block(stream: Stream) -> None:
        with torch.cuda.stream(engine.device.streams[stream]):
            torch.cuda._sleep(spins * SPIN_CYCLES)

    return block


def finish(engine: Engine, ticket: Ticket, drafts: int) -> None:
    """Wait for a launched stage and settle it."""
    ticket.wait()
    accepted = engine.settle(ticket)
    settle(engine.executor, ticket.stage, ticket.batch, drafts, 0.0, accepted)


def time_stage(
    engine: Engine,
    stage: Stage,
    batch: Sequence[Request],
    block: Blocker | None = None,
    draft_tokens: int | None = None,
) -> Sample:
    """Launch `stage` for `batch`, wait, settle, and say how long each part took.

    Args:
        draft_tokens: of the round; None takes the engine's own.
    """
    drafts = engine.draft_tokens if draft_tokens is None else draft_tokens
    work = work_of(engine.executor, stage, batch, drafts)
    if block is not None:
        block(Stream.MAIN)
    started_s = time.perf_counter()
    ticket = engine.launch(stage, batch, Stream.MAIN, (), drafts)
    launched_s = time.perf_counter()
    finish(engine, ticket, drafts)
    ended_s = time.perf_counter()
    span = ticket.device_span_s() or (launched_s, ended_s)
    return Sample(
        stage,
        batch[0].prompt_tokens,
        *work,
        launched_s - started_s,
        ended_s - launched_s,
        span[1] - span[0],
        block is not None,
    )


def requests_for(
    engine: Engine, batch: int, prompt_tokens: int, rounds: int, first_id: int, seed: int
) -> list[Request]:
    """`batch` requests that will not finish within `rounds` rounds."""
    acceptance = Acceptance.constant(_ACCEPTANCE, engine.draft_tokens)
    outcomes = acceptance.draw([rounds] * batch, np.random.default_rng((seed, first_id)))
    output = context_growth(rounds, engine.draft_tokens)
    return [
        Request(first_id + i, prompt_tokens, output, outcomes=outcomes[i]) for i in range(batch)
    ]


def context_growth(rounds: int, draft_tokens: int) -> int:
    """Most output tokens of `rounds` rounds, and two rounds of room."""
    return (rounds + 2) * (draft_tokens + 1)


def time_rounds(
    engine: Engine,
    batch: int,
    prompt_tokens: int,
    lengths: Sequence[int],
    rounds: int,
    first_id: int,
    seed: int,
) -> list[dict[str, object]]:
    """Prefill `batch` requests, then run speculative rounds of each of `lengths`, and plain decode
    steps of other requests."""
    executor = engine.executor
    samples: list[Sample] = []
    for i, length in enumerate(lengths):
        first = first_id + i * batch
        requests = requests_for(engine, batch, prompt_tokens, rounds, first, seed)
        for stage in executor.prefill:
            samples.append(time_stage(engine, stage, requests))  # noqa: PERF401
        for _ in range(rounds):
            for stage in executor.speculate + executor.check:
                samples.append(time_stage(engine, stage, requests, None, length))  # noqa: PERF401
        for request in requests:
            engine.release(request)
    first = first_id + len(lengths) * batch
    plain = requests_for(engine, batch, prompt_tokens, rounds, first, seed)
    for stage in executor.plain_prefill:
        time_stage(engine, stage, plain)
    for _ in range(rounds):
        samples.append(time_stage(engine, Stage.DECODE, plain))  # noqa: PERF401
    for request in plain:
        engine.release(request)
    return [asdict(sample) for sample in samples]


def kernel_seconds(
    engine: Engine, prompt_tokens: int, lengths: Sequence[int], first_id: int, seed: int
) -> list[dict[str, object]]:
    """Device time of each stage for one request, as the sum of its kernels."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    executor = engine.executor
    rows = []

    def profiled(stage: Stage, batch: Sequence[Request], length: int) -> None:
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            sample = time_stage(engine, stage, batch, None, length)
            torch.cuda.synchronize()
        device_s = sum(e.self_device_time_total for e in profiler.key_averages()) * 1e-6
        rows.append(asdict(sample) | {"device_s": device_s})

    for i, length in enumerate(lengths):
        requests = requests_for(engine, 1, prompt_tokens, 2, first_id + i, seed)
        for stage in executor.prefill + executor.speculate + executor.check:
            profiled(stage, requests, length)
        engine.release(requests[0])
    plain = requests_for(engine, 1, prompt_tokens, 2, first_id + len(lengths), seed)
    for stage in executor.plain_prefill:
        time_stage(engine, stage, plain)
    profiled(Stage.DECODE, plain, lengths[0])
    engine.release(plain[0])
    return rows
