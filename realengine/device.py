"""Devices: streams to launch work on, tickets for launched work, and the device's clock.

Engines share this. On the CPU work is done when it has been launched; on CUDA it is bracketed by
a pair of timing events.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from pdvsim.core import Request, Stage, Stream
from pdvsim.errors import CapacityError, InputError
from realengine.engine import Ticket

_ALIGNMENTS = 9


class Device(Protocol):
    """Somewhere to run stages."""

    device: torch.device

    def align(self) -> None:
        """Finish all work, then align the device's clock with `time.perf_counter`."""
        ...

    def run(
        self,
        stage: Stage,
        batch: Sequence[Request],
        stream: Stream,
        after: Sequence[Ticket],
        work: Callable[[], Any],
    ) -> Ticket:
        """Call `work` so that its kernels go to `stream` behind `after`. What `work` returns is
        kept alive as long as the ticket.

        Raises:
            CapacityError: out of device memory.
        """
        ...


class CpuTicket:
    """Work that was done when its launch returned."""

    __slots__ = ("_span_s", "batch", "stage")

    def __init__(self, stage: Stage, batch: Sequence[Request], span_s: tuple[float, float]) -> None:
        self.stage = stage
        self.batch = batch
        self._span_s = span_s

    def done(self) -> bool:
        return True

    def wait(self) -> None:
        return

    def device_span_s(self) -> tuple[float, float]:
        return self._span_s


class CpuDevice:
    """The CPU: the launching thread does the work itself."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def align(self) -> None:
        return

    def run(
        self,
        stage: Stage,
        batch: Sequence[Request],
        stream: Stream,
        after: Sequence[Ticket],
        work: Callable[[], Any],
    ) -> CpuTicket:
        started_s = time.perf_counter()
        with torch.inference_mode():
            work()
        return CpuTicket(stage, batch, (started_s, time.perf_counter()))


class CudaTicket:
    """Work between two CUDA events."""

    __slots__ = ("_clock", "_keep", "_start", "batch", "end", "stage")

    def __init__(
        self,
        stage: Stage,
        batch: Sequence[Request],
        clock: CudaClock,
        events: tuple[torch.cuda.Event, torch.cuda.Event],
        keep: Any,
    ) -> None:
        self.stage = stage
        self.batch = batch
        self._clock = clock
        self._start, self.end = events
        self._keep = keep

    def done(self) -> bool:
        return bool(self.end.query())

    def wait(self) -> None:
        self.end.synchronize()
        self._keep = None

    def device_span_s(self) -> tuple[float, float]:
        started_s = self._clock.host_s(self._start)
        return started_s, started_s + self._start.elapsed_time(self.end) * 1e-3


class CudaClock:
    """Turns CUDA events into host-clock seconds."""

    def align(self) -> None:
        """Record a reference event on an idle device, several times, and keep the one whose
        moment is known best (to about 10 us)."""
        torch.cuda.synchronize()
        narrowest = float("inf")
        for _ in range(_ALIGNMENTS):
            reference = torch.cuda.Event(enable_timing=True)
            before = time.perf_counter()
            reference.record()
            reference.synchronize()
            width = time.perf_counter() - before
            if width < narrowest:
                narrowest = width
                self._reference, self._reference_s = reference, before + width / 2

    def host_s(self, event: torch.cuda.Event) -> float:
        return float(self._reference_s + self._reference.elapsed_time(event) * 1e-3)


class CudaDevice:
    """One GPU with a CUDA stream for each of `pdvsim.core.Stream`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._clock = CudaClock()
        # cuDNN's attention builds a plan for every new (query, context) shape, once per thread:
        # 40 ms in a 20 ms forward pass, at every token. The flash kernels need none.
        torch.backends.cuda.enable_cudnn_sdp(False)
        with torch.cuda.device(device):
            self._streams = {stream: torch.cuda.Stream(device) for stream in Stream}

    def align(self) -> None:
        with torch.cuda.device(self.device):
            self._clock.align()

    def run(
        self,
        stage: Stage,
        batch: Sequence[Request],
        stream: Stream,
        after: Sequence[Ticket],
        work: Callable[[], Any],
    ) -> CudaTicket:
        cuda_stream = self._streams[stream]
        start = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        try:
            with torch.inference_mode(), torch.cuda.stream(cuda_stream):
                for ticket in after:
                    if isinstance(ticket, CudaTicket):
                        cuda_stream.wait_event(ticket.end)
                start.record(cuda_stream)
                keep = work()
                end.record(cuda_stream)
        except torch.OutOfMemoryError as error:
            free, total = torch.cuda.mem_get_info(self.device)
            raise CapacityError(
                f"out of GPU memory in stage {stage}: {free:,} of {total:,} bytes are free; {error}"
            ) from error
        return CudaTicket(stage, batch, self._clock, (start, end), keep)


def open_device(name: str) -> Device:
    """The device called `cpu`, `cuda` or `cuda:N`.

    Raises:
        InputError: it is called something else.
        CapacityError: CUDA was asked for and there is none.
    """
    if name == "cpu":
        return CpuDevice()
    match = re.fullmatch(r"cuda(?::(\d+))?", name)
    if match is None:
        raise InputError(f"unknown device {name!r}; known are cpu, cuda and cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(match[1] or 0)
    if index >= count:
        raise CapacityError(f"{name} was asked for, but this machine has {count} CUDA devices")
    return CudaDevice(torch.device("cuda", index))
