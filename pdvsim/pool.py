"""Runs one function over many tasks in processes; results in the order of the tasks.

This process works too, and others help. A helper is a fresh interpreter that takes tasks from a
pipe: it knows nothing of the script that called, shares no lock, and holds none of our outputs. It
ends when the pipe does, so however this process ends, no helper outlives it.
"""

from __future__ import annotations

import atexit
import os
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from queue import Empty, SimpleQueue
from typing import IO, Any, TypeVar

from pdvsim.errors import CapacityError

T = TypeVar("T")
R = TypeVar("R")

_BOOT = (
    "import sys; from pickle import load; sys.path[:] = load(sys.stdin.buffer); "
    "from pdvsim.pool import serve; serve()"
)
_idle: list[Helper] = []  # those of earlier calls, which have imported all they need


def run_all(
    function: Callable[[T], R],
    tasks: Sequence[T],
    workers: int | None = None,
    on_run: Callable[[int, int], None] | None = None,
) -> list[R]:
    """`[function(task) for task in tasks]`.

    Args:
        function: of a module; helpers import it from there. What helpers cannot import, such as
            a class of the calling script or notebook, is worked on by this process alone.
        workers: processes; None takes one per usable core, 1 stays in this one.
        on_run: called with (tasks done, tasks in all) after each.

    Raises:
        CapacityError: a helper was killed.
    """
    results: dict[int, R] = {}
    waiting: SimpleQueue[tuple[int, T]] = SimpleQueue()
    done: SimpleQueue[tuple[int, R] | _Undone | BaseException] = SimpleQueue()
    for item in enumerate(tasks):
        waiting.put(item)

    def keep(outcome: tuple[int, R] | _Undone | BaseException) -> None:
        if isinstance(outcome, BaseException):
            raise outcome
        if isinstance(outcome, _Undone):
            outcome = outcome.index, function(outcome.task)
        index, result = outcome
        results[index] = result
        if on_run is not None:
            on_run(len(results), len(tasks))

    def help_out(helper: Helper) -> None:
        try:
            while True:
                index, task = waiting.get_nowait()
                try:
                    done.put((index, helper.call(function, task)))
                except _NotPortableError:
                    done.put(_Undone(index, task))
        except Empty:
            pass
        except BaseException as error:
            done.put(error)

    helpers = _helpers(min(workers or _cores(), len(tasks)) - 1)
    threads = [threading.Thread(target=help_out, args=(one,), daemon=True) for one in helpers]
    try:
        for thread in threads:
            thread.start()
        while len(results) < len(tasks):
            try:
                index, task = waiting.get_nowait()
            except Empty:
                keep(done.get())
            else:
                keep((index, function(task)))
            while not done.empty():
                keep(done.get())
        _idle.extend(helpers)
    except BaseException:
        for helper in helpers:
            helper.end()
        raise
    return [results[index] for index in range(len(tasks))]


def prepare(module: str) -> None:
    """Start helpers for all cores now: they import `module` while this process does other things
    before it calls `run_all`."""
    helpers = _helpers(_cores() - 1)
    _idle.extend(helpers)
    for helper in helpers:
        helper.begin(_import, module)


def _import(module: str) -> None:
    import_module(module)


class Helper:
    """A process that calls functions for this one."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        # In a group of its own, Ctrl-C does not reach it: it ends with the pipe.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        self._to, self._from = self._process.stdin, self._process.stdout
        self._owed = 0  # results that nobody waits for
        assert self._to is not None
        pickle.dump(sys.path, self._to)

    def begin(self, function: Callable[[T], None], task: T) -> None:
        """`function(task)` there, before anything else that it is called for."""
        assert self._to is not None
        with suppress(BrokenPipeError):  # the next call says that it has died
            _send_frame(self._to, pickle.dumps((function, task)))
            self._owed += 1

    def call(self, function: Callable[[T], R], task: T) -> R:
        """`function(task)`, there.

        Raises:
            CapacityError: the helper has died.
        """
        assert self._to is not None and self._from is not None
        call = _portable(function, task)
        try:
            _send_frame(self._to, call)
            while self._owed:
                _receive(self._from)
                self._owed -= 1
            result, error = _receive(self._from)
        except (EOFError, BrokenPipeError):
            raise CapacityError(
                f"a helping process was ended from outside (exit code {self._process.wait()}), "
                f"as happens where memory is short"
            ) from None
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def end(self) -> None:
        """Stop it in whatever it does."""
        if self.owner == os.getpid():
            self._process.kill()
            self._process.wait()


def _helpers(most: int) -> list[Helper]:
    """Idle helpers and new ones; fewer than `most` where no more processes can be had."""
    helpers: list[Helper] = []
    while len(helpers) < most:
        if _idle:
            helper = _idle.pop()
            if helper.owner == os.getpid():  # else it is of the process that forked this one
                helpers.append(helper)
            continue
        try:
            helpers.append(Helper())
        except OSError:
            break
    return helpers


@atexit.register
def _end_idle() -> None:
    while _idle:
        _idle.pop().end()


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def serve() -> None:
    """What a helper does: calls what comes in, until the pipe ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a task prints is no reply
    calls: SimpleQueue[bytes] = SimpleQueue()

    def listen() -> None:
        while True:
            try:
                calls.put(_frame(sys.stdin.buffer))
            except EOFError:
                os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        call = calls.get()
        try:
            function, task = pickle.loads(call)
            reply = pickle.dumps((function(task), None))
        except BaseException as error:
            error.add_note("in a helping process:\n" + traceback.format_exc())
            reply = _pickled_error(error)
        try:
            _send_frame(replies, reply)
        except BrokenPipeError:
            os._exit(1)


def _pickled_error(error: BaseException) -> bytes:
    try:
        reply = pickle.dumps((None, error))
        pickle.loads(reply)
    except Exception:  # one that does not survive the way
        reply = pickle.dumps((None, RuntimeError("".join(traceback.format_exception(error)))))
    return reply


@dataclass(frozen=True, slots=True)
class _Undone:
    """A task that a helper cannot take."""

    index: int
    task: Any


class _NotPortableError(Exception):
    """A call holds something that a helper cannot import."""


def _portable(function: Any, task: Any) -> bytes:
    """The call for a helper."""
    try:
        content = pickle.dumps((function, task))
    except (pickle.PicklingError, AttributeError, TypeError):
        raise _NotPortableError from None
    if b"__main__" in content:  # of a script or a notebook
        raise _NotPortableError
    return content


def _receive(pipe: IO[bytes]) -> Any:
    return pickle.loads(_frame(pipe))


def _send_frame(pipe: IO[bytes], content: bytes) -> None:
    pipe.write(len(content).to_bytes(8, "big"))
    pipe.write(content)
    pipe.flush()


def _frame(pipe: IO[bytes]) -> bytes:
    """One message: its length in 8 bytes, and the message."""
    length = pipe.read(8)
    content = pipe.read(int.from_bytes(length, "big")) if len(length) == 8 else b""
    if len(length) < 8 or len(content) < int.from_bytes(length, "big"):
        raise EOFError
    return content
