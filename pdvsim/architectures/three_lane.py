"""Three lanes: prefill, decode (drafts only) and verify, one thread and one stream each.

Requests hop decode -> verify -> decode through priority queues, oldest first. Idle lanes sleep.
The decode lane helps out when the verify queue runs ahead of its own; with at most one request
in service it drafts and verifies in one step (hybrid mode) and saves the hops.
"""

from pdvsim.architectures.lane import (
    Lanes,
    PollUntil,
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


def verify_goes_first(lanes: Lanes) -> bool:
    return len(lanes.verify) > len(lanes.decode) + lanes.config.verify_lead


def prefill_lane(lanes: Lanes) -> Program:
    config = lanes.config
    while True:
        yield PollUntil(
            lambda: lanes.admissible and len(lanes.decode) < config.queue_limit, config.idle_sleep_s
        )
        batch = yield Take(lanes.prefill, config.prefill_batch)
        yield from prefill(lanes, batch)
        yield from pass_on(lanes, batch)


def decode_lane(lanes: Lanes) -> Program:
    while True:
        yield PollUntil(lambda: lanes.decode or verify_goes_first(lanes), lanes.config.idle_sleep_s)
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
    config = lanes.config
    limit = config.verify_batch_backlogged if verify_goes_first(lanes) else config.verify_batch
    batch = yield Take(lanes.verify, limit)
    for part in lanes.parts(batch):
        yield from run_stages(lanes, lanes.executor.check, part, CHECK)
        yield from pass_on(lanes, part)


def verify_lane(lanes: Lanes) -> Program:
    while True:
        yield PollUntil(lambda: lanes.verify, lanes.config.idle_sleep_s)
        yield from verify_turn(lanes)


def programs(lanes: Lanes) -> dict[str, Program]:
    return {
        "prefill": prefill_lane(lanes),
        "decode": decode_lane(lanes),
        "verify": verify_lane(lanes),
    }
