"""What threads cost on this machine: waking up, taking over a lock, polling, sharing the GIL."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from pdvsim.core import Request, Stage, Stream
from realengine.engine import Engine

WAKE_SAMPLES = 200
POLL_SAMPLES = 500
LOOP_KERNELS = 300
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


def kernel_loop(device: Any) -> Loop:
    """Launches a few hundred small kernels on a stream of its own and waits."""
    import torch

    cuda = device.type == "cuda"
    value = torch.zeros(1, device=device)
    stream = torch.cuda.Stream(device) if cuda else None

    def once() -> None:
        with torch.cuda.stream(stream), torch.inference_mode():
            for _ in range(LOOP_KERNELS):
                value.add_(1.0)
            if stream is not None:
                stream.synchronize()

    return once


def race(loops: Sequence[Loop], seconds: float, rounds: int) -> list[dict[str, list[float]]]:
    """Calls per second of each loop alone and of all at the same time, by turns.

    Host speed drifts on shared machines; alone and together within a second of each other see
    the same machine.

    Returns:
        One dict a round: `alone` and `together`, calls per second by loop.
    """
    results = []
    for _ in range(rounds):
        alone = [_rates([loop], seconds)[0] for loop in loops]
        results.append({"alone": alone, "together": _rates(loops, seconds)})
    return results


def _rates(loops: Sequence[Loop], seconds: float) -> list[float]:
    """Calls per second of each loop, each in its own thread, while all of them run."""
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
    begin = max(out[0] for out in stamps)
    end = min(out[-1] for out in stamps)
    return [_rate(out, begin, end) for out in stamps]


def _rate(stamps: Sequence[float], begin: float, end: float) -> float:
    """Calls per second between `begin` and `end`; a call at the edge counts in part."""
    calls = 0.0
    for start, stop in pairwise(stamps):
        overlap = min(stop, end) - max(start, begin)
        if overlap > 0:
            calls += overlap / (stop - start)
    return calls / max(end - begin, 1e-9)
