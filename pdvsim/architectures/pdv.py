"""PDV: one worker thread for prefill, draft and verify, with a CUDA stream for each.

Each turn admits at most one prefill, and only while the decode queue is short; then it runs one
round for up to C requests; only after the whole turn do requests complete or queue again.
"""

from pdvsim.architectures.lane import (
    Lanes,
    PollUntil,
    Program,
    Take,
    decode_round,
    pass_on,
    prefill,
    streams_of,
)
from pdvsim.core import Stream

ROUND = streams_of(draft=Stream.DRAFT, verifier=Stream.VERIFY)


def may_admit(lanes: Lanes) -> bool:
    limit = lanes.config.admission_factor * lanes.service_limit
    return lanes.admissible and len(lanes.decode) < limit


def worker(lanes: Lanes) -> Program:
    busy = PollUntil(lambda: lanes.decode or lanes.admissible, lanes.config.poll_s)
    while True:
        yield busy
        if may_admit(lanes):
            yield from admit(lanes)
        yield from turn(lanes)


def admit(lanes: Lanes) -> Program:
    admitted = yield Take(lanes.prefill, lanes.config.prefill_batch)
    yield from prefill(lanes, admitted)
    yield from pass_on(lanes, admitted)


def turn(lanes: Lanes) -> Program:
    batch = yield Take(lanes.decode, lanes.batch_cap)
    for part in lanes.parts(batch):
        yield from decode_round(lanes, part, ROUND)
        yield from pass_on(lanes, part)


def admitter(lanes: Lanes) -> Program:
    """The thread that prefills when the worker is relieved of it."""
    while True:
        yield PollUntil(lambda: may_admit(lanes), lanes.config.poll_s)
        yield from admit(lanes)


def decoder(lanes: Lanes) -> Program:
    """The worker, relieved of prefills."""
    while True:
        yield PollUntil(lambda: lanes.decode, lanes.config.poll_s)
        yield from turn(lanes)


def programs(lanes: Lanes) -> dict[str, Program]:
    if lanes.config.prefill_lane:
        return {"prefill": admitter(lanes), "worker": decoder(lanes)}
    return {"worker": worker(lanes)}
