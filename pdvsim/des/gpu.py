"""The GPU of the simulated world: in-order streams whose stages slow each other down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from pdvsim.core import Request, Stage, Stream
from pdvsim.des.clock import Clock
from pdvsim.des.host import Alarm
from pdvsim.des.sharing import Job, SharedServer

# (stage, other stage on another stream) -> speed of the first while both run, as points (batch,
# speed) in ascending order of the larger batch of the two.
Contention = Mapping[tuple[Stage, Stage], Sequence[tuple[int, float]]]


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
        "started_s",
        "stream",
    )
    gpu: Gpu
    query_tokens: int
    context_tokens: int
    queued_s: float
    launched_s: float
    launch_end_s: float
    started_s: float
    ended_s: float
    launch_alone_s: float
    device_alone_s: float

    def __init__(self, stage: Stage, batch: Sequence[Request], stream: Stream) -> None:
        self.stage = stage
        self.kind = stage, len(batch)
        self.speed = 1.0
        self.batch = batch
        self.stream = stream
        self.after: Sequence[Operation] = ()
        self.pending = 0
        self.dependents: Sequence[Operation] = ()
        self.alarm: Alarm | None = None
        self.done = False
        self.settled = False

    def end(self) -> None:
        """The device has finished it: wake who waits for it, and start what was queued behind."""
        self.done = True
        self.ended_s = self.gpu.clock.now
        if self.alarm is not None:
            self.alarm.ring(self.gpu.event_wake_s)
        for dependent in self.dependents:
            dependent.pending -= 1
            if not dependent.pending:
                self.gpu.start(dependent)


class Gpu:
    """Streams in order, stages in parallel across streams at mutually reduced speed."""

    def __init__(self, clock: Clock, contention: Contention, event_wake_s: float) -> None:
        self.clock = clock
        self._contention = contention
        self.event_wake_s = event_wake_s
        self._tails: dict[Stream, Operation] = {}
        self.server = SharedServer(clock, self._speeds)

    def submit(self, operation: Operation, after: Sequence[Operation]) -> None:
        """Queue `operation` behind its stream's last one and behind the events `after`."""
        tail = self._tails.get(operation.stream)
        self._tails[operation.stream] = operation
        operation.gpu = self
        operation.after = after
        if tail is not None and not tail.done and tail not in after:
            tail.dependents = *tail.dependents, operation
            operation.pending += 1
        for earlier in after:
            if not earlier.done:
                earlier.dependents = *earlier.dependents, operation
                operation.pending += 1
        if not operation.pending:
            self.start(operation)

    def start(self, operation: Operation) -> None:
        """Start `operation`, all that it waited for having ended."""
        operation.started_s = self.clock.now
        self.server.start(operation)

    def advance(self, operation: Operation) -> bool:
        """Let time pass until `operation` is done, as far as only the device has work to do."""
        while not operation.done and self.clock.advance(self.server.next_end):
            pass
        return operation.done

    def _speeds(self, kinds: Sequence[tuple[Stage, int]]) -> list[float]:
        """Product of pairwise speeds: exact for two streams, an approximation beyond."""
        speeds = []
        for i, (stage, batch) in enumerate(kinds):
            speed = 1.0
            for j, (other, other_batch) in enumerate(kinds):
                if i != j and (points := self._contention.get((stage, other))):
                    speed *= speed_at(points, max(batch, other_batch))
            speeds.append(speed)
        return speeds


def speed_at(points: Sequence[tuple[int, float]], batch: int) -> float:
    """Linear in the logarithm of the batch between the points, constant beyond them."""
    if batch <= points[0][0]:
        return points[0][1]
    for (low, low_speed), (high, high_speed) in pairwise(points):
        if batch <= high:
            share = math.log(batch / low) / math.log(high / low)
            return low_speed + share * (high_speed - low_speed)
    return points[-1][1]
