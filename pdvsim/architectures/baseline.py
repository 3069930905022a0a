"""Single lane: each of W workers takes whole requests, from prefill to their last round.

It takes up to C at once, prefills them in as many stages as the rule of prefills makes of them, and
then keeps them together.
"""

from dataclasses import dataclass

from pdvsim.architectures.architecture import Architecture, LaneSketch, Work, parameter
from pdvsim.architectures.lane import (
    PREFILL_BATCH,
    Lanes,
    Program,
    Take,
    WaitUntil,
    complete,
    decode_rounds,
    prefill,
    streams_of,
)
from pdvsim.cell_values import AUTO, Auto
from pdvsim.core import Stream, unfinished

MAIN = streams_of(draft=Stream.MAIN, verifier=Stream.MAIN)


@dataclass(frozen=True, slots=True)
class Parameters:
    workers: int = parameter(1, 1, 256, "threads")
    prefill_batch: int | Auto = parameter(AUTO, 1, 100_000, PREFILL_BATCH)


def admits(lanes: Lanes) -> bool:
    return lanes.admissible


def worker(lanes: Lanes) -> Program:
    while True:
        yield WaitUntil(lambda: admits(lanes))
        batch = yield Take(lanes.prefill, lanes.turn_limit)
        for part in lanes.prefills(batch):
            yield from prefill(lanes, part, MAIN)
        while batch:
            yield from decode_rounds(lanes, batch, MAIN)
            yield from complete(batch)
            batch = unfinished(batch)


def programs(lanes: Lanes) -> dict[str, Program]:
    return {f"worker-{i}": worker(lanes) for i in range(lanes.parameters.workers)}


ARCHITECTURE = Architecture(
    "baseline",
    "Each worker thread takes requests from the queue, prefills them and runs draft and verify "
    "rounds until they are done, before it takes others.",
    programs,
    admits,
    (
        LaneSketch(
            "worker",
            ("prefill",),
            {Work.PREFILL: Stream.MAIN, Work.DRAFT: Stream.MAIN, Work.VERIFY: Stream.MAIN},
        ),
    ),
    parameters=Parameters,
    published={"prefill_batch": 100_000},  # all that it took
    colour="#e69f00",
)
