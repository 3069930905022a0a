"""Whether as many requests were in service as were asked for, and what kept them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from pdvsim.cell import AUTO, Cell
from pdvsim.kv_cache import KvCache
from pdvsim.machine import plan_of
from pdvsim.output import number
from pdvsim.profile import Profile
from pdvsim.protocols import protocols
from pdvsim.sweep import CellResult
from pdvsim.workload import Workload

# The cache that a run of a cell has; None where it is no limit.
CacheOf: TypeAlias = Callable[[Cell, Workload], KvCache | None]

REACHED = 0.75  # of C in a mean pass; the rest is on its way in or out


def cache_by(profile: Profile) -> CacheOf:
    """The cache of a simulated run."""

    def found(cell: Cell, plan: Workload) -> KvCache | None:
        load, drafts = cell.batch_cap or cell.concurrency, cell.draft_tokens
        return None if profile.memory is None else profile.memory.for_run(plan, load, drafts)

    return found


def unreached(results: Sequence[CellResult], cache_of: CacheOf) -> list[str]:
    """A sentence for each load at which C is never reached, for want of memory or since prompts
    are prefilled a few at a time."""
    lines = []
    for load in sorted({result.cell.concurrency for result in results}):
        here = [result for result in results if result.cell.concurrency == load]
        held = _held(here[0].cell, cache_of)
        if held is not None and held < load:
            why = f"the KV cache holds {held} such requests"
        else:
            here = [result for result in here if _a_few_at_a_time(result)]
            counts = {result.cell.config().parameters["prefill_batch"] for result in here}
            why = f"prompts are prefilled {' or '.join(map(str, sorted(counts)))} at a time"
        batches = [
            f"{result.label} {number(batch.value)}"
            for result in here
            if (batch := result.metrics["mean_batch"]) and result.cell.config().executor.batched
        ]
        if batches:
            lines.append(f"C = {load} was asked for; {why}: mean batch {', '.join(batches)}.")
    return lines


def _held(cell: Cell, cache_of: CacheOf) -> int | None:
    """How many requests of a cell the KV cache holds together; None where that is no limit."""
    plan = plan_of(cell, 0)
    cache = cache_of(cell, plan)
    if cache is None:
        return None
    pages = [cache.pages_for(cache.reserved_tokens(request)) for request in plan.requests()]
    return cache.pages * len(pages) // sum(pages)


def _a_few_at_a_time(result: CellResult) -> bool:
    """Whether the number of prompts in a prefill keeps a closed loop from its C."""
    batch, cell = result.metrics["mean_batch"], result.cell
    asked = cell.config().parameters.get("prefill_batch", AUTO)
    if asked == AUTO or batch is None or protocols()[cell.protocol].open_loop:
        return False
    return batch.value < REACHED * cell.concurrency
