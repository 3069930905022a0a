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
)
from pdvsim.core import Stream


def worker(lanes: Lanes) -> Program:
    config = lanes.config
    admission_limit = config.admission_factor * lanes.batch_cap
    while True:
        yield PollUntil(lambda: lanes.admissible or lanes.decode, config.poll_s)
        if lanes.admissible and len(lanes.decode) < admission_limit:
            admitted = yield Take(lanes.prefill, config.prefill_batch)
            yield from prefill(lanes, admitted, Stream.PREFILL)
            yield from pass_on(lanes, admitted)
        batch = yield Take(lanes.decode, lanes.batch_cap)
        yield from decode_round(lanes, batch, draft=Stream.DRAFT, verify=Stream.VERIFY)
        yield from pass_on(lanes, batch)


def programs(lanes: Lanes) -> dict[str, Program]:
    return {"worker": worker(lanes)}
