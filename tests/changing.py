"""An architecture whose rounds change their numbers of drafts, also from request to request."""

from itertools import cycle

from pdvsim.architectures.architecture import Architecture, LaneSketch
from pdvsim.architectures.lane import (
    Lanes,
    Launch,
    Program,
    Take,
    Wait,
    WaitUntil,
    complete,
    prefill,
)
from pdvsim.core import Request, unfinished
from tests.joining import MAIN, WORK, Parameters, admits

LENGTHS = (4, 0, (2, 4, 0), 1, 4, (0, 3), 2)  # of a round: one for all, or in turn


def a_round(lanes: Lanes, batch: list[Request], length: int | tuple[int, ...]) -> Program:
    """Draft and verify; each request by itself where the executor has no batches."""
    parts = [batch] if lanes.executor.batched else [[request] for request in batch]
    each = cycle(length) if isinstance(length, tuple) else None
    for part in parts:
        drafts = length if each is None else [next(each) for _ in part]
        after = ()
        for stage in lanes.round_stages:
            event = yield Launch(stage, part, MAIN[stage.model], after, drafts)
            if lanes.executor.synchronous:
                yield Wait(event)
            else:
                after = (event,)
        if after:
            yield Wait(after[0])


def worker(lanes: Lanes) -> Program:
    running: list[Request] = []
    lengths = cycle(LENGTHS)
    while True:
        if not running:
            yield WaitUntil(lambda: admits(lanes))
        if admits(lanes):
            free = lanes.service_limit - lanes.active
            new = yield Take(lanes.prefill, min(lanes.parameters.prefill_batch, free))
            yield from prefill(lanes, new, MAIN)
            yield from complete(new)
            running = [*running, *unfinished(new)]
        if running:
            yield from a_round(lanes, running, next(lengths))
        yield from complete(running)
        running = unfinished(running)


ARCHITECTURE = Architecture(
    name="changing",
    summary="One thread: rounds of changing lengths.",
    programs=lambda lanes: {"worker": worker(lanes)},
    admits=admits,
    sketch=(LaneSketch("worker", ("prefill", "running"), WORK, ("running",)),),
    parameters=Parameters,
    switches={},
    colour="#cc79a7",
)
