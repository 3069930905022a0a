"""Runs cells on the real engine, one after the other, and keeps each as soon as it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from pdvsim.cell import Cell, labels
from pdvsim.documents.benchmark import MeasuredAcceptance, MeasuredRun
from pdvsim.machine import plan_of, replication_seeds
from pdvsim.measured.acceptance import measured_acceptance
from pdvsim.measured.host_speed import launches
from pdvsim.store import Store
from pdvsim.sweep import CellResult, Run, combine, evaluate
from pdvsim.workload import Lengths, closed_loop
from realengine.engine import Engine
from realengine.telemetry import Summary, Telemetry
from realengine.world import RealWorld, run

Launches = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Measured:
    """One finished run, as it is kept on disk; launches as `host_speed.launches` has them.

    Attributes:
        records: beginning of the names of its record files; None if they were not wanted.
        failed, failure: how many requests the engine could not go on with, and why the first.
        acceptance: what was drafted and kept.
    """

    run: Run
    telemetry: Summary
    elapsed_s: float
    verb_overhead_s: float
    rounds: int
    undisturbed: list[Launches]
    launched: Launches
    launching_s: list[float]
    records: str | None
    failed: int
    failure: str | None
    acceptance: MeasuredAcceptance | None

    def about(self) -> MeasuredRun:
        """What a document says of one run."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        run = {name: value for name, value in named.items() if name != "run"}
        return MeasuredRun(**run | {"telemetry": self.telemetry.as_dict()})


def bench(
    cells: Sequence[Cell],
    replications: int,
    engine: Engine,
    store: Store,
    records: Path | None = None,
    gpu_index: int = 0,
    on_run: Callable[[int, int], None] | None = None,
) -> list[tuple[CellResult, list[Measured]]]:
    """Run every cell `replications` times; results and runs in the order of `cells`.

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
            work = partial(_run_cell, cell, index, engine, records, gpu_index)
            measured[cell].append(store.measure(_run_name(cell, index), work, Measured))
            if on_run is not None:
                on_run(sum(map(len, measured.values())), replications * len(cells))
    return [
        (combine(cell, label, [one.run for one in measured[cell]]), measured[cell])
        for cell, label in zip(cells, labels(cells), strict=True)
    ]


def warm_up(cell: Cell, engine: Engine) -> None:
    """One short run that pays for first use: kernels, handles, allocator."""
    plan_seed, _ = replication_seeds(cell.seed, 0)
    first = plan_of(cell, 0)
    prompts = cell.lengths.prompts
    lengths = Lengths(first.prompt_tokens[0], first.output_tokens[0], prompts=prompts)
    plan = closed_loop(1, lengths, cell.injected, plan_seed)
    run(cell.config(), replace(plan, warmup=0, stop_after=2), engine)


def _run_name(cell: Cell, index: int) -> str:
    return f"{cell.file_name}-{index}"


def _run_cell(
    cell: Cell, index: int, engine: Engine, records: Path | None, gpu_index: int
) -> Measured:
    with Telemetry(gpu_index) as telemetry:
        world = RealWorld(cell.config(), plan_of(cell, index), engine)
        record = world.run()
    if records is not None:
        record.write(records, _run_name(cell, index), cell.to_dict())
    return Measured(
        evaluate(cell, record, draw=index == 0),
        telemetry.summary(),
        elapsed_s=record.end_s,
        verb_overhead_s=record.verb_overhead_s,
        rounds=sum(request.rounds for request in record.requests),
        records=None if records is None else _run_name(cell, index),
        failed=len(world.failures),
        failure=str(world.failures.first) if world.failures else None,
        acceptance=measured_acceptance(record),
        **launches(record),
    )
