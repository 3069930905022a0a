"""Times the stages of a batched engine at full speed, and what the host adds to them.

A *train* is stages launched one after the other without a pause, so that the device never waits for
the host: its clock is that of a busy engine (an H100 at its power limit goes from 1,980 to 1,700
MHz), and a span between events is device work alone. Nothing is settled on the way: every
draft is rejected, which changes no cost, and each verify or decode step moves a request on by one
token. Launches that are waited for, one by one, say what the host adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from calibration.stages import Blocker, Sample, time_stage
from pdvsim.core import Request, Stage, Stream
from pdvsim.work import contexts_of, work_of
from realengine.engine import Engine

Samples = list[dict[str, Any]]
# Stages of a train, with the number of drafts of the round.
Chain = Sequence[tuple[Stage, int]]

_CHECKS = (Stage.VERIFY, Stage.DECODE)


def quiet_requests(
    first_id: int, batch: int, prompt_tokens: int, output_tokens: int
) -> list[Request]:
    """Requests whose every draft is rejected."""
    return [
        Request(first_id + i, prompt_tokens, output_tokens, outcomes=[0] * output_tokens)
        for i in range(batch)
    ]


def train(
    engine: Engine, requests: Sequence[Request], chain: Chain, block: Blocker | None, grown: int = 0
) -> Samples:
    """Run `chain` for `requests`; a sample of each launch. Without a blocker, as on a CPU, each is
    waited for and settled.

    Args:
        grown: tokens by which each request is longer than it knows, from earlier trains.
    """
    if block is None:
        return [asdict(time_stage(engine, stage, requests, None, g)) for stage, g in chain]
    block(Stream.MAIN)
    launched, prompt = [], requests[0].prompt_tokens
    context = contexts_of(requests) + grown * len(requests)
    for stage, drafts in chain:
        work = work_of(engine.executor, stage, requests, drafts, context)
        launched.append((work, engine.launch(stage, requests, Stream.MAIN, (), drafts)))
        if stage in _CHECKS:
            context += len(requests)
    samples = []
    for work, ticket in launched:
        ticket.wait()
        start_s, end_s = ticket.device_span_s() or (0.0, 0.0)
        sample = Sample(ticket.stage, prompt, *work, 0.0, 0.0, end_s - start_s, True)
        samples.append(asdict(sample))
    return samples


def measure_rounds(
    engine: Engine,
    batch: int,
    prompt_tokens: int,
    lengths: Sequence[int],
    rounds: int,
    first_id: int,
    block: Blocker | None,
) -> Samples:
    """Rounds of each of `lengths`, and decode steps, for `batch` requests. The first of each train
    pays for what the one before left behind, and is left out."""
    executor = engine.executor
    stages = executor.speculate + executor.check
    speculative = bool(executor.speculate)
    output = (rounds + 1) * (len(lengths) + 1) + 2 * max(lengths) + 2
    requests = quiet_requests(first_id, batch, prompt_tokens, output)
    samples = [asdict(time_stage(engine, stage, requests)) for stage in executor.prefill]
    grown, checks = 0, len([stage for stage in stages if stage in _CHECKS])
    for length in lengths if speculative else ():
        chain = [(stage, length) for stage in stages] * (rounds + 1)
        samples += train(engine, requests, chain, block, grown)[len(stages) :]
        grown += checks * (rounds + 1) if block else 0
    steps = [(Stage.DECODE, lengths[0])] * (rounds + 1)
    samples += train(engine, requests, steps, block, grown)[1:]
    _release(engine, requests)
    return samples


def measure_host(
    engine: Engine,
    batch: int,
    prompt_tokens: int,
    lengths: Sequence[int],
    rounds: int,
    first_id: int,
) -> Samples:
    """The same, each launch waited for and settled before the next."""
    executor = engine.executor
    output = rounds * (len(lengths) + 1) + 2 * max(lengths) + 2
    requests = quiet_requests(first_id, batch, prompt_tokens, output)
    samples = [asdict(time_stage(engine, stage, requests)) for stage in executor.prefill]
    stages = executor.speculate + executor.check
    chain = [(stage, length) for length in lengths for _ in range(rounds) for stage in stages]
    chain = [*(chain if executor.speculate else ()), *[(Stage.DECODE, lengths[0])] * rounds]
    samples += [asdict(time_stage(engine, stage, requests, None, g)) for stage, g in chain]
    _release(engine, requests)
    return samples


def measure_prefill(
    engine: Engine,
    batch: int,
    prompt_tokens: int,
    repeats: int,
    first_id: int,
    block: Blocker | None,
) -> Samples:
    """Prefills of `batch` prompts again and again: on the same pages, the first left out. Then of
    new requests, which enter with their first stage, as users have it."""
    executor = engine.executor
    samples: Samples = []
    if block is not None:
        requests = quiet_requests(first_id, batch, prompt_tokens, 2)
        for stage in executor.prefill:
            samples += train(engine, requests, [(stage, 1)] * (repeats + 1), block)[1:]
        _release(engine, requests)
    for turn in range(1, repeats + 1):
        requests = quiet_requests(first_id + turn * batch, batch, prompt_tokens, 2)
        samples += [asdict(time_stage(engine, stage, requests)) for stage in executor.prefill]
        _release(engine, requests)
    return samples


def measure_mixed(
    engine: Engine,
    batch: int,
    drafts: int,
    chunk_tokens: int,
    cached_tokens: int,
    prompt_tokens: int,
    repeats: int,
    first_id: int,
    block: Blocker | None,
) -> Samples:
    """Mixed passes of `batch` requests in rounds and a chunk of one prompt, of which
    `cached_tokens` were taken in before; every other one behind the blocker."""
    executor = engine.executor
    rounds = quiet_requests(first_id, batch, prompt_tokens, repeats + drafts + 4)
    for stage in executor.prefill if rounds else ():
        time_stage(engine, stage, rounds)
    prompt = Request(first_id + batch, cached_tokens + chunk_tokens, 2, outcomes=[0, 0])

    def once(hide: bool) -> dict[str, Any]:
        if executor.prefill == executor.plain_prefill:
            engine.release(prompt)  # no draft's prefill comes before: it enters with the pass
        prompt.prefilled_tokens, prompt.chunk_tokens = cached_tokens, chunk_tokens
        prompt.produced_tokens = 0
        prompt.tokens.clear()
        behind = block if hide else None
        return asdict(time_stage(engine, Stage.MIXED, [*rounds, prompt], behind, drafts))

    once(False)  # pays for first use
    samples = [once(block is not None and turn % 2 == 0) for turn in range(repeats)]
    _release(engine, [*rounds, prompt])
    return samples


def _release(engine: Engine, requests: Sequence[Request]) -> None:
    for request in requests:
        engine.release(request)
