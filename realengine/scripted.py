"""An engine that takes scripted times instead of computing: the real world without a model."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pdvsim.core import Executor, Request, Stage, Stream
from realengine.engine import Ticket


@dataclass(frozen=True, slots=True)
class ScriptedCosts:
    """Stage times for both worlds: nothing on the host, `seconds[stage]` on the device for each
    launch. Implements `pdvsim.des.world.StageCosts`."""

    seconds: Mapping[Stage, float]

    def cost(
        self, stage: Stage, batch: int, query_tokens: int, context_tokens: int
    ) -> tuple[float, float]:
        return 0.0, self.seconds[stage]


class ScriptedTicket:
    """Done when the clock says so."""

    __slots__ = ("batch", "ended_s", "stage", "started_s")

    def __init__(
        self, stage: Stage, batch: Sequence[Request], started_s: float, ended_s: float
    ) -> None:
        self.stage = stage
        self.batch = batch
        self.started_s = started_s
        self.ended_s = ended_s

    def done(self) -> bool:
        return time.perf_counter() >= self.ended_s

    def wait(self) -> None:
        remaining_s = self.ended_s - time.perf_counter()
        if remaining_s > 0.0:
            time.sleep(remaining_s)

    def device_span_s(self) -> tuple[float, float]:
        return self.started_s, self.ended_s


class ScriptedEngine:
    """Streams in order, stages on different streams at the same time at full speed."""

    def __init__(self, executor: Executor, draft_tokens: int, costs: ScriptedCosts) -> None:
        self.executor = executor
        self.draft_tokens = draft_tokens
        self._costs = costs
        self._lock = threading.Lock()
        self._free_s = dict.fromkeys(Stream, 0.0)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        return ()

    def start(self) -> None:
        self._free_s = dict.fromkeys(Stream, 0.0)

    def launch(
        self, stage: Stage, batch: Sequence[Request], stream: Stream, after: Sequence[Ticket]
    ) -> ScriptedTicket:
        earlier = [ticket.ended_s for ticket in after if isinstance(ticket, ScriptedTicket)]
        with self._lock:
            started_s = max(time.perf_counter(), self._free_s[stream], *earlier)
            ended_s = self._free_s[stream] = started_s + self._costs.seconds[stage]
        return ScriptedTicket(stage, batch, started_s, ended_s)

    def settle(self, ticket: Ticket) -> None:
        return

    def can_admit(self, *requests: Request) -> bool:
        return True

    def release(self, request: Request) -> None:
        return
