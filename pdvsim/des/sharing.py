"""A server whose jobs slow each other down: the GIL among threads, the GPU among streams."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from pdvsim.des.clock import NEVER, Clock


class Job(ABC):
    """Work for a server.

    Attributes:
        remaining_s: seconds that it would still take alone.
        started_s, speed: when it began, and its speed relative to alone; set by the server.
    """

    __slots__ = ("remaining_s", "speed", "started_s")
    remaining_s: float
    started_s: float
    speed: float

    @abstractmethod
    def end(self) -> None:
        """Called by the server when the job is done."""


class _Call(Job):
    """A job that ends in a call."""

    __slots__ = ("_on_done",)

    def __init__(self, work_s: float, on_done: Callable[[], None]) -> None:
        self.remaining_s = work_s
        self._on_done = on_done

    def end(self) -> None:
        self._on_done()


# Of any kind of job: a server's user knows what it starts there.
Speeds = Callable[[Sequence[Any]], Sequence[float]]


class SharedServer:
    """Generalised processor sharing: `speeds(jobs)` gives the speed of each present job.

    A lone job runs at speed 1. With `speeds` = 1/n each, this is the M/G/1-PS queue.
    """

    def __init__(self, clock: Clock, speeds: Speeds) -> None:
        self._clock = clock
        self._speeds = speeds
        self.jobs: Sequence[Job] = ()
        self._updated_s = 0.0
        self.next_end = clock.moment(self._end_first)
        self.busy_s = 0.0

    def run(self, work_s: float, on_done: Callable[[], None]) -> None:
        """Start a job of `work_s` seconds alone; `on_done` is called when it has finished."""
        self.start(_Call(work_s, on_done))

    def start(self, job: Job) -> None:
        """Start `job` beside those that run."""
        job.started_s = now = self._clock.now
        if not self.jobs:
            self._updated_s = now
            self.jobs = (job,)
            self.next_end.set(job.remaining_s)
        else:
            self._progress()
            self.jobs = *self.jobs, job
            self._reschedule()

    def busy_until(self, now_s: float) -> float:
        """Seconds with at least one job, up to `now_s`."""
        return self.busy_s + (now_s - self._updated_s if self.jobs else 0.0)

    def _progress(self) -> None:
        now = self._clock.now
        elapsed = now - self._updated_s
        self._updated_s = now
        self.busy_s += elapsed
        if len(self.jobs) == 1:
            self.jobs[0].remaining_s -= elapsed
            return
        for job in self.jobs:
            job.remaining_s -= elapsed * job.speed

    def _reschedule(self) -> None:
        jobs = self.jobs
        if len(jobs) == 1:
            delay = jobs[0].remaining_s
        else:
            for job, speed in zip(jobs, self._speeds(jobs), strict=True):
                job.speed = speed
            delay = min(job.remaining_s / job.speed for job in jobs)
        self.next_end.set(max(delay, 0.0))

    def _end_first(self) -> None:
        jobs = self.jobs
        if len(jobs) == 1:
            self.busy_s += self._clock.now - self._updated_s
            self.jobs = ()
            self.next_end.key = NEVER
            jobs[0].end()
            return
        self._progress()
        # The job that set the time ends now whatever rounding left of it.
        least = min(job.remaining_s / job.speed for job in jobs)
        done = [job for job in jobs if job.remaining_s / job.speed <= least + 1e-12]
        self.jobs = [job for job in jobs if job not in done]
        if self.jobs:
            self._reschedule()
        else:
            self.next_end.key = NEVER
        for job in done:
            job.end()
