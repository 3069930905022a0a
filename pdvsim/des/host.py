"""The host of the simulated world: threads that share a GIL, locks, sleeping and waking."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import simpy
from simpy.events import Event

from pdvsim.core import Model
from pdvsim.des.clock import Clock
from pdvsim.des.sharing import Job, SharedServer


@dataclass(frozen=True, slots=True)
class HostCosts:
    """What threads cost, in seconds; measured by `pdvsim calibrate`.

    Attributes:
        wake_s: from a notify to the waiting thread running (condition variable).
        lock_wake_s: from a release to the waiting thread trying for the lock.
        event_wake_s: from the end of device work to the waiting thread running.
        poll_overhead_s: what a sleep takes beyond what it was asked for.
        gil_speeds: speed of each of n = 1, 2, ... threads that launch at the same time,
            relative to one alone. Beyond the last, total throughput stays what it was.
        locks: the models that have a lock; leaving one out switches it off (ablation).
    """

    wake_s: float = 0.0
    lock_wake_s: float = 0.0
    event_wake_s: float = 0.0
    poll_overhead_s: float = 0.0
    gil_speeds: tuple[float, ...] = (1.0,)
    locks: frozenset[Model] = frozenset(Model)

    def gil_speed(self, threads: int) -> float:
        measured = len(self.gil_speeds)
        if threads <= measured:
            return self.gil_speeds[threads - 1]
        return self.gil_speeds[-1] * measured / threads


class Alarm(Event):
    """An event that can be rung with a delay."""

    __slots__ = ()

    def ring(self, delay_s: float = 0.0) -> None:
        self._ok = True
        self._value = None
        self.env.schedule(self, delay=delay_s)


class Interpreter:
    """The Python interpreter: launching threads share its GIL."""

    def __init__(self, clock: Clock, costs: HostCosts) -> None:
        def speeds(jobs: Sequence[Job]) -> list[float]:
            return [costs.gil_speed(len(jobs))] * len(jobs)

        self.server = SharedServer(clock, speeds)
        self._clock = clock

    def run(self, work_s: float, then: Callable[[Any], None], work: Any) -> Alarm | None:
        """Occupy the calling thread for `work_s` of undisturbed host time, then do `then(work)`.

        None if that is over already, else an alarm that rings when it is.
        """
        clock = self._clock
        if self.server.jobs or not clock.skip(work_s):
            alarm = Alarm(clock)
            self.server.run(work_s, partial(self._finish, then, work, alarm))
            return alarm
        then(work)
        if clock.catch_up():
            return None
        alarm = Alarm(clock)
        alarm.ring()
        return alarm

    @staticmethod
    def _finish(then: Callable[[Any], None], work: Any, alarm: Alarm) -> None:
        then(work)
        alarm.ring()


class Lock:
    """A lock as CPython has it: releasing wakes a waiter, which then has to try again.

    Until it has woken up, any running thread can take the lock, the releasing one first of all.
    """

    def __init__(self, env: simpy.Environment, wake_s: float) -> None:
        self._env = env
        self._wake_s = wake_s
        self._held = False
        self._waiting: deque[Alarm] = deque()

    @property
    def idle(self) -> bool:
        """Whether nobody holds it or waits for it."""
        return not (self._held or self._waiting)

    def acquire(self) -> Alarm | None:
        """None if taken at once, else an alarm that rings when it has been taken."""
        if not self._held:
            self._held = True
            return None
        alarm = Alarm(self._env)
        self._waiting.append(alarm)
        return alarm

    def release(self) -> None:
        self._held = False
        if self._waiting:
            attempt = Alarm(self._env)
            attempt.callbacks.append(self._try)
            attempt.ring(self._wake_s)

    def _try(self, _: Event) -> None:
        if not self._held and self._waiting:
            self._held = True
            self._waiting.popleft().ring()
