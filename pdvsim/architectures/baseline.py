"""Single lane: each of W workers takes a whole request, from prefill to its last round."""

from pdvsim.architectures.lane import (
    Complete,
    Lanes,
    Program,
    Take,
    WaitUntil,
    decode_round,
    prefill,
)
from pdvsim.core import Stream


def worker(lanes: Lanes) -> Program:
    while True:
        yield WaitUntil(lambda: lanes.admissible, lanes.config.wait_timeout_s)
        batch = yield Take(lanes.prefill, lanes.turn_limit)
        yield from prefill(lanes, batch, Stream.MAIN)
        while batch:
            yield from decode_round(lanes, batch, draft=Stream.MAIN, verify=Stream.MAIN)
            for request in batch:
                if request.finished:
                    yield Complete(request)
            batch = [request for request in batch if not request.finished]


def programs(lanes: Lanes) -> dict[str, Program]:
    return {f"worker-{i}": worker(lanes) for i in range(lanes.config.workers)}
