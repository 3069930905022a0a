"""PD, two lanes: a prefill thread and a decode thread that drafts and verifies.

The prefill lane admits while fewer than C requests are in service. A request goes back to the
decode queue, or completes, as soon as its own round is done.
"""

from pdvsim.architectures.lane import (
    Lanes,
    Program,
    Take,
    WaitUntil,
    decode_round,
    pass_on,
    prefill,
    streams_of,
)
from pdvsim.core import Stream

ROUND = streams_of(draft=Stream.MAIN, verifier=Stream.MAIN)


def prefill_lane(lanes: Lanes) -> Program:
    while True:
        yield WaitUntil(
            lambda: lanes.admissible and lanes.active < lanes.service_limit,
            lanes.config.wait_timeout_s,
        )
        if lanes.active >= lanes.service_limit:
            continue
        free = lanes.service_limit - lanes.active
        batch = yield Take(lanes.prefill, min(lanes.config.prefill_batch, free))
        yield from prefill(lanes, batch)
        yield from pass_on(lanes, batch)


def decode_lane(lanes: Lanes) -> Program:
    while True:
        yield WaitUntil(lambda: lanes.decode, lanes.config.wait_timeout_s)
        batch = yield Take(lanes.decode, lanes.turn_limit)
        yield from decode_round(lanes, batch, ROUND)
        yield from pass_on(lanes, batch)


def programs(lanes: Lanes) -> dict[str, Program]:
    return {"prefill": prefill_lane(lanes), "decode": decode_lane(lanes)}
