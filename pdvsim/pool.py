"""Runs one function over many tasks in processes; results in the order of the tasks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import takewhile
from multiprocessing import forkserver
from typing import Any, TypeVar

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
    with _ctrl_c(signal.SIG_IGN):  # the server and all its children keep to that
        forkserver.ensure_running()
    pool = ProcessPoolExecutor(workers, context)
    try:
        pressed = threading.Event()
        with _ctrl_c(lambda *_: pressed.set()):
            wanted = takewhile(lambda _: not pressed.is_set(), tasks)
            futures = [pool.submit(function, task) for task in wanted]
        if pressed.is_set():
            raise KeyboardInterrupt
        for future in futures:
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _ctrl_c(handler: Any) -> Iterator[None]:
    """Handle Ctrl-C by `handler` meanwhile. Workers never hear of it: the parent cancels what
    waits, and they end with the run they are in. Nor may it strike the pool while that holds its
    own locks."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
