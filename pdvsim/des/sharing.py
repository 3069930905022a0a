"""A server whose jobs slow each other down: the GIL among threads, the GPU among streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import simpy
from simpy.events import Timeout

Speeds = Callable[[Sequence[Any]], Sequence[float]]


class _Job:
    __slots__ = ("kind", "on_done", "remaining_s", "speed")

    def __init__(self, kind: Any, work_s: float, on_done: Callable[[], None]) -> None:
        self.kind = kind
        self.remaining_s = work_s
        self.on_done = on_done
        self.speed = 1.0


class SharedServer:
    """Generalised processor sharing: `speeds(kinds)` gives the speed of each present job.

    A lone job runs at speed 1. With `speeds` = 1/n each, this is the M/G/1-PS queue.
    """

    def __init__(self, env: simpy.Environment, speeds: Speeds) -> None:
        self._env = env
        self._speeds = speeds
        self._jobs: list[_Job] = []
        self._updated_s = 0.0
        self._timer: Timeout | None = None
        self.busy_s = 0.0

    def run(self, kind: Any, work_s: float, on_done: Callable[[], None]) -> None:
        """Start a job of `work_s` seconds alone; `on_done` is called when it has finished."""
        if self._jobs:
            self._progress()
        else:
            self._updated_s = self._env.now
        self._jobs.append(_Job(kind, work_s, on_done))
        self._reschedule()

    def busy_until(self, now_s: float) -> float:
        """Seconds with at least one job, up to `now_s`."""
        return self.busy_s + (now_s - self._updated_s if self._jobs else 0.0)

    def _progress(self) -> None:
        now = self._env.now
        elapsed = now - self._updated_s
        self._updated_s = now
        self.busy_s += elapsed
        for job in self._jobs:
            job.remaining_s -= elapsed * job.speed

    def _reschedule(self) -> None:
        jobs = self._jobs
        if len(jobs) == 1:
            jobs[0].speed = 1.0
            delay = jobs[0].remaining_s
        else:
            for job, speed in zip(jobs, self._speeds([j.kind for j in jobs]), strict=True):
                job.speed = speed
            delay = min(job.remaining_s / job.speed for job in jobs)
        self._timer = Timeout(self._env, delay if delay > 0.0 else 0.0)
        self._timer.callbacks.append(self._fire)

    def _fire(self, timer: Any) -> None:
        if timer is not self._timer:
            return  # a job came after this timer was set
        self._progress()
        # The job the timer was set for ends now whatever rounding left of it.
        least = min(job.remaining_s / job.speed for job in self._jobs)
        done = [job for job in self._jobs if job.remaining_s / job.speed <= least + 1e-12]
        self._jobs = [job for job in self._jobs if job not in done]
        if self._jobs:
            self._reschedule()
        for job in done:
            job.on_done()
