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
SPIN_CYCLES = 5_000_000  # about 3 ms: longer than any launch

Blocker = Callable[[Stream], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed launch of a stage; see the module."""

    stage: str
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


def blocker(engine: Any) -> Blocker:
    """A function that keeps one of the engine's streams busy for SPIN_CYCLES."""
    import torch

    def block(stream: Stream) -> None:
        with torch.cuda.stream(engine.device.streams[stream]):
            torch.cuda._sleep(SPIN_CYCLES)

    return block


def finish(engine: Engine, ticket: Ticket) -> None:
    """Wait for a launched stage and settle it."""
    ticket.wait()
    accepted = engine.settle(ticket)
    settle(engine.executor, ticket.stage, ticket.batch, engine.draft_tokens, 0.0, accepted)


def time_stage(
    engine: Engine, stage: Stage, batch: Sequence[Request], block: Blocker | None = None
) -> Sample:
    """Launch `stage` for `batch`, wait, settle, and say how long each part took."""
    work = work_of(engine.executor, stage, batch, engine.draft_tokens)
    if block is not None:
        block(Stream.MAIN)
    started_s = time.perf_counter()
    ticket = engine.launch(stage, batch, Stream.MAIN, ())
    launched_s = time.perf_counter()
    finish(engine, ticket)
    ended_s = time.perf_counter()
    span = ticket.device_span_s() or (launched_s, ended_s)
    return Sample(
        stage,
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
    rounds: int,
    first_id: int,
    seed: int,
    block: Blocker | None = None,
) -> list[dict[str, object]]:
    """Prefill `batch` requests, then run speculative rounds and plain decode steps. With `block`
    every other round, and the prefill of the plain ones, is hidden behind it."""
    executor = engine.executor
    requests = requests_for(engine, batch, prompt_tokens, rounds, first_id, seed)
    samples = [time_stage(engine, stage, requests) for stage in executor.prefill]
    for number in range(rounds):
        hide = block if number % 2 else None
        for stage in executor.speculate + executor.check:
            samples.append(time_stage(engine, stage, requests, hide))  # noqa: PERF401
    for request in requests:
        engine.release(request)
    if block is not None:
        again = requests_for(engine, batch, prompt_tokens, 1, first_id + batch, seed)
        samples += [time_stage(engine, stage, again, block) for stage in executor.prefill]
        for request in again:
            engine.release(request)
    plain = requests_for(engine, batch, prompt_tokens, rounds, first_id + 2 * batch, seed)
    for stage in executor.plain_prefill:
        time_stage(engine, stage, plain)
    for number in range(rounds):
        samples.append(time_stage(engine, Stage.DECODE, plain, block if number % 2 else None))
    for request in plain:
        engine.release(request)
    return [asdict(sample) for sample in samples]


def kernel_seconds(
    engine: Engine, prompt_tokens: int, first_id: int, seed: int
) -> list[dict[str, object]]:
    """Device time of each stage for one request, as the sum of its kernels."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    executor = engine.executor
    requests = requests_for(engine, 1, prompt_tokens, 2, first_id, seed)
    rows = []

    def profiled(stage: Stage, batch: Sequence[Request]) -> None:
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            sample = time_stage(engine, stage, batch)
            torch.cuda.synchronize()
        device_s = sum(e.self_device_time_total for e in profiler.key_averages()) * 1e-6
        rows.append(asdict(sample) | {"device_s": device_s})

    for stage in executor.prefill + executor.speculate + executor.check:
        profiled(stage, requests)
    engine.release(requests[0])
    plain = requests_for(engine, 1, prompt_tokens, 2, first_id + 1, seed)
    for stage in executor.plain_prefill:
        time_stage(engine, stage, plain)
    profiled(Stage.DECODE, plain)
    engine.release(plain[0])
    return rows
