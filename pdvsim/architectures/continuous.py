"""Continuous batching: rounds and chunks of prompts share passes under a token budget.

What serving engines do today (vLLM, SGLang); chunked prefill is Sarathi-Serve's (arXiv 2403.02310).
One lane: a pass takes a round of every request in service first, then as much of waiting prompts as
the budget leaves. A prompt that does not fit goes on in the next pass, and a request whose prompt
has ended is in the next round. Requests move on as soon as their pass has ended.

What follows a pass is launched before the host knows how it ended, so that the device need not wait
for that: drafts of the next round, which are lost for a request that is done; or without a drafter,
the next pass if nobody can be done and nobody waits. Who comes meanwhile is in the one behind. A
draft model reads chunks of prompts on a stream of its own, beside the drafts that run already.

An executor that runs one request at a time mixes nothing: there, prompts are prefilled whole, as
many a turn as the budget admits, and each request's round follows.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from pdvsim.architectures.architecture import Architecture, LaneSketch, Switch, Work, parameter
from pdvsim.architectures.lane import (
    ADMISSION_LIMIT,
    Lanes,
    Launch,
    Program,
    Take,
    Verb,
    Wait,
    WaitUntil,
    complete,
    decode_round,
    decode_rounds,
    prefill,
    streams_of,
)
from pdvsim.core import Drafter, Model, Request, Stage, Stream, unfinished

MAIN = streams_of(draft=Stream.MAIN, verifier=Stream.MAIN)
Events = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Parameters:
    token_budget: int = parameter(2048, 1, 1_000_000, "new tokens of a pass, of rounds and prompts")


def admits(lanes: Lanes) -> bool:
    return lanes.active < lanes.service_limit and lanes.admissible


def worker(lanes: Lanes) -> Program:
    return passes(lanes) if lanes.executor.batched else turns(lanes)


def passes(lanes: Lanes) -> Program:
    """Each for `ready`: those whose next round has its drafts, if it needs any, and prompts."""
    executor, most_rounds = lanes.executor, most_at_once(lanes)
    draft_prefill = [stage for stage in executor.prefill if stage.model is Model.DRAFT]
    running: list[Request] = []  # their prompts have been prefilled
    joining: list[Request] = []
    ready: list[Request] = []
    drafts: Events = ()
    passing: Events = ()
    while True:
        if not (running or joining):
            yield WaitUntil(lambda: admits(lanes))
        joined: list[Request] = []
        if not passing:
            rounds = unfinished(ready)
            if running and not rounds:
                rounds = running[:most_rounds]
                drafts = yield from launched(executor.speculate, rounds, drafts)
            prompts = yield from cut(lanes, joining, rounds)
            if not (rounds or prompts):  # waiting has ended for nothing
                continue
            joined = [one for one in prompts if unread(one) == one.chunk_tokens]
            check = Stage.MIXED if prompts else executor.settles_round
            read = yield from launched(draft_prefill, prompts, (), Stream.PREFILL)
            passing = yield from launched([check], [*rounds, *prompts], (*drafts, *read))
        ready = [*running, *joined][:most_rounds]
        ends, passing = passing, ()
        if executor.speculate:
            drafts = yield from launched(executor.speculate, ready, ends)
        elif len(ready) == len(running) + len(joining) and all_stay(lanes, ready):
            passing = yield from launched(executor.check, ready, ends)
        yield Wait(ends[0])
        yield from complete((*running, *joining))
        running = unfinished([*running, *joined])
        joining = unfinished([one for one in joining if unread(one)])


def all_stay(lanes: Lanes, batch: Sequence[Request]) -> bool:
    """Whether the pass behind one that yields a token to all of `batch` is for just the same."""
    if admits(lanes):
        return False
    return all(one.output_tokens - one.produced_tokens > 1 for one in batch)


def turns(lanes: Lanes) -> Program:
    """Of an executor that runs one request after the other: prompts whole, then a round of all."""
    running: list[Request] = []
    while True:
        if not running:
            yield WaitUntil(lambda: admits(lanes))
        rounds, new = running[: most_at_once(lanes)], list[Request]()
        yield from join(lanes, new, rounds)
        if not (rounds or new):
            continue
        if new:
            yield from prefill(lanes, new, MAIN)
            yield from decode_round(lanes, rounds, MAIN)
        else:
            yield from decode_rounds(lanes, rounds, MAIN)
        yield from complete((*running, *new))
        running = unfinished([*running, *new])


def round_tokens(lanes: Lanes) -> int:
    """New tokens of one request's round."""
    return 1 if lanes.executor.drafter is Drafter.NONE else 1 + lanes.config.draft_tokens


def most_at_once(lanes: Lanes) -> int:
    """Rounds that a pass holds."""
    budget: int = lanes.parameters.token_budget
    return max(1, min(lanes.batch_cap, budget // round_tokens(lanes)))


def unread(request: Request) -> int:
    """Tokens of its prompt that are still to be prefilled."""
    return request.prompt_tokens - request.prefilled_tokens


def launched(
    stages: Sequence[Stage], batch: Sequence[Request], after: Events, stream: Stream = Stream.MAIN
) -> Generator[Verb, Any, Events]:
    """Launch `stages` for `batch` in a chain behind `after`. Returns what the next is behind."""
    for stage in stages if batch else ():
        after = ((yield Launch(stage, batch, stream, after)),)
    return after


def join(
    lanes: Lanes, joining: list[Request], rounds: Sequence[Request]
) -> Generator[Verb, Any, int]:
    """Let waiting requests join, as many as the budget beside `rounds` has a use for. Returns the
    tokens that these leave of it."""
    budget: int = lanes.parameters.token_budget
    left = budget - round_tokens(lanes) * len(rounds)
    tokens = sum(map(unread, joining))
    while tokens < left and admits(lanes):
        new = yield Take(lanes.prefill, 1)
        joining.extend(new)
        tokens += sum(map(unread, new))
    return left


def cut(
    lanes: Lanes, joining: list[Request], rounds: Sequence[Request]
) -> Generator[Verb, Any, list[Request]]:
    """Cut what the budget leaves off the prompts of those that join, in order. Returns the
    requests that a chunk is taken of."""
    left = yield from join(lanes, joining, rounds)
    prompts = []
    for request in joining:
        if left <= 0:
            break
        request.chunk_tokens = min(left, unread(request))
        left -= request.chunk_tokens
        prompts.append(request)
    return prompts


def programs(lanes: Lanes) -> dict[str, Program]:
    return {"worker": worker(lanes)}


ARCHITECTURE = Architecture(
    "continuous",
    "One thread: each pass takes a round of all in service and chunks of waiting prompts together, "
    "under a token budget, as vLLM and SGLang do.",
    programs,
    admits,
    (
        LaneSketch(
            "worker",
            ("prefill", "running"),
            {Work.PREFILL: Stream.PREFILL, Work.DRAFT: Stream.MAIN, Work.VERIFY: Stream.MAIN},
            ("running",),
        ),
    ),
    parameters=Parameters,
    switches={ADMISSION_LIMIT: Switch(acts=lambda config, in_flight: in_flight > config.batch_cap)},
    colour="#56b4e9",
)
