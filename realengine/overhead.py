"""What the interpreter of lane programs itself costs: a decode loop on an engine that does
nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pdvsim.architectures.lane import Config
from pdvsim.core import EAGER, Executor, Request, Stage, Stream
from pdvsim.workload import Workload
from realengine.engine import Ticket
from realengine.world import run


@dataclass(frozen=True, slots=True)
class VerbOverhead:
    """Host seconds spent in the interpreter, rather than in the engine, locks or waits."""

    per_verb_s: float
    per_round_s: float


class IdleTicket:
    """Was done at once."""

    __slots__ = ("batch", "stage")

    def __init__(self, stage: Stage, batch: Sequence[Request]) -> None:
        self.stage = stage
        self.batch = batch

    def done(self) -> bool:
        return True

    def wait(self) -> None:
        return

    def device_span_s(self) -> None:
        return


class IdleEngine:
    """Does nothing, at once."""

    def __init__(self, executor: Executor, draft_tokens: int) -> None:
        self.executor = executor
        self.draft_tokens = draft_tokens

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        return ()

    def start(self) -> None:
        return

    def launch(
        self, stage: Stage, batch: Sequence[Request], stream: Stream, after: Sequence[Ticket]
    ) -> Ticket:
        return IdleTicket(stage, batch)

    def settle(self, ticket: Ticket) -> None:
        return

    def can_admit(self, *requests: Request) -> bool:
        return True

    def release(self, request: Request) -> None:
        return


def measure_verb_overhead(
    architecture: str = "baseline", executor: Executor = EAGER, rounds: int = 5000
) -> VerbOverhead:
    """Run one request through `rounds` decode rounds of `architecture`."""
    config = Config(architecture, executor, batch_cap=1, draft_tokens=4)
    workload = Workload("closed-loop", [1], [rounds], [bytes(rounds)], in_flight=1)
    about = run(config, workload, IdleEngine(executor, 4)).about
    spent_s = about["verb_overhead_s"]
    return VerbOverhead(spent_s / about["verbs"], spent_s / rounds)
