"""What threads cost on this machine: waking up, taking over a lock, polling, sharing the GIL."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

from pdvsim.core import Request, Stage, Stream
from realengine.engine import Engine

WAKE_SAMPLES = 200
POLL_SAMPLES = 500
_PAUSE_S = 0.5e-3  # long enough that the other thread is surely asleep again


def wake_seconds() -> list[float]:
    """From `notify` to the waiting thread running, by condition variable."""
    condition = threading.Condition()
    samples: list[float] = []
    notified_s = [0.0]
    waiting = threading.Event()

    def waiter() -> None:
        with condition:
            for _ in range(WAKE_SAMPLES):
                waiting.set()
                condition.wait()
                samples.append(time.perf_counter() - notified_s[0])

    thread = threading.Thread(target=waiter)
    thread.start()
    for _ in range(WAKE_SAMPLES):
        waiting.wait()
        waiting.clear()
        time.sleep(_PAUSE_S)
        with condition:
            notified_s[0] = time.perf_counter()
            condition.notify()
    thread.join()
    return samples


def lock_wake_seconds() -> list[float]:
    """From `release` to the waiting thread holding the lock, when nobody else wants it."""
    lock = threading.Lock()
    samples: list[float] = []
    released_s = [0.0]
    trying, taken = threading.Event(), threading.Event()

    def waiter() -> None:
        for _ in range(WAKE_SAMPLES):
            trying.wait()
            trying.clear()
            with lock:
                samples.append(time.perf_counter() - released_s[0])
            taken.set()

    thread = threading.Thread(target=waiter)
    thread.start()
    for _ in range(WAKE_SAMPLES):
        lock.acquire()
        trying.set()
        time.sleep(_PAUSE_S)
        released_s[0] = time.perf_counter()
        lock.release()
        taken.wait()
        taken.clear()
    thread.join()
    return samples


def poll_overhead_seconds(interval_s: float = 10e-6) -> list[float]:
    """What a short sleep takes beyond what it was asked for."""
    samples = []
    for _ in range(POLL_SAMPLES):
        started_s = time.perf_counter()
        time.sleep(interval_s)
        samples.append(time.perf_counter() - started_s - interval_s)
    return samples


Loop = Callable[[], None]


def stage_loop(engine: Engine, stage: Stage, request: Request, stream: Stream) -> Loop:
    """Launches `stage` for `request` and waits, leaving the request as it was."""

    def once() -> None:
        engine.launch(stage, [request], stream, ()).wait()

    return once


def gil_rates(loops: Sequence[Loop], seconds: float, segments: int) -> list[list[float]]:
    """Calls per second of each loop while all run at the same time, each in its own thread.

    Returns:
        Shape (segments, loops). Calls are counted as fractions of the segment they fall into.
    """
    stop = threading.Event()
    stamps: list[list[float]] = [[] for _ in loops]

    def body(loop: Loop, out: list[float]) -> None:
        loop()
        while not stop.is_set():
            out.append(time.perf_counter())
            loop()
        out.append(time.perf_counter())

    threads = [
        threading.Thread(target=body, args=(loop, out))
        for loop, out in zip(loops, stamps, strict=True)
    ]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    # Only the time in which every thread was running counts.
    begin = max(out[0] for out in stamps)
    end = min(out[-1] for out in stamps)
    step = (end - begin) / segments
    return [
        [_rate(out, begin + i * step, begin + (i + 1) * step) for out in stamps]
        for i in range(segments)
    ]


def _rate(stamps: Sequence[float], begin: float, end: float) -> float:
    """Calls per second between `begin` and `end`; a call at the edge counts in part."""
    calls = 0.0
    for start, stop in pairwise(stamps):
        overlap = min(stop, end) - max(start, begin)
        if overlap > 0:
            calls += overlap / (stop - start)
    return calls / (end - begin)
