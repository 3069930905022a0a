"""The GPU of the simulated world: in-order streams whose stages slow each other down."""

from __future__ import annotations

from collections.abc import Sequence

from pdvsim.core import DraftTokens, Request, Stage, Stream
from pdvsim.des.clock import Clock
from pdvsim.des.contention import Contention, Launch, sizes_of
from pdvsim.des.host import Alarm
from pdvsim.des.sharing import Job, SharedServer


class Operation(Job):
    """One launched stage: the simulated counterpart of a CUDA event behind a kernel chain.

    What it took is filled in as it becomes known.
    """

    __slots__ = (
        "after",
        "alarm",
        "batch",
        "context_tokens",
        "dependents",
        "device_alone_s",
        "done",
        "draft_tokens",
        "ended_s",
        "gpu",
        "launch_alone_s",
        "launch_end_s",
        "launched_s",
        "pending",
        "query_tokens",
        "queued_s",
        "settled",
        "stage",
        "stream",
        "take",
    )
    gpu: Gpu
    take: int
    query_tokens: int
    context_tokens: int
    queued_s: float
    launched_s: float
    launch_end_s: float
    ended_s: float
    launch_alone_s: float
    device_alone_s: float

    def __init__(
        self,
        stage: Stage,
        batch: Sequence[Request],
        stream: Stream,
        after: Sequence[Operation] = (),
        draft_tokens: DraftTokens = 0,
    ) -> None:
        self.draft_tokens = draft_tokens
        self.stage = stage
        self.batch = batch
        self.stream = stream
        self.after = after
        self.pending = 0
        self.dependents: Sequence[Operation] = ()
        self.alarm: Alarm | None = None
        self.done = False
        self.settled = False
        self.query_tokens = 0

    @property
    def size(self) -> Launch:
        return self.stage, len(self.batch), self.query_tokens

    def end(self) -> None:
        """The device has finished it: wake who waits for it, and start what was queued behind."""
        self.done = True
        self.ended_s = self.gpu.clock.now
        if self.alarm is not None:
            self.alarm.ring(self.gpu.event_wake_s)
        for dependent in self.dependents:
            dependent.pending -= 1
            if not dependent.pending:
                self.gpu.server.start(dependent)


class Gpu:
    """Streams in order, stages in parallel across streams at mutually reduced speed.

    Attributes:
        event_wake_s: from the end of device work to the waiting thread running.
        starts_early: kernels run while later ones of their stage are being launched.
    """

    def __init__(
        self,
        clock: Clock,
        contention: Contention,
        event_wake_s: float,
        starts_early: bool = False,
    ) -> None:
        self.clock = clock
        self._contention = contention
        self.event_wake_s = event_wake_s
        self.starts_early = starts_early
        self._tails: dict[Stream, Operation] = {}
        self._known_speeds: dict[tuple[Launch, ...], list[float]] = {}
        self.server = SharedServer(clock, self._speeds)

    def submit(self, operation: Operation) -> None:
        """Queue what has just been launched, behind its stream's last one and what it is after."""
        now = self.clock.now
        operation.launch_end_s = now
        if self.starts_early:
            left_s = operation.remaining_s - (now - operation.launched_s)
            operation.remaining_s = max(0.0, left_s)
        tails, stream, after = self._tails, operation.stream, operation.after
        tail = tails.get(stream)
        tails[stream] = operation
        operation.gpu = self
        if tail is not None and not tail.done and tail not in after:
            tail.dependents = *tail.dependents, operation
            operation.pending += 1
        for earlier in after:
            if not earlier.done:
                earlier.dependents = *earlier.dependents, operation
                operation.pending += 1
        if not operation.pending:
            self.server.start(operation)

    def advance(self, operation: Operation) -> bool:
        """Let time pass until `operation` is done, as far as only the device has work to do."""
        next_end, advance = self.server.next_end, self.clock.advance
        while not operation.done:
            if not advance(next_end):
                return False
        return True

    def _speeds(self, operations: Sequence[Operation]) -> list[float]:
        """What two streams do to each other is measured; of three, the delays add up.

        A stage that takes 1 / s times as long beside another is held up by 1 / s - 1 for each
        second of its work.
        """
        sizes = tuple([(one.stage, len(one.batch), one.query_tokens) for one in operations])
        known = self._known_speeds.get(sizes)
        if known is None:
            known = self._known_speeds[sizes] = self._slowed(operations)
        return known

    def _slowed(self, operations: Sequence[Operation]) -> list[float]:
        speeds = []
        for one in operations:
            slowness = 1.0
            for other in operations:
                if one is not other and (beside := self._contention.get((one.stage, other.stage))):
                    sizes = sizes_of(one.size, other.size)
                    slowness += 1.0 / beside.at(*sizes) - 1.0
            speeds.append(1.0 / slowness)
        return speeds
