"""Measured runs explained, beside the explained predictions of those very runs.

A benchmark document says what ran; the records of its runs lie next to it. Predicted runs have
the same requests and the same accepted drafts, on a host as fast as it was during the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pdvsim.architectures import Config
from pdvsim.des import simulate
from pdvsim.explain.causes import CAUSES
from pdvsim.explain.compare import Explained, Run, explain_run
from pdvsim.explain.run_arrays import of_files, of_record
from pdvsim.measured.benched import Hosts, cell_of, check_bench
from pdvsim.pool import run_all
from pdvsim.profile import HostState, Profile
from pdvsim.sweep import Load, replication_seeds

NOTABLE = 0.05  # causes above this share of the latency are held to the bar


@dataclass(frozen=True, slots=True)
class _Task:
    """One run to predict, on the host as it was."""

    config: Config
    load: Load
    profile: Profile
    host: HostState
    seed: int
    plan: int
    index: int


def _predict(task: _Task) -> Run:
    plan_seed, _ = replication_seeds(task.seed, task.plan)
    _, model_seed = replication_seeds(task.seed, task.index)
    costs, host, contention = task.profile.replicate(model_seed, task.host)
    plan = task.load.plan(plan_seed)
    return explain_run(of_record(simulate(task.config, plan, costs, host, contention)))


def benched(
    benches: Sequence[tuple[Path, dict[str, Any]]],
    profile: Profile,
    replications: int,
    on_run: Callable[[int, int], None] | None = None,
) -> list[Explained]:
    """Every benched cell, predicted and measured.

    Args:
        benches: folder of the records, and document, of each `pdvsim bench`.
        replications: predictions of each measured run.

    Raises:
        InputError: a bench of another pair or executor, or without injected acceptance.
    """
    for _, bench in benches:
        check_bench(bench, profile)
    hosts = Hosts([bench for _, bench in benches], profile)
    tasks: list[_Task] = []
    cells: list[Explained] = []
    for folder, bench in benches:
        for cell in bench["cells"]:
            config, load = cell_of(cell, bench["arguments"], profile)
            stem = f"{config.name}-{config.executor.name}-{load.protocol}"
            runs = []
            for plan, run in enumerate(cell["runs"]):
                path = folder / f"{stem}-c{load.concurrency}-{plan}"
                runs.append(explain_run(of_files(path, profile)))
                host = hosts.of(cell, [run])
                start = _Task(config, load, profile, host, int(bench["seed"]), plan, plan)
                count = len(cell["runs"])
                tasks += [replace(start, index=plan + i * count) for i in range(replications)]
            cells.append(Explained(config.name, "real", load.concurrency, runs))
    predicted = iter(run_all(_predict, tasks, on_run=on_run))
    return [
        side
        for cell in cells
        for side in (
            replace(
                cell,
                world="simulated",
                runs=[next(predicted) for _ in range(replications * len(cell.runs))],
            ),
            cell,
        )
    ]


def largest_gaps(gaps: Sequence[dict[str, Any]], cells: Sequence[Explained]) -> dict[str, Any]:
    """By cause: cells in which it is notable, predicted or measured, and the largest gap."""
    shares = {
        (cell.architecture, cell.concurrency, cell.world, cause): cell.share(cause).value
        for cell in cells
        for cause in CAUSES
    }
    summary: dict[str, Any] = {}
    for cause in CAUSES:
        found = [
            (gap["points"][cause], gap["architecture"], gap["concurrency"])
            for gap in gaps
            if max(
                shares[gap["architecture"], gap["concurrency"], world, cause]
                for world in ("simulated", "real")
            )
            > NOTABLE
        ]
        if found:
            points, architecture, concurrency = max(found, key=lambda one: abs(one[0]))
            summary[cause] = {
                "cells": len(found),
                "within_5_points": sum(abs(one[0]) <= 5.0 for one in found),
                "largest_points": points,
                "at": {"architecture": architecture, "concurrency": concurrency},
            }
    return summary
