"""Engines without a model: one that takes scripted times, and one that does nothing at all."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pdvsim.architectures import Config
from pdvsim.core import EAGER, DraftTokens, Executor, Request, Stage, Stream
from pdvsim.kv_cache import KvCache
from pdvsim.workload import Workload
from realengine.engine import RequestError, Ticket
from realengine.world import run
from tests.fakes import TableCosts


class IdleTicket:
    """Was done at once."""

    __slots__ = ("batch", "stage")

    def __init__(self, stage: Stage, batch: Sequence[Request]) -> None:
        self.stage = stage
        self.batch = batch

    @property
    def served(self) -> Sequence[Request]:
        return self.batch

    def wait(self) -> None:
        return

    def device_span_s(self) -> tuple[float, float] | None:
        return None


class IdleEngine:
    """Does nothing, at once."""

    def __init__(self, executor: Executor, draft_tokens: int) -> None:
        self.executor = executor
        self.draft_tokens = draft_tokens

    @property
    def draft_lengths(self) -> tuple[int, ...]:
        return (self.draft_tokens,)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        return ()

    def start(self) -> None:
        return

    def launch(
        self,
        stage: Stage,
        batch: Sequence[Request],
        stream: Stream,
        after: Sequence[Ticket],
        draft_tokens: DraftTokens | None = None,
    ) -> Ticket:
        return IdleTicket(stage, batch)

    def settle(self, ticket: Ticket) -> None:
        return

    def check(self, request: Request) -> None:
        return

    def can_admit(self, *requests: Request) -> bool:
        return True

    def release(self, request: Request) -> None:
        return


class ScriptedTicket(IdleTicket):
    """Done when the clock says so."""

    __slots__ = ("ended_s", "started_s")

    def __init__(
        self, stage: Stage, batch: Sequence[Request], started_s: float, ended_s: float
    ) -> None:
        super().__init__(stage, batch)
        self.started_s = started_s
        self.ended_s = ended_s

    def wait(self) -> None:
        remaining_s = self.ended_s - time.perf_counter()
        if remaining_s > 0.0:
            time.sleep(remaining_s)

    def device_span_s(self) -> tuple[float, float]:
        return self.started_s, self.ended_s


class ScriptedEngine(IdleEngine):
    """Streams in order, stages on different streams at the same time at full speed. With a cache,
    only what fits into it is admitted; a request holds its part from its first stage on."""

    def __init__(
        self,
        executor: Executor,
        draft_tokens: int,
        costs: TableCosts,
        kv_cache: KvCache | None = None,
    ) -> None:
        super().__init__(executor, draft_tokens)
        self._costs = costs
        self._kv_cache = kv_cache
        self._held: dict[int, Request] = {}
        self._lock = threading.Lock()
        self._free_s = dict.fromkeys(Stream, 0.0)

    def can_admit(self, *requests: Request) -> bool:
        cache = self._kv_cache
        if cache is None:
            return True
        with self._lock:
            together = {**self._held, **{request.id: request for request in requests}}
        return cache.fits(map(cache.reserved_tokens, together.values()), cache.pages)

    def release(self, request: Request) -> None:
        with self._lock:
            self._held.pop(request.id, None)

    def start(self) -> None:
        self._free_s = dict.fromkeys(Stream, 0.0)

    def launch(
        self,
        stage: Stage,
        batch: Sequence[Request],
        stream: Stream,
        after: Sequence[Ticket],
        draft_tokens: DraftTokens | None = None,
    ) -> ScriptedTicket:
        earlier = [ticket.ended_s for ticket in after if isinstance(ticket, ScriptedTicket)]
        device_s = self._costs.device_s[stage]
        with self._lock:
            self._held.update((request.id, request) for request in batch)
            started_s = max(time.perf_counter(), self._free_s[stream], *earlier)
            ended_s = self._free_s[stream] = started_s + device_s
        return ScriptedTicket(stage, batch, started_s, ended_s)


class Picky(ScriptedEngine):
    """Cannot go on with one request in its second round, which it names or does not."""

    def __init__(self, executor: Executor, culprit: int, named: bool) -> None:
        super().__init__(executor, 4, TableCosts(dict.fromkeys(Stage, 1e-4)))
        self.culprit, self.named = culprit, named
        self.released: list[int] = []

    def launch(
        self,
        stage: Stage,
        batch: Sequence[Request],
        stream: Stream,
        after: Sequence[Ticket],
        draft_tokens: DraftTokens | None = None,
    ) -> ScriptedTicket:
        assert batch and not any(request.cancelled for request in batch)
        for request in batch:
            if request.id == self.culprit and request.rounds + (request.produced_tokens > 1):
                raise RequestError(request, "is odd") if self.named else ValueError("odd")
        return super().launch(stage, batch, stream, after, draft_tokens)

    def release(self, request: Request) -> None:
        self.released.append(request.id)


@dataclass(frozen=True, slots=True)
class VerbOverhead:
    """Host seconds spent in the interpreter, rather than in the engine, locks or waits."""

    per_verb_s: float
    per_round_s: float


def measure_verb_overhead(architecture: str, rounds: int) -> VerbOverhead:
    """Run one request through `rounds` decode rounds on an engine that does nothing."""
    config = Config(architecture, EAGER, batch_cap=1, draft_tokens=4)
    workload = Workload("closed-loop", [1], [rounds], [bytes(rounds)], in_flight=1)
    record = run(config, workload, IdleEngine(EAGER, 4))
    spent_s = record.verb_overhead_s
    return VerbOverhead(spent_s / record.verbs, spent_s / rounds)
