"""What runs an engine's programs: on the CPU they themselves, on a GPU the CUDA graphs of them."""

from __future__ import annotations

from pdvsim.core import PREFILLS, Stage
from pdvsim.core import Drafter as Kind
from realengine.device import CpuDevice, CudaDevice, Device, enough_memory
from realengine.graph.config import GraphConfig
from realengine.graph.plan import (
    cuda_sizes,
    draft_shapes,
    empty_mixed_work,
    empty_prefill_work,
    round_work,
)
from realengine.graph.runner import DirectRunner, GraphRunner, Runner
from realengine.graph.stages import Stages


def runner_of(device: Device, stages: Stages, config: GraphConfig) -> Runner:
    """Captures all that the engine may run, while the memory for graphs lasts.

    Raises:
        CapacityError: out of device memory.
    """
    if isinstance(device, CpuDevice):
        return DirectRunner(device, stages.admit, stages.programs())
    assert isinstance(device, CudaDevice)
    drafts = 0 if stages.drafter.kind is Kind.NONE else config.draft_tokens
    sizes = cuda_sizes(config.max_requests, drafts)
    runner = GraphRunner(device, stages.admit, stages.programs(), sizes, config.graph_bytes)
    with enough_memory(device.device, "CUDA graphs"):
        _capture(runner, stages, config)
    return runner


def _capture(runner: GraphRunner, stages: Stages, config: GraphConfig) -> None:
    """The largest of a stage first: smaller graphs then fit into the memory it used."""
    padding, block, sizes = config.max_requests, stages.ops.block_tokens, runner.sizes
    batches = sizes.batches[::-1]
    for stage in stages.programs():
        if stage in PREFILLS:
            prompts = sizes.prefill_tokens[::-1]
            runner.capture(stage, [empty_prefill_work(size, block, padding) for size in prompts])
        elif stage is Stage.DECODE:
            runner.capture(stage, [round_work([], [], b, padding) for b in batches])
    if stages.drafter.programs():
        for length in config.lengths:
            runner.capture(Stage.VERIFY, [round_work([], [], b, padding, length) for b in batches])
        for shape in draft_shapes(stages.drafter, config.lengths):
            runner.capture(Stage.DRAFT, [round_work([], [], b, padding, *shape) for b in batches])
    mixed = [empty_mixed_work(shape, block, padding) for shape in sizes.mixed[::-1]]
    runner.capture(Stage.MIXED, mixed)
