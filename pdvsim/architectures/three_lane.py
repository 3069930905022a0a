"""Three lanes: prefill, decode (drafts only) and verify, one thread and one stream each.

Requests hop decode -> verify -> decode through priority queues, oldest first. Idle lanes sleep.
The decode lane helps out when the verify queue runs ahead of its own; with at most one request
in service it drafts and verifies in one step (hybrid mode) and saves the hops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pdvsim.architectures.architecture import (
    Architecture,
    LaneSketch,
    Switch,
    Work,
    parameter,
)
from pdvsim.architectures.lane import (
    BATCH_END,
    POLLING,
    PREFILL_BATCH,
    Lanes,
    PollUntil,
    PriorityQueue,
    Program,
    Put,
    Run,
    Take,
    decode_rounds,
    pass_on,
    prefill,
    streams_of,
)
from pdvsim.cell_values import AUTO, Auto
from pdvsim.core import Stream

if TYPE_CHECKING:
    from pdvsim.architectures.config import Config

ROUND = streams_of(draft=Stream.DRAFT, verifier=Stream.VERIFY)
CHECK = streams_of(draft=Stream.VERIFY, verifier=Stream.VERIFY)
MICRO_BATCH = "verify micro-batch"
PUBLISHED_VERIFY_BATCH = 8  # of a system that launches one request after the other


@dataclass(frozen=True, slots=True)
class Parameters:
    prefill_batch: int | Auto = parameter(AUTO, 1, 100_000, PREFILL_BATCH)
    idle_sleep_s: float = parameter(1e-3, 1e-6, 1.0, "sleep of an idle lane, seconds")
    verify_batch: int | Auto = parameter(
        AUTO,
        1,
        100_000,
        "micro-batch of the verify lane (published 8); auto: up to C where one pass takes them all",
    )
    verify_batch_backlogged: int | Auto = parameter(
        AUTO, 1, 100_000, "the same when it is backlogged (published 12); auto: half as many again"
    )
    verify_lead: int = parameter(
        2, 0, 100_000, "verify goes first when its queue is longer than decode's by more than this"
    )
    queue_limit: int = parameter(
        1024, 1, 10_000_000, "nothing is admitted while the decode queue is this long"
    )


def admits(lanes: Lanes) -> bool:
    limit: int = lanes.parameters.queue_limit
    return len(lanes.decode) < limit and lanes.admissible


def verify_goes_first(lanes: Lanes) -> bool:
    lead: int = lanes.parameters.verify_lead
    return len(lanes.verify) > len(lanes.decode) + lead


def verify_limit(lanes: Lanes) -> int:
    """Requests of the next micro-batch, at most."""
    usual: int | Auto = lanes.parameters.verify_batch
    backlogged: int | Auto = lanes.parameters.verify_batch_backlogged
    if usual == AUTO:
        usual = lanes.batch_cap if lanes.executor.batched else PUBLISHED_VERIFY_BATCH
    if not verify_goes_first(lanes):
        return usual
    return usual + usual // 2 if backlogged == AUTO else backlogged


def micro_batches(config: Config, in_flight: float) -> bool:
    """Whether what waits to be verified is ever more than a micro-batch."""
    asked = config.parameters["verify_batch"]
    if asked == AUTO:
        return not config.executor.batched and in_flight > PUBLISHED_VERIFY_BATCH
    return bool(in_flight > asked)


def prefill_lane(lanes: Lanes) -> Program:
    parameters = lanes.parameters
    while True:
        yield PollUntil(lambda: admits(lanes), parameters.idle_sleep_s)
        batch = yield lanes.prompts()
        yield from prefill(lanes, batch)
        yield from pass_on(lanes, batch)


def decode_lane(lanes: Lanes) -> Program:
    idle_sleep_s = lanes.parameters.idle_sleep_s
    while True:
        yield PollUntil(lambda: lanes.decode or verify_goes_first(lanes), idle_sleep_s)
        if verify_goes_first(lanes):
            yield from verify_turn(lanes)
            continue
        batch = yield Take(lanes.decode, lanes.turn_limit)
        if lanes.active <= 1:
            yield from decode_rounds(lanes, batch, ROUND, lanes.decode)
            yield from pass_on(lanes, batch)
        else:
            yield Run(lanes.executor.speculate, batch, ROUND)
            yield Put(lanes.verify, batch)


def verify_turn(lanes: Lanes) -> Program:
    """Verify one micro-batch and send its requests back to the decode lane."""
    batch = yield Take(lanes.verify, verify_limit(lanes))
    for part in lanes.parts(batch):
        yield Run(lanes.executor.check, part, CHECK)
        yield from pass_on(lanes, part)


def verify_lane(lanes: Lanes) -> Program:
    while True:
        yield PollUntil(lambda: lanes.verify, lanes.parameters.idle_sleep_s)
        yield from verify_turn(lanes)


def programs(lanes: Lanes) -> dict[str, Program]:
    return {
        "prefill": prefill_lane(lanes),
        "decode": decode_lane(lanes),
        "verify": verify_lane(lanes),
    }


ARCHITECTURE = Architecture(
    "three_lane",
    "Three threads prefill, draft and verify; requests hop between them through queues, oldest "
    "first, and idle threads sleep a millisecond.",
    programs,
    admits,
    (
        LaneSketch("prefill", ("prefill",), {Work.PREFILL: Stream.PREFILL}, ("decode",)),
        LaneSketch("decode", ("decode",), {Work.DRAFT: Stream.DRAFT}, ("verify",)),
        LaneSketch("verify", ("verify",), {Work.VERIFY: Stream.VERIFY}, ("decode",)),
    ),
    parameters=Parameters,
    published={"prefill_batch": 1, "verify_batch": 8, "verify_batch_backlogged": 12},
    switches={
        MICRO_BATCH: Switch(
            {"verify_batch": 100_000, "verify_batch_backlogged": 100_000},
            micro_batches,
        ),
        BATCH_END: Switch(acts=lambda config, in_flight: not config.executor.batched),
        POLLING: Switch({"idle_sleep_s": 1e-6}),
    },
    queue_type=PriorityQueue,
    colour="#009e73",
)
