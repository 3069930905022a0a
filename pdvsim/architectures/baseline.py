"""Single lane: each of W workers takes a whole request, from prefill to its last round."""

from dataclasses import dataclass

from pdvsim.architectures.architecture import Architecture, LaneSketch, Work, parameter
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


@dataclass(frozen=True, slots=True)
class Parameters:
    workers: int = parameter(1, 1, 256, "threads")


def admits(lanes: Lanes) -> bool:
    return lanes.admissible


def worker(lanes: Lanes) -> Program:
    while True:
        yield WaitUntil(lambda: admits(lanes))
        batch = yield Take(lanes.prefill, lanes.turn_limit)
        yield from prefill(lanes, batch, MAIN)
        while batch:
            yield from decode_round(lanes, batch, MAIN)
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
    colour="#e69f00",
)
