"""How device programs run: at once on the CPU, or as captured graphs on CUDA streams."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy
import torch
from torch import Tensor

from pdvsim.core import Stage, Stream
from realengine.device import CpuDevice, CudaDevice, Device, Execution, free_bytes
from realengine.graph.drafting import Key, Program
from realengine.graph.plan import Sizes, Values, Work

_LOOK = 16  # graphs between two looks at the memory that they take


class Runner(Protocol):
    """Runs device programs. `run` is called under its stage's lock.

    Attributes:
        about: one line on what was prepared.
    """

    sizes: Sizes

    @property
    def about(self) -> str: ...

    @property
    def device(self) -> Device: ...

    def run(
        self,
        stage: Stage,
        prologue: Work | None,
        work: Iterable[Work],
        stream: Stream,
        after: Sequence[Execution],
    ) -> Execution:
        """Run `prologue` (by the admit program) and then `work` by the stage's program. The
        execution's result has one array per work item that has one, valid once it is done."""
        ...


class DirectRunner:
    """Runs a program on the calling thread, at its exact size."""

    sizes = Sizes()
    about = ""

    def __init__(
        self, device: CpuDevice, admit: Program, programs: Mapping[Stage, Program]
    ) -> None:
        self.device = device
        self._admit, self._programs = admit, programs

    def run(
        self,
        stage: Stage,
        prologue: Work | None,
        work: Iterable[Work],
        stream: Stream,
        after: Sequence[Execution],
    ) -> Execution:
        def launch() -> list[Values]:
            if prologue is not None:
                self._admit(torch.from_numpy(prologue.values), prologue.key)
            program = self._programs[stage]
            outputs = [program(torch.from_numpy(item.values), item.key) for item in work]
            return [output.numpy() for output in outputs if output is not None]

        return self.device.run(f"stage {stage}", stream, after, launch)


@dataclass(slots=True, eq=False)
class _Captured:
    """A graph and its buffers.

    Attributes:
        held: what was last copied to `values`; a draft's often stays what it was.
    """

    graph: torch.cuda.CUDAGraph
    values: Tensor
    result: Tensor | None
    held: Values


class GraphRunner:
    """Replays one CUDA graph per (stage, key); sizes without a graph are launched kernel by kernel.

    Each stage has its own memory pool and capture stream (cuBLAS keeps a workspace per stream), so
    different stages may run at the same time. Two launches of one stage would share buffers:
    the later one waits for the earlier one on the device.

    Args:
        graph_bytes: device memory that graphs may take.
    """

    def __init__(
        self,
        device: CudaDevice,
        admit: Program,
        programs: Mapping[Stage, Program],
        sizes: Sizes,
        graph_bytes: int,
    ) -> None:
        self.device, self.sizes = device, sizes
        self._budget_bytes, self._taken_bytes = graph_bytes, 0
        self._left_out, self._seconds = 0, 0.0
        self._places: dict[Stage, tuple[Any, torch.cuda.Stream]] = {}
        self._admit, self._programs = admit, programs
        self._graphs: dict[tuple[Stage, Key], _Captured] = {}
        self._latest: dict[Stage, Execution] = {}

    def run(
        self,
        stage: Stage,
        prologue: Work | None,
        work: Iterable[Work],
        stream: Stream,
        after: Sequence[Execution],
    ) -> Execution:
        def launch() -> list[Values]:
            if prologue is not None:
                self._admit(self._upload(prologue.values), prologue.key)
            outputs = []
            for item in work:  # the next item may overwrite what this one returns
                result = self._run_one(stage, item)
                if result is not None:
                    outputs.append(_download(result))
            return outputs

        latest = self._latest.get(stage)
        earlier = after if latest is None else [*after, latest]
        execution = self.device.run(f"stage {stage}", stream, earlier, launch)
        self._latest[stage] = execution
        return execution

    def _run_one(self, stage: Stage, item: Work) -> Tensor | None:
        captured = self._graphs.get((stage, item.key))
        if captured is None:
            return self._programs[stage](self._upload(item.values), item.key)
        if not numpy.array_equal(captured.held, item.values):
            captured.values.copy_(_pinned(item.values), non_blocking=True)
            captured.held = item.values
        captured.graph.replay()
        return captured.result

    def _upload(self, values: Values) -> Tensor:
        return _pinned(values).to(self.device.device, non_blocking=True)

    @property
    def about(self) -> str:
        left = f"; {self._left_out} sizes are launched kernel by kernel" if self._left_out else ""
        return (
            f"{len(self._graphs)} CUDA graphs in {self._seconds:.1f} s, "
            f"{self._taken_bytes / 2**30:.2f} of {self._budget_bytes / 2**30:.2f} GiB{left}"
        )

    def capture(self, stage: Stage, items: Sequence[Work]) -> None:
        """Capture `stage` for the keys of `items`, whose values must be safe to run on, until the
        memory for graphs is used up."""
        began_s, device = time.perf_counter(), self.device.device
        if stage not in self._places:
            self._places[stage] = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)
        torch.cuda.synchronize(device)
        free, taken = free_bytes(device), self._taken_bytes
        for i, item in enumerate(items):
            if i % _LOOK == 0:
                self._taken_bytes = taken + free - free_bytes(device)
            if self._taken_bytes > self._budget_bytes:
                self._left_out += len(items) - i
                break
            self._capture_one(stage, item)
        # What the first, uncaptured runs used is not counted.
        self._taken_bytes = taken + free - free_bytes(device)
        self._seconds += time.perf_counter() - began_s

    def _capture_one(self, stage: Stage, item: Work) -> None:
        program, (pool, stream) = self._programs[stage], self._places[stage]
        with torch.cuda.stream(stream):
            values = self._upload(item.values)
            program(values, item.key)  # compiles kernels, sets cuBLAS up on this stream
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            graph.capture_begin(pool=pool)
            result = program(values, item.key)
            graph.capture_end()
        self._graphs[stage, item.key] = _Captured(graph, values, result, item.values)


def _download(result: Tensor) -> Values:
    """A pinned copy, which holds once the stream has come to it."""
    host = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
    array: Values = host.copy_(result, non_blocking=True).numpy()
    return array


def _pinned(values: Values) -> Tensor:
    """A pinned copy. Torch's pinned allocator reuses it only after queued copies from it."""
    host = torch.empty(len(values), dtype=torch.int64, pin_memory=True)
    numpy.copyto(host.numpy(), values)
    return host
