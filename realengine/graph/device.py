"""Where device programs run: at once on the CPU, or queued on CUDA streams as captured graphs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy
import torch
from torch import Tensor

from pdvsim.core import Stage, Stream
from realengine.graph.plan import Sizes, Values, Work
from realengine.graph.stages import Key, Program


class Execution(Protocol):
    """Device work that was launched. `results` holds one array per work item that has one."""

    def done(self) -> bool: ...
    def wait(self) -> None: ...
    def span_s(self) -> tuple[float, float]: ...
    def results(self) -> list[Values]: ...


class Device(Protocol):
    """Runs device programs. `run` is called under its stage's lock."""

    sizes: Sizes

    def align(self) -> None:
        """Finish all earlier work and read both clocks at once."""
        ...

    def run(
        self,
        stage: Stage,
        prologue: Work | None,
        work: Sequence[Work],
        stream: Stream,
        after: Sequence[Execution],
    ) -> Execution:
        """Run `prologue` (by the admit program) and then `work` by the stage's program."""
        ...


@dataclass(frozen=True, slots=True)
class CpuExecution:
    """Work that was done before it was handed over."""

    started_s: float
    ended_s: float
    outputs: list[Values]

    def done(self) -> bool:
        return True

    def wait(self) -> None:
        return

    def span_s(self) -> tuple[float, float]:
        return self.started_s, self.ended_s

    def results(self) -> list[Values]:
        return self.outputs


class CpuDevice:
    """Runs a program on the calling thread, at its exact size."""

    sizes = Sizes()

    def __init__(self, admit: Program, programs: Mapping[Stage, Program]) -> None:
        self._admit, self._programs = admit, programs

    def align(self) -> None:
        return

    def run(
        self,
        stage: Stage,
        prologue: Work | None,
        work: Sequence[Work],
        stream: Stream,
        after: Sequence[Execution],
    ) -> CpuExecution:
        started_s = time.perf_counter()
        if prologue is not None:
            self._admit(torch.from_numpy(prologue.values), prologue.key)
        program = self._programs[stage]
        outputs = [program(torch.from_numpy(item.values), item.key) for item in work]
        arrays = [output.numpy() for output in outputs if output is not None]
        return CpuExecution(started_s, time.perf_counter(), arrays)


@dataclass(frozen=True, slots=True)
class _Clock:
    """Ties device events to the host's clock: an event, and when the host saw it happen."""

    event: torch.cuda.Event
    host_s: float

    def at_s(self, event: torch.cuda.Event) -> float:
        return self.host_s + float(self.event.elapsed_time(event)) * 1e-3


@dataclass(frozen=True, slots=True)
class CudaExecution:
    """Work queued on a stream, between two events."""

    start: torch.cuda.Event
    end: torch.cuda.Event
    clock: _Clock
    outputs: list[Tensor] = field(default_factory=list)

    def done(self) -> bool:
        return bool(self.end.query())

    def wait(self) -> None:
        self.end.synchronize()

    def span_s(self) -> tuple[float, float]:
        started_s = self.clock.at_s(self.start)
        return started_s, started_s + self.start.elapsed_time(self.end) * 1e-3

    def results(self) -> list[Values]:
        return [output.numpy() for output in self.outputs]


@dataclass(frozen=True, slots=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    values: Tensor
    result: Tensor | None


class CudaDevice:
    """Replays one CUDA graph per (stage, key); sizes without a graph are launched kernel by kernel.

    Each stage has its own memory pool and capture stream (cuBLAS keeps a workspace per stream), so
    different stages may run at the same time. Two launches of one stage would share buffers:
    the later one waits for the earlier one on the device.
    """

    def __init__(
        self, device: torch.device, admit: Program, programs: Mapping[Stage, Program], sizes: Sizes
    ) -> None:
        self.sizes = sizes
        self._device, self._admit, self._programs = device, admit, programs
        self.streams = {stream: torch.cuda.Stream(device) for stream in Stream}
        self._graphs: dict[tuple[Stage, Key], _Captured] = {}
        self._latest: dict[Stage, torch.cuda.Event] = {}
        self.align()

    def align(self) -> None:
        torch.cuda.synchronize(self._device)
        event = torch.cuda.Event(enable_timing=True)
        event.record(self.streams[Stream.MAIN])
        event.synchronize()
        self._clock = _Clock(event, time.perf_counter())

    def run(
        self,
        stage: Stage,
        prologue: Work | None,
        work: Sequence[Work],
        stream: Stream,
        after: Sequence[Execution],
    ) -> CudaExecution:
        queue = self.streams[stream]
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        execution = CudaExecution(start, end, self._clock)
        with torch.cuda.stream(queue):
            for earlier in after:
                assert isinstance(earlier, CudaExecution)
                queue.wait_event(earlier.end)
            if stage in self._latest:
                queue.wait_event(self._latest[stage])
            start.record(queue)
            if prologue is not None:
                self._admit(self._upload(prologue.values), prologue.key)
            for item in work:
                result = self._run_one(stage, item)
                if result is not None:
                    host = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
                    execution.outputs.append(host.copy_(result, non_blocking=True))
            end.record(queue)
        self._latest[stage] = end
        return execution

    def _run_one(self, stage: Stage, item: Work) -> Tensor | None:
        captured = self._graphs.get((stage, item.key))
        if captured is None:
            return self._programs[stage](self._upload(item.values), item.key)
        captured.values.copy_(_pinned(item.values), non_blocking=True)
        captured.graph.replay()
        return captured.result

    def _upload(self, values: Values) -> Tensor:
        return _pinned(values).to(self._device, non_blocking=True)

    def capture(self, stage: Stage, items: Sequence[Work]) -> None:
        """Capture `stage` for the keys of `items`, whose values must be safe to run on."""
        program = self._programs[stage]
        pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(self._device)
        torch.cuda.synchronize(self._device)
        with torch.cuda.stream(stream):
            for item in items:
                values = self._upload(item.values)
                program(values, item.key)  # compiles kernels, sets cuBLAS up on this stream
                stream.synchronize()
                graph = torch.cuda.CUDAGraph()
                graph.capture_begin(pool=pool)
                result = program(values, item.key)
                graph.capture_end()
                self._graphs[stage, item.key] = _Captured(graph, values, result)
            stream.synchronize()
        torch.cuda.empty_cache()  # what the first, uncaptured runs used


def _pinned(values: Values) -> Tensor:
    """A pinned copy. Torch's pinned allocator reuses it only after queued copies from it."""
    host = torch.empty(len(values), dtype=torch.int64, pin_memory=True)
    numpy.copyto(host.numpy(), values)
    return host
