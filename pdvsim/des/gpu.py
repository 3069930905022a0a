"""The GPU of the simulated world: in-order streams whose stages slow each other down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import simpy

from pdvsim.core import Request, Stage, Stream
from pdvsim.des.host import Alarm
from pdvsim.des.sharing import SharedServer

# (stage, other stage on another stream) -> speed of the first while both run.
Contention = Mapping[tuple[Stage, Stage], float]


class Operation:
    """One launched stage: the simulated counterpart of a CUDA event behind a kernel chain."""

    __slots__ = (
        "after",
        "alarm",
        "batch",
        "context_tokens",
        "dependents",
        "device_alone_s",
        "done",
        "ended_s",
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
        "work_s",
    )

    def __init__(self, stage: Stage, batch: Sequence[Request], stream: Stream) -> None:
        self.stage = stage
        self.batch = batch
        self.stream = stream
        self.query_tokens = 0
        self.context_tokens = 0
        self.queued_s = self.launched_s = self.launch_end_s = 0.0
        self.started_s = self.ended_s = 0.0
        self.launch_alone_s = self.device_alone_s = self.work_s = 0.0
        self.after: Sequence[Operation] = ()
        self.pending = 0
        self.dependents: list[Operation] = []
        self.alarm: Alarm | None = None
        self.done = False
        self.settled = False


class Gpu:
    """Streams in order, stages in parallel across streams at mutually reduced speed."""

    def __init__(self, env: simpy.Environment, contention: Contention, event_wake_s: float) -> None:
        self._env = env
        self._contention = contention
        self._event_wake_s = event_wake_s
        self._tails: dict[Stream, Operation] = {}
        self.server = SharedServer(env, self._speeds)

    def submit(self, operation: Operation, after: Sequence[Operation]) -> None:
        """Queue `operation` behind its stream's last one and behind the events `after`."""
        tail = self._tails.get(operation.stream)
        self._tails[operation.stream] = operation
        operation.after = after
        for earlier in (tail, *after) if tail is not None and tail not in after else after:
            if not earlier.done:
                earlier.dependents.append(operation)
                operation.pending += 1
        if not operation.pending:
            self._start(operation)

    def _start(self, operation: Operation) -> None:
        operation.started_s = self._env.now
        self.server.run(operation.stage, operation.work_s, lambda: self._finish(operation))

    def _finish(self, operation: Operation) -> None:
        operation.done = True
        operation.ended_s = self._env.now
        if operation.alarm is not None:
            operation.alarm.ring(self._event_wake_s)
        for dependent in operation.dependents:
            dependent.pending -= 1
            if not dependent.pending:
                self._start(dependent)

    def _speeds(self, stages: Sequence[Stage]) -> list[float]:
        """Product of pairwise speeds: exact for two streams, an approximation beyond."""
        speeds = []
        for i, stage in enumerate(stages):
            speed = 1.0
            for j, other in enumerate(stages):
                if i != j:
                    speed *= self._contention.get((stage, other), 1.0)
            speeds.append(speed)
        return speeds
