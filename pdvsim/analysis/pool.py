"""Runs one function over many tasks in processes; results in the order of the tasks."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def run_all(
    function: Callable[[T], R],
    tasks: Sequence[T],
    workers: int | None = None,
    on_run: Callable[[int, int], None] | None = None,
) -> list[R]:
    """`[function(task) for task in tasks]`.

    Args:
        workers: processes; None takes one per usable core, 1 stays in this one.
        on_run: called with (tasks done, tasks in all) after each.
    """
    results: list[R] = []
    for result in _map(function, tasks, workers or len(os.sched_getaffinity(0))):
        results.append(result)
        if on_run is not None:
            on_run(len(results), len(tasks))
    return results


def _map(function: Callable[[T], R], tasks: Sequence[T], workers: int) -> Iterator[R]:
    workers = min(workers, len(tasks))
    if workers <= 1:
        yield from map(function, tasks)
        return
    # Not "fork": a forked child may inherit a lock that a thread of polars holds.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    pool = ProcessPoolExecutor(workers, context, initializer=_leave_ctrl_c_to_the_parent)
    try:
        yield from pool.map(function, tasks, chunksize=max(1, len(tasks) // (32 * workers)))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _leave_ctrl_c_to_the_parent() -> None:
    """After Ctrl-C the parent cancels what waits, and its workers end with the run they are in.

    If they died of it, the pool's own thread would trip over the cancelled work, loudly.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
