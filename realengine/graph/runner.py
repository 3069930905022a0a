"""How device programs run: at once on the CPU, or as captured graphs on CUDA streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy
import torch
from torch import Tensor

from pdvsim.core import Stage, Stream
from realengine.device import CpuDevice, CudaDevice, Device, Execution
from realengine.graph.plan import Sizes, Values, Work
from realengine.graph.stages import Key, Program


class Runner(Protocol):
    """Runs device programs. `run` is called under its stage's lock."""

    sizes: Sizes

    @property
    def device(self) -> Device: ...

    def run(
        self,
        stage: Stage,
        prologue: Work | None,
        work: Sequence[Work],
        stream: Stream,
        after: Sequence[Execution],
    ) -> Execution:
        """Run `prologue` (by the admit program) and then `work` by the stage's program. The
        execution's result has one array per work item that has one, valid once it is done."""
        ...


class DirectRunner:
    """Runs a program on the calling thread, at its exact size."""

    sizes = Sizes()

    def __init__(
        self, device: CpuDevice, admit: Program, programs: Mapping[Stage, Program]
    ) -> None:
        self.device = device
        self._admit, self._programs = admit, programs

    def run(
        self,
        stage: Stage,
        prologue: Work | None,
        work: Sequence[Work],
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


@dataclass(frozen=True, slots=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    values: Tensor
    result: Tensor | None


class GraphRunner:
    """Replays one CUDA graph per (stage, key); sizes without a graph are launched kernel by kernel.

    Each stage has its own memory pool and capture stream (cuBLAS keeps a workspace per stream), so
    different stages may run at the same time. Two launches of one stage would share buffers:
    the later one waits for the earlier one on the device.
    """

    def __init__(
        self,
        device: CudaDevice,
        admit: Program,
        programs: Mapping[Stage, Program],
        sizes: Sizes,
    ) -> None:
        self.device, self.sizes = device, sizes
        self._admit, self._programs = admit, programs
        self._graphs: dict[tuple[Stage, Key], _Captured] = {}
        self._latest: dict[Stage, Execution] = {}

    def run(
        self,
        stage: Stage,
        prologue: Work | None,
        work: Sequence[Work],
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
        captured.values.copy_(_pinned(item.values), non_blocking=True)
        captured.graph.replay()
        return captured.result

    def _upload(self, values: Values) -> Tensor:
        return _pinned(values).to(self.device.device, non_blocking=True)

    def capture(self, stage: Stage, items: Sequence[Work]) -> None:
        """Capture `stage` for the keys of `items`, whose values must be safe to run on."""
        program, device = self._programs[stage], self.device.device
        pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)
        torch.cuda.synchronize(device)
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
