"""Times every stage on an engine, one thread, nothing else running.

A sample is one launch: `launch_s` on the host until the call returned, `wait_s` until the host
knew that the device had finished, `device_s` of device work.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from pdvsim.acceptance import Acceptance
from pdvsim.core import Request, Stage, Stream, query_tokens, settle
from realengine.engine import Engine

# Keeps every round's yield typical; the costs do not depend on which tokens were accepted.
_ACCEPTANCE = 0.7


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed launch of a stage."""

    stage: str
    batch: int
    query_tokens: int
    context_tokens: int
    launch_s: float
    wait_s: float
    device_s: float


def time_stage(engine: Engine, stage: Stage, batch: Sequence[Request]) -> Sample:
    """Launch `stage` for `batch`, wait, settle, and say how long each part took."""
    tokens = query_tokens(engine.executor, stage, batch, engine.draft_tokens)
    context = sum(request.context_tokens for request in batch)
    started_s = time.perf_counter()
    ticket = engine.launch(stage, batch, Stream.MAIN, ())
    launched_s = time.perf_counter()
    ticket.wait()
    ended_s = time.perf_counter()
    span = ticket.device_span_s() or (launched_s, ended_s)
    accepted = engine.settle(ticket)
    settle(engine.executor, stage, batch, engine.draft_tokens, 0.0, accepted)
    return Sample(
        stage,
        len(batch),
        tokens,
        context,
        launched_s - started_s,
        ended_s - launched_s,
        span[1] - span[0],
    )


def requests_for(
    engine: Engine, batch: int, prompt_tokens: int, rounds: int, first_id: int, seed: int
) -> list[Request]:
    """`batch` requests that will not finish within `rounds` rounds."""
    acceptance = Acceptance.constant(_ACCEPTANCE, engine.draft_tokens)
    outcomes = acceptance.draw([rounds] * batch, np.random.default_rng((seed, first_id)))
    output = (rounds + 2) * (engine.draft_tokens + 1)
    return [
        Request(first_id + i, prompt_tokens, output, outcomes=outcomes[i]) for i in range(batch)
    ]


def time_rounds(
    engine: Engine, batch: int, prompt_tokens: int, rounds: int, first_id: int, seed: int
) -> list[dict[str, object]]:
    """Prefill `batch` requests, then run speculative rounds and plain decode steps."""
    executor = engine.executor
    requests = requests_for(engine, batch, prompt_tokens, rounds, first_id, seed)
    samples = [time_stage(engine, stage, requests) for stage in executor.prefill]
    for _ in range(rounds):
        for stage in executor.speculate + executor.check:
            samples.append(time_stage(engine, stage, requests))  # noqa: PERF401
    for request in requests:
        engine.release(request)
    plain = requests_for(engine, batch, prompt_tokens, rounds, first_id + batch, seed)
    for stage in executor.plain_prefill:
        time_stage(engine, stage, plain)
    samples += [time_stage(engine, Stage.DECODE, plain) for _ in range(rounds)]
    for request in plain:
        engine.release(request)
    return [asdict(sample) for sample in samples]


def kernel_seconds(
    engine: Engine, prompt_tokens: int, first_id: int, seed: int
) -> list[dict[str, object]]:
    """Device time of each stage for one request, as the sum of its kernels.

    Launched one by one, kernels leave gaps, so the span between two events says how long the host
    took and not how long the device worked.
    """
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
