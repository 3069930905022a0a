"""Continuous batching: rounds and chunks of prompts share passes under a token budget.

What serving engines do today (vLLM, SGLang); chunked prefill is Sarathi-Serve's (arXiv 2403.02310).
One lane: a pass takes a round of every request in service first, then as much of waiting prompts as
the budget leaves. A prompt that does not fit goes on in the next pass, and a request whose prompt
has ended is in the next round. Requests move on as soon as their pass has ended.

An executor that runs one request at a time mixes nothing: there, prompts are prefilled whole, as
many a turn as the budget admits, and each request's round follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pdvsim.architectures.architecture import Architecture, LaneSketch, Switch, Work, parameter
from pdvsim.architectures.lane import (
    ADMISSION_LIMIT,
    Lanes,
    Program,
    Take,
    WaitUntil,
    complete,
    decode_round,
    decode_rounds,
    mixed_pass,
    prefill,
    streams_of,
)
from pdvsim.core import Drafter, Request, Stream, unfinished

MAIN = streams_of(draft=Stream.MAIN, verifier=Stream.MAIN)


@dataclass(frozen=True, slots=True)
class Parameters:
    token_budget: int = parameter(2048, 1, 1_000_000, "new tokens of a pass, of rounds and prompts")
    stagger: int = parameter(
        1, 1, 1000, "a pass with rounds takes one of so many waiting prompts, and at least one"
    )


def admits(lanes: Lanes) -> bool:
    return lanes.active < lanes.service_limit and lanes.admissible


def worker(lanes: Lanes) -> Program:
    drafts = lanes.executor.drafter is not Drafter.NONE
    round_tokens = 1 + drafts * lanes.config.draft_tokens
    budget = lanes.parameters.token_budget
    most_rounds = max(1, min(lanes.batch_cap, budget // round_tokens))
    running: list[Request] = []  # their prompts have been prefilled
    joining: list[Request] = []
    while True:
        yield WaitUntil(lambda: running or joining or admits(lanes))
        rounds = running[:most_rounds]
        left = budget - round_tokens * len(rounds)
        unread = sum(request.prompt_tokens - request.prefilled_tokens for request in joining)
        waiting = len(joining) + len(lanes.prefill)
        most = -(-waiting // lanes.parameters.stagger) if rounds else waiting
        while unread < left and len(joining) < most and admits(lanes):
            new = yield Take(lanes.prefill, 1)
            joining.extend(new)
            unread += sum(request.prompt_tokens for request in new)
        if lanes.executor.batched:
            yield from one_pass(lanes, rounds, joining[:most], left)
        elif joining:
            yield from prefill(lanes, joining, MAIN)
            yield from decode_round(lanes, rounds, MAIN)
        else:
            yield from decode_rounds(lanes, rounds, MAIN)
        yield from complete((*running, *joining))
        joined = [one for one in joining if through(lanes, one)]
        joining[:] = unfinished([one for one in joining if not through(lanes, one)])
        running[:] = unfinished([*running, *joined])


def through(lanes: Lanes, request: Request) -> bool:
    """Whether all of its prompt has been prefilled."""
    return not lanes.executor.batched or request.prefilled_tokens == request.prompt_tokens


def one_pass(
    lanes: Lanes, rounds: Sequence[Request], joining: Sequence[Request], left: int
) -> Program:
    """A round for `rounds`, with up to `left` tokens of prompts if there are any, in order."""
    prompts = []
    for request in joining:
        if left <= 0:
            break
        request.chunk_tokens = min(left, request.prompt_tokens - request.prefilled_tokens)
        left -= request.chunk_tokens
        prompts.append(request)
    if prompts:
        yield from mixed_pass(lanes, rounds, prompts, MAIN)
    else:
        yield from decode_rounds(lanes, rounds, MAIN)


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
            {Work.PREFILL: Stream.MAIN, Work.DRAFT: Stream.MAIN, Work.VERIFY: Stream.MAIN},
            ("running",),
        ),
    ),
    parameters=Parameters,
    switches={ADMISSION_LIMIT: Switch(acts=lambda config, in_flight: in_flight > config.batch_cap)},
    colour="#56b4e9",
)
