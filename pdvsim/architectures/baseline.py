"""Single lane: each of W workers takes a whole request, from prefill to its last round."""

from pdvsim.architectures.lane import (
    Lanes,
    Program,
    Take,
    WaitUntil,
    complete,
    decode_round,
    prefill,
    streams_of,
)
from pdvsim.core import Stream, unfinished

MAIN = streams_of(draft=Stream.MAIN, verifier=Stream.MAIN)


def worker(lanes: Lanes) -> Program:
    while True:
        yield WaitUntil(lambda: lanes.admissible, lanes.config.wait_timeout_s)
        batch = yield Take(lanes.prefill, lanes.turn_limit)
        yield from prefill(lanes, batch, MAIN)
        while batch:
            yield from decode_round(lanes, batch, MAIN)
            yield from complete(batch)
            batch = unfinished(batch)


def programs(lanes: Lanes) -> dict[str, Program]:
    return {f"worker-{i}": worker(lanes) for i in range(lanes.config.workers)}
