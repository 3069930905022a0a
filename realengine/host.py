"""What the real world keeps for each host thread and each launched stage."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pdvsim.architectures.lane import Program
from pdvsim.core import Checked, DraftTokens, Model, Request, Stage, Stream
from realengine.engine import Ticket


@dataclass(slots=True, eq=False)
class Lane:
    """One host thread's program.

    Attributes:
        wake: rung when what the lane waits for has happened.
        ready: what it waits for.
        queued_s: when it began to wait for the lock that it now holds; else negative.
        take: the number of its last take.
        outside_s: host seconds in the engine, in locks and in waits.
        alive_s: host seconds between the thread's start and its end.
    """

    index: int
    name: str
    program: Program
    wake: threading.Condition
    ready: Callable[[], object] | None = None
    held: list[Model] = field(default_factory=list)
    queued_s: float = -1.0
    take: int = -1
    launched: Operation | None = None
    outside_s: float = 0.0
    alive_s: float = 0.0
    verbs: int = 0


@dataclass(slots=True, eq=False)
class NoTicket:
    """In place of work that could not be launched, or had nothing to do."""

    stage: Stage
    batch: Sequence[Request] = ()
    served: Sequence[Request] = ()

    def wait(self) -> None:
        return

    def device_span_s(self) -> None:
        return


@dataclass(slots=True, eq=False)
class Operation:
    """A launched stage and what the host knows of it."""

    ticket: Ticket
    stage: Stage
    batch: Sequence[Request]
    stream: Stream
    take: int
    draft_tokens: DraftTokens
    query_tokens: int
    context_tokens: int
    queued_s: float
    launched_s: float
    launch_end_s: float
    launch_alone_s: float
    after: tuple[Operation, ...]
    settled: bool = False
    started_s: float = 0.0
    ended_s: float = 0.0
    device_alone_s: float = 0.0

    def only(
        self, served: Sequence[Request], checked: Sequence[Checked] | None
    ) -> Sequence[Checked] | None:
        """Leave out requests that were cancelled before the engine took them. Returns `checked` of
        the others."""
        some = set(served)
        places = [i for i, request in enumerate(self.batch) if request in some]
        self.batch = [self.batch[i] for i in places]
        if not isinstance(self.draft_tokens, int):
            self.draft_tokens = [self.draft_tokens[i] for i in places]
        return None if checked is None else [checked[i] for i in places]

    def set_device_times(
        self, span_s: tuple[float, float] | None, start_s: float, now: float
    ) -> None:
        """Start and end on the device in a run that began at `start_s`: as measured, or from
        the launch until `now`."""
        self.started_s, self.ended_s = self.launched_s, now
        if span_s is not None:
            # Clocks drift apart by microseconds a second; what the host has seen ended, has ended.
            late_s = max(0.0, span_s[1] - start_s - now)
            self.started_s = span_s[0] - start_s - late_s
            self.ended_s = span_s[1] - start_s - late_s
        self.device_alone_s = self.ended_s - self.started_s


@contextmanager
def quiet_gc() -> Iterator[None]:
    """No garbage collection inside: a pause would be timed as work."""
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()
