"""Three lanes: prefill, decode (drafts only) and verify, one thread and one stream each.

Requests hop decode -> verify -> decode through priority queues, oldest first. Idle lanes sleep.
The decode lane helps out when the verify queue runs ahead of its own; with at most one request
in service it drafts and verifies in one step (hybrid mode) and saves the hops.
"""

from dataclasses import dataclass

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
    Lanes,
    PollUntil,
    PriorityQueue,
    Program,
    Put,
    Take,
    decode_round,
    pass_on,
    prefill,
    run_stages,
    streams_of,
)
from pdvsim.core import Stream

ROUND = streams_of(draft=Stream.DRAFT, verifier=Stream.VERIFY)
CHECK = streams_of(draft=Stream.VERIFY, verifier=Stream.VERIFY)
MICRO_BATCH = "verify micro-batch"


@dataclass(frozen=True, slots=True)
class Parameters:
    prefill_batch: int = parameter(1, 1, 100_000, "prompts prefilled in one stage")
    idle_sleep_s: float = parameter(1e-3, 1e-6, 1.0, "sleep of an idle lane, seconds")
    verify_batch: int = parameter(8, 1, 100_000, "micro-batch of the verify lane")
    verify_batch_backlogged: int = parameter(12, 1, 100_000, "the same when it is backlogged")
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


def prefill_lane(lanes: Lanes) -> Program:
    parameters = lanes.parameters
    while True:
        yield PollUntil(lambda: admits(lanes), parameters.idle_sleep_s)
        batch = yield Take(lanes.prefill, parameters.prefill_batch)
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
            yield from decode_round(lanes, batch, ROUND)
            yield from pass_on(lanes, batch)
        else:
            yield from run_stages(lanes, lanes.executor.speculate, batch, ROUND)
            yield Put(lanes.verify, batch)


def verify_turn(lanes: Lanes) -> Program:
    """Verify one micro-batch and send its requests back to the decode lane."""
    own = lanes.parameters
    limit = own.verify_batch_backlogged if verify_goes_first(lanes) else own.verify_batch
    batch = yield Take(lanes.verify, limit)
    for part in lanes.parts(batch):
        yield from run_stages(lanes, lanes.executor.check, part, CHECK)
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
    switches={
        MICRO_BATCH: Switch(
            {"verify_batch": 100_000, "verify_batch_backlogged": 100_000},
            lambda config, in_flight: in_flight > config.parameters["verify_batch"],
        ),
        BATCH_END: Switch(acts=lambda config, in_flight: not config.executor.batched),
        POLLING: Switch({"idle_sleep_s": 1e-6}),
    },
    queue_type=PriorityQueue,
    colour="#009e73",
)
