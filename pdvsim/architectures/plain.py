"""No speculation: one lane admits while it has room, then decodes one token for each request."""

from pdvsim.architectures.lane import (
    Lanes,
    Program,
    Take,
    WaitUntil,
    pass_on,
    run_stages,
)
from pdvsim.core import Model, Stage, Stream


def worker(lanes: Lanes) -> Program:
    streams = {Model.VERIFIER: Stream.MAIN}
    while True:
        yield WaitUntil(lambda: lanes.admissible or lanes.decode, lanes.config.wait_timeout_s)
        if lanes.admissible and lanes.active < lanes.service_limit:
            room = min(lanes.config.prefill_batch, lanes.service_limit - lanes.active)
            admitted = yield Take(lanes.prefill, room)
            yield from run_stages(lanes, lanes.executor.plain_prefill, admitted, streams)
            yield from pass_on(lanes, admitted)
        batch = yield Take(lanes.decode, lanes.batch_cap)
        yield from run_stages(lanes, (Stage.DECODE,), batch, streams)
        yield from pass_on(lanes, batch)


def programs(lanes: Lanes) -> dict[str, Program]:
    return {"worker": worker(lanes)}
