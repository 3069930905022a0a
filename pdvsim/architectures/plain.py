"""No speculation: one lane admits while it has room, then decodes one token for each request."""

from dataclasses import dataclass

from pdvsim.architectures.architecture import (
    Architecture,
    LaneSketch,
    Switch,
    Work,
    parameter,
)
from pdvsim.architectures.lane import (
    ADMISSION_LIMIT,
    PREFILL_BATCH,
    Lanes,
    Program,
    Run,
    Take,
    WaitUntil,
    pass_on,
)
from pdvsim.cell_values import AUTO, Auto
from pdvsim.core import Model, Stage, Stream


@dataclass(frozen=True, slots=True)
class Parameters:
    prefill_batch: int | Auto = parameter(AUTO, 1, 100_000, PREFILL_BATCH)


def admits(lanes: Lanes) -> bool:
    return lanes.active < lanes.service_limit and lanes.admissible


def worker(lanes: Lanes) -> Program:
    streams = {Model.VERIFIER: Stream.MAIN}
    while True:
        yield WaitUntil(lambda: lanes.decode or lanes.admissible)
        if admits(lanes):
            admitted = yield lanes.prompts(lanes.service_limit - lanes.active)
            yield Run(lanes.executor.plain_prefill, admitted, streams)
            yield from pass_on(lanes, admitted)
        batch = yield Take(lanes.decode, lanes.batch_cap)
        yield Run((Stage.DECODE,), batch, streams, again=True, via=lanes.decode)
        yield from pass_on(lanes, batch)


def programs(lanes: Lanes) -> dict[str, Program]:
    return {"worker": worker(lanes)}


ARCHITECTURE = Architecture(
    "plain",
    "No draft model: one thread prefills waiting prompts while fewer than C requests are in "
    "service, then decodes one token for each.",
    programs,
    admits,
    (
        LaneSketch(
            "worker",
            ("prefill", "decode"),
            {Work.PREFILL: Stream.MAIN, Work.DECODE: Stream.MAIN},
            ("decode",),
        ),
    ),
    parameters=Parameters,
    published={"prefill_batch": 1},
    switches={ADMISSION_LIMIT: Switch(acts=lambda config, in_flight: in_flight > config.batch_cap)},
    speculative=False,
    colour="#7f7f7f",
)
