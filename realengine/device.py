"""Devices: streams to run work on, launched work, and the device's clock. Both engines' floor.

On the CPU work is done when it has been launched; on CUDA it is bracketed by two timing events.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from pdvsim.core import Stream
from pdvsim.errors import CapacityError, InputError

_ALIGNMENTS = 9


class Execution(Protocol):
    """Work that was launched.

    Attributes:
        result: what the work returned; kept alive until it is replaced.
    """

    result: Any

    def done(self) -> bool:
        """Whether the device has finished; never blocks."""
        ...

    def wait(self) -> None:
        """Block this thread until the device has finished."""
        ...

    def span_s(self) -> tuple[float, float]:
        """Start and end on the device in host-clock seconds, once `done`."""
        ...


class Device(Protocol):
    """Somewhere to run work."""

    device: torch.device

    def align(self) -> None:
        """Finish all work, then align the device's clock with `time.perf_counter`."""
        ...

    def run(
        self, what: str, stream: Stream, after: Sequence[Execution], work: Callable[[], Any]
    ) -> Execution:
        """Call `work` so that its kernels go to `stream`, behind `after`.

        Args:
            what: the work is, for errors.

        Raises:
            CapacityError: out of device memory.
        """
        ...


@dataclass(slots=True, eq=False)
class CpuExecution:
    """Work that was done before its launch returned."""

    result: Any
    started_s: float
    ended_s: float

    def done(self) -> bool:
        return True

    def wait(self) -> None:
        return

    def span_s(self) -> tuple[float, float]:
        return self.started_s, self.ended_s


class CpuDevice:
    """The CPU: the launching thread does the work itself."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def align(self) -> None:
        return

    def run(
        self, what: str, stream: Stream, after: Sequence[Execution], work: Callable[[], Any]
    ) -> CpuExecution:
        started_s = time.perf_counter()
        with enough_memory(self.device, what):
            result = work()
        return CpuExecution(result, started_s, time.perf_counter())


@dataclass(frozen=True, slots=True)
class _Clock:
    """Ties device events to the host's clock: an event, and when the host saw it happen."""

    event: torch.cuda.Event
    host_s: float

    def at_s(self, event: torch.cuda.Event) -> float:
        return self.host_s + float(self.event.elapsed_time(event)) * 1e-3

    @classmethod
    def aligned(cls, device: torch.device) -> _Clock:
        """Records an event on an idle device, several times, and keeps the one whose moment is
        known best (to about 10 us)."""
        found: list[tuple[float, _Clock]] = []
        with torch.cuda.device(device):
            torch.cuda.synchronize()
            for _ in range(_ALIGNMENTS):
                event = torch.cuda.Event(enable_timing=True)
                before_s = time.perf_counter()
                event.record()
                event.synchronize()
                width_s = time.perf_counter() - before_s
                found.append((width_s, cls(event, before_s + width_s / 2)))
        return min(found, key=lambda one: one[0])[1]


@dataclass(slots=True, eq=False)
class CudaExecution:
    """Work queued on a stream, between two events."""

    start: torch.cuda.Event
    end: torch.cuda.Event
    clock: _Clock
    queue: torch.cuda.Stream
    result: Any = None

    def done(self) -> bool:
        return bool(self.end.query())

    def wait(self) -> None:
        self.end.synchronize()

    def span_s(self) -> tuple[float, float]:
        started_s = self.clock.at_s(self.start)
        return started_s, started_s + float(self.start.elapsed_time(self.end)) * 1e-3


class _Thread(threading.local):
    """What a launching thread keeps ready, since the device waits while it launches.

    Attributes:
        queue: the thread's current stream, once it has launched.
        events: of its next launch, made while the device works on the last one.
    """

    queue: torch.cuda.Stream | None = None
    events: tuple[torch.cuda.Event, torch.cuda.Event] | None = None


class CudaDevice:
    """One GPU with a CUDA stream for each of `pdvsim.core.Stream`.

    A thread's current stream stays the one that it last launched on: the device waits meanwhile
    where it is set anew and back for each launch.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._thread = _Thread()
        # cuDNN's attention builds a plan for every new (query, context) shape, once per thread:
        # 40 ms in a 20 ms forward pass, at every token. The flash kernels need none.
        torch.backends.cuda.enable_cudnn_sdp(False)
        self.streams: Mapping[Stream, torch.cuda.Stream] = {
            stream: torch.cuda.Stream(device) for stream in Stream
        }
        self.align()

    def align(self) -> None:
        self._clock = _Clock.aligned(self.device)

    def run(
        self, what: str, stream: Stream, after: Sequence[Execution], work: Callable[[], Any]
    ) -> CudaExecution:
        queue, mine = self.streams[stream], self._thread
        start, end = mine.events or _events(queue)
        execution = CudaExecution(start, end, self._clock, queue)
        if mine.queue is not queue:
            torch.cuda.set_stream(queue)
            mine.queue = queue
        try:
            for earlier in after:
                assert isinstance(earlier, CudaExecution)
                if earlier.queue is not queue:  # a stream keeps its own order
                    queue.wait_event(earlier.end)
            start.record(queue)
            execution.result = work()
            end.record(queue)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise _out_of_memory(self.device, what, error) from error
        mine.events = _events(queue)
        return execution


def _events(queue: torch.cuda.Stream) -> tuple[torch.cuda.Event, torch.cuda.Event]:
    """Start and end of a launch. They come to be when they are first recorded."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record(queue)
    end.record(queue)
    return start, end


def open_device(name: str) -> Device:
    """The device called `cpu`, `cuda` or `cuda:N`.

    Raises:
        InputError: it is called something else.
        CapacityError: CUDA was asked for and there is none.
    """
    device = torch_device(name)
    return CudaDevice(device) if device.type == "cuda" else CpuDevice()


def torch_device(name: str) -> torch.device:
    """As `open_device`, without its streams."""
    if name == "cpu":
        return torch.device("cpu")
    match = re.fullmatch(r"cuda(?::(\d+))?", name)
    if match is None:
        raise InputError(f"unknown device {name!r}; known are cpu, cuda and cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(match[1] or 0)
    if index >= count:
        raise CapacityError(
            f"{name} was asked for, but this machine has {count} CUDA devices; --device cpu runs "
            "without one"
        )
    return torch.device("cuda", index)


def default_dtype(device: torch.device) -> torch.dtype:
    """Of weights, activations and caches where nothing else is asked for."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


@contextmanager
def enough_memory(device: torch.device, what: str) -> Iterator[None]:
    """Turns running out of memory inside into a `CapacityError` with the numbers."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(device, what, error) from error


def _out_of_memory(device: torch.device, what: str, error: BaseException) -> CapacityError:
    return CapacityError(
        f"out of memory in {what}: {free_bytes(device):,} bytes are free on {device}; "
        f"{' '.join(str(error).split())}"
    )


def free_bytes(device: torch.device) -> int:
    """Memory that can still be allocated on `device`."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def physical_index(device: torch.device) -> int:
    """NVML's number of a CUDA device, which CUDA_VISIBLE_DEVICES may have renumbered."""
    logical = device.index or 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if logical < len(visible) and visible[logical].strip().isdigit():
        return int(visible[logical])
    return logical
