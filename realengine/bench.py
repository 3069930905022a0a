"""Runs cells on the real engine, one after the other, and keeps each as soon as it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from pdvsim.measured.host_speed import launches
from pdvsim.store import Store
from pdvsim.sweep import Cell, Run, combine, evaluate, replication_seeds
from pdvsim.workload import closed_loop
from realengine.engine import Engine
from realengine.telemetry import Summary, Telemetry
from realengine.world import run

Launches = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Measured:
    """One finished run, as it is kept on disk; launches as `host_speed.launches` has them."""

    run: Run
    telemetry: Summary
    elapsed_s: float
    verb_overhead_s: float
    rounds: int
    undisturbed: list[Launches]
    launched: Launches
    launching_s: list[float]

    def about(self) -> dict[str, Any]:
        """What a document says of one run."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in ("run", "telemetry")
        }


def bench(
    cells: Sequence[Cell],
    replications: int,
    seed: int,
    engine: Engine,
    store: Store,
    records: Path | None = None,
    gpu_index: int = 0,
    on_run: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Run every cell `replications` times; JSON objects in the order of `cells`.

    Runs that `store` holds already are not repeated.

    Args:
        records: folder for each run's request and stage tables.
        gpu_index: NVML's number of the GPU that telemetry looks at.
        on_run: called with (runs done, runs in all) after each.
    """
    measured: dict[Cell, list[Measured]] = {cell: [] for cell in cells}
    # Cells take turns, so that a slow minute of the machine does not fall on one of them alone.
    for index in range(replications):
        for cell in cells:
            key = _key(cell, index)
            work = partial(_run_cell, cell, index, seed, engine, records, gpu_index)
            measured[cell].append(store.measure(key, work, Measured))
            if on_run is not None:
                on_run(sum(map(len, measured.values())), replications * len(cells))
    return [
        combine(cell, [one.run for one in runs]).to_dict()
        | {"telemetry": [one.telemetry.as_dict() for one in runs]}
        | {"runs": [one.about() for one in runs]}
        for cell, runs in measured.items()
    ]


def warm_up(cell: Cell, engine: Engine, seed: int) -> None:
    """One short run that pays for first use: kernels, handles, allocator."""
    plan_seed, _ = replication_seeds(seed, 0)
    plan = closed_loop(1, cell.load.lengths, cell.load.acceptance, plan_seed)
    run(cell.config, replace(plan, warmup=0, stop_after=2), engine)


def _key(cell: Cell, index: int) -> str:
    architecture, executor = cell.config.name, cell.config.executor.name
    return f"{architecture}-{executor}-{cell.load.protocol}-c{cell.load.concurrency}-{index}"


def _run_cell(
    cell: Cell, index: int, seed: int, engine: Engine, records: Path | None, gpu_index: int
) -> Measured:
    plan_seed, _ = replication_seeds(seed, index)
    with Telemetry(gpu_index) as telemetry:
        record = run(cell.config, cell.load.plan(plan_seed), engine)
    if records is not None:
        record.write(records, _key(cell, index))
    return Measured(
        evaluate(cell, record, draw=index == 0),
        telemetry.summary(),
        elapsed_s=record.end_s,
        verb_overhead_s=record.verb_overhead_s,
        rounds=sum(request.rounds for request in record.requests),
        **launches(record),
    )
