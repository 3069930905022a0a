"""SimPy's environment, with two short cuts for what happens in every round.

Neither changes the order of events: time, then priority, then insertion, as in SimPy.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop
from math import inf

import simpy
from simpy.core import EmptySchedule
from simpy.events import NORMAL

NEVER: tuple[float, int, int] = (inf, NORMAL, 0)


class Moment:
    """A callback at a time that can be moved, which a SimPy event cannot.

    It stays due until `call` sets it anew or makes its key `NEVER`.
    """

    __slots__ = ("_clock", "call", "key")

    def __init__(self, clock: Clock, call: Callable[[], None]) -> None:
        self._clock = clock
        self.call = call
        self.key = NEVER

    def set(self, delay_s: float) -> None:
        """Be due in `delay_s` from now, and not when it was due before."""
        clock = self._clock
        self.key = clock._now + delay_s, NORMAL, next(clock._eid)

    def set_at(self, time_s: float) -> None:
        """Be due at `time_s`, to the last bit."""
        self.key = time_s, NORMAL, next(self._clock._eid)


class _Time:
    """Where SimPy's environment keeps its time."""

    __slots__ = ("_now",)
    _now: float


class Clock(_Time, simpy.Environment):
    """Virtual time."""

    now: float = _Time.__dict__["_now"]  # as in SimPy, without a call

    def __init__(self) -> None:
        super().__init__()
        self._moments: list[Moment] = []

    def moment(self, call: Callable[[], None]) -> Moment:
        """A new moment at which `call` is called; not due until it is set."""
        moment = Moment(self, call)
        self._moments.append(moment)
        return moment

    @property
    def due_s(self) -> float:
        """When the next event is due, moments left aside."""
        return self._queue[0][0] if self._queue else inf

    def go_to(self, time_s: float) -> None:
        """Let it be `time_s`. Nothing may be due before."""
        self._now = time_s

    def skip(self, delay_s: float) -> bool:
        """Let `delay_s` pass if nothing at all is due until then; otherwise do nothing.

        For a process that would only sleep: it saves the event, and the process goes on at once.
        """
        until_s = self._now + delay_s
        queue = self._queue
        if queue and queue[0][0] <= until_s:
            return False
        for moment in self._moments:
            if moment.key[0] <= until_s:
                return False
        self._now = until_s
        return True

    def advance(self, moment: Moment) -> bool:
        """Go to `moment` and let it happen if nothing else is due before it.

        For a process that waits for what `moment` brings. Its callback must resume no process.
        """
        key, queue = moment.key, self._queue
        due_s = key[0]
        # Whole keys are compared at the same instant only: it takes ten times as long.
        if key is NEVER or (queue and queue[0][0] <= due_s and queue[0] < key):
            return False
        for other in self._moments:
            if other.key[0] <= due_s and other.key < key:
                return False
        self._now = due_s
        call = moment.call
        call()
        return True

    def catch_up(self) -> bool:
        """Let the moments that are due right now happen; whether nothing else is due now."""
        while True:
            for moment in self._moments:
                if moment.key[0] <= self._now:
                    break
            else:
                return not (self._queue and self._queue[0][0] <= self._now)
            first = self._first()
            if first is None:
                return False
            first.call()

    def peek(self) -> float:
        due_s = self._queue[0][0] if self._queue else inf
        return min(due_s, *[moment.key[0] for moment in self._moments])

    def step(self) -> None:
        queue = self._queue
        first, key = None, queue[0] if queue else NEVER
        for moment in self._moments:
            if moment.key < key:
                first, key = moment, moment.key
        if first is not None:
            self._now = key[0]
            first.call()
            return
        if not queue:
            raise EmptySchedule
        self._now, _, _, event = heappop(queue)
        callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]
        for callback in callbacks:
            callback(event)
        if not event._ok:  # a process that failed
            raise event._value

    def _first(self) -> Moment | None:
        """The moment that is due next, unless an event is due before it."""
        first, key = None, self._queue[0] if self._queue else NEVER
        for moment in self._moments:
            if moment.key < key:
                first, key = moment, moment.key
        return first
