"""Continuous batching with speculation: each pass drafts and verifies for all in service."""

from dataclasses import dataclass

from pdvsim.architectures.architecture import Architecture, LaneSketch, Switch, Work, parameter
from pdvsim.architectures.lane import (
    ADMISSION_LIMIT,
    Lanes,
    Program,
    Take,
    WaitUntil,
    complete,
    decode_rounds,
    prefill,
    streams_of,
)
from pdvsim.core import Request, Stream, unfinished

MAIN = streams_of(draft=Stream.MAIN, verifier=Stream.MAIN)
WORK = {Work.PREFILL: Stream.MAIN, Work.DRAFT: Stream.MAIN, Work.VERIFY: Stream.MAIN}


@dataclass(frozen=True)
class Parameters:
    prefill_batch: int = parameter(8, 1, 1024, "prompts prefilled in one stage")


def admits(lanes: Lanes) -> bool:
    return lanes.active < lanes.service_limit and lanes.admissible


def worker(lanes: Lanes) -> Program:
    running: list[Request] = []
    while True:
        if not running:
            yield WaitUntil(lambda: admits(lanes))
        if admits(lanes):
            free = lanes.service_limit - lanes.active
            new = yield Take(lanes.prefill, min(lanes.parameters.prefill_batch, free))
            yield from prefill(lanes, new, MAIN)
            yield from complete(new)
            running = [*running, *unfinished(new)]
        yield from decode_rounds(lanes, running, MAIN)
        yield from complete(running)
        running = unfinished(running)


ARCHITECTURE = Architecture(
    name="joining",
    summary="One thread: waiting prompts join the batch between two rounds of all in service.",
    programs=lambda lanes: {"worker": worker(lanes)},
    admits=admits,
    sketch=(LaneSketch("worker", ("prefill", "running"), WORK, ("running",)),),
    parameters=Parameters,
    switches={ADMISSION_LIMIT: Switch(acts=lambda config, in_flight: in_flight > config.batch_cap)},
    colour="#cc79a7",
)
