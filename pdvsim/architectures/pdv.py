"""PDV: one worker thread for prefill, draft and verify, with a CUDA stream for each.

Each turn admits one prefill at most, and only while the decode queue is short; then it runs one
round for up to C requests; only after the whole turn do requests complete or queue again.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from pdvsim.architectures.architecture import (
    Architecture,
    LaneSketch,
    Switch,
    Work,
    parameter,
)
from pdvsim.architectures.lane import (
    ADMISSION_LIMIT,
    BATCH_END,
    POLLING,
    PREFILL_BATCH,
    Lanes,
    PollUntil,
    Program,
    Take,
    decode_round,
    decode_rounds,
    pass_on,
    prefill,
    streams_of,
)
from pdvsim.cell_values import AUTO, Auto
from pdvsim.core import Stream

if TYPE_CHECKING:
    from pdvsim.architectures.config import Config

ROUND = streams_of(draft=Stream.DRAFT, verifier=Stream.VERIFY)
ONE_PREFILL, PREFILL_IN_TURN = "one prefill a turn", "prefill in the worker's turn"


@dataclass(frozen=True, slots=True)
class Parameters:
    admission_factor: float = parameter(
        1.0,
        0.01,
        100.0,
        "it admits while its decode queue is below this x C (measured code 1.0, slides 1.2, "
        "later code 1.5)",
    )
    prefill_batch: int | Auto = parameter(AUTO, 1, 100_000, PREFILL_BATCH)
    poll_s: float = parameter(10e-6, 1e-6, 1.0, "spin interval when idle, seconds")


def free(lanes: Lanes) -> float:
    """How many the decode queue is short of. Those of the turn that is going on count, since they
    are back in the queue when the worker looks; a prefill thread of its own looks meanwhile."""
    queued = len(lanes.decode) if PREFILL_IN_TURN in lanes.switched_off else lanes.active
    limit: float = lanes.parameters.admission_factor * lanes.service_limit
    return limit - queued


def admits(lanes: Lanes) -> bool:
    return free(lanes) > 0 and lanes.admissible


def worker(lanes: Lanes) -> Program:
    busy = PollUntil(lambda: lanes.decode or lanes.admissible, lanes.parameters.poll_s)
    while True:
        yield busy
        if lanes.prefill and admits(lanes):
            yield from admit(lanes)
        yield from turn(lanes)


def admit(lanes: Lanes) -> Program:
    admitted = yield lanes.prompts(ceil(free(lanes)))
    yield from prefill(lanes, admitted)
    yield from pass_on(lanes, admitted)


def turn(lanes: Lanes) -> Program:
    batch = yield Take(lanes.decode, lanes.batch_cap)
    if BATCH_END in lanes.switched_off:
        for part in lanes.launches(batch):
            yield from decode_round(lanes, part, ROUND)
            yield from pass_on(lanes, part)
    else:
        yield from decode_rounds(lanes, batch, ROUND, lanes.decode)
        yield from pass_on(lanes, batch)


def admitter(lanes: Lanes) -> Program:
    """The thread that prefills when the worker is relieved of it."""
    while True:
        yield PollUntil(lambda: admits(lanes), lanes.parameters.poll_s)
        yield from admit(lanes)


def decoder(lanes: Lanes) -> Program:
    """The worker, relieved of prefills."""
    while True:
        yield PollUntil(lambda: lanes.decode, lanes.parameters.poll_s)
        yield from turn(lanes)


def one_prefill(config: Config) -> bool:
    """Whether the number of prompts that a turn prefills is limited."""
    automatic = config.parameters["prefill_batch"] == AUTO and config.executor.batched
    return not automatic and PREFILL_IN_TURN not in config.switched_off


def programs(lanes: Lanes) -> dict[str, Program]:
    if PREFILL_IN_TURN in lanes.switched_off:
        return {"prefill": admitter(lanes), "worker": decoder(lanes)}
    return {"worker": worker(lanes)}


ARCHITECTURE = Architecture(
    "pdv",
    "One thread, three CUDA streams: each turn prefills prompts if the decode queue is short, "
    "then drafts and verifies one round for up to C requests, which move on together.",
    programs,
    admits,
    (
        LaneSketch(
            "worker",
            ("prefill", "decode"),
            {
                Work.PREFILL: Stream.PREFILL,
                Work.DRAFT: Stream.DRAFT,
                Work.VERIFY: Stream.VERIFY,
            },
            ("decode",),
        ),
    ),
    parameters=Parameters,
    published={"prefill_batch": 1},
    switches={
        ADMISSION_LIMIT: Switch(
            acts=lambda config, in_flight: (
                in_flight > config.parameters["admission_factor"] * config.batch_cap
            )
        ),
        BATCH_END: Switch(acts=lambda config, in_flight: not config.executor.batched),
        ONE_PREFILL: Switch(
            {"prefill_batch": 100_000},
            lambda config, in_flight: one_prefill(config),
        ),
        PREFILL_IN_TURN: Switch(),
        POLLING: Switch({"poll_s": 1e-6}),
    },
    colour="#d55e00",
)
