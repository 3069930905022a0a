"""PD, two lanes: a prefill thread and a decode thread that drafts and verifies.

The prefill lane admits while fewer than C requests are in service. A request goes back to the
decode queue, or completes, as soon as its own round is done.
"""

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
    Take,
    WaitUntil,
    decode_rounds,
    pass_on,
    prefill,
    streams_of,
)
from pdvsim.cell_values import AUTO, Auto
from pdvsim.core import Stream

ROUND = streams_of(draft=Stream.MAIN, verifier=Stream.MAIN)


@dataclass(frozen=True, slots=True)
class Parameters:
    prefill_batch: int | Auto = parameter(AUTO, 1, 100_000, PREFILL_BATCH)


def admits(lanes: Lanes) -> bool:
    return lanes.active < lanes.service_limit and lanes.admissible


def prefill_lane(lanes: Lanes) -> Program:
    while True:
        yield WaitUntil(lambda: admits(lanes))
        free = lanes.service_limit - lanes.active
        if free <= 0:
            continue
        batch = yield lanes.prompts(free)
        yield from prefill(lanes, batch)
        yield from pass_on(lanes, batch)


def decode_lane(lanes: Lanes) -> Program:
    while True:
        yield WaitUntil(lambda: lanes.decode)
        batch = yield Take(lanes.decode, lanes.turn_limit)
        yield from decode_rounds(lanes, batch, ROUND, lanes.decode)
        yield from pass_on(lanes, batch)


def programs(lanes: Lanes) -> dict[str, Program]:
    return {"prefill": prefill_lane(lanes), "decode": decode_lane(lanes)}


ARCHITECTURE = Architecture(
    "pd",
    "Two threads: one prefills prompts while fewer than C requests are in service, the other "
    "drafts and verifies; a request moves on as soon as its own round is done.",
    programs,
    admits,
    (
        LaneSketch("prefill", ("prefill",), {Work.PREFILL: Stream.PREFILL}, ("decode",)),
        LaneSketch(
            "decode",
            ("decode",),
            {Work.DRAFT: Stream.MAIN, Work.VERIFY: Stream.MAIN},
            ("decode",),
        ),
    ),
    parameters=Parameters,
    published={"prefill_batch": 1},
    switches={ADMISSION_LIMIT: Switch(acts=lambda config, in_flight: in_flight > config.batch_cap)},
    colour="#0072b2",
)
