"""Measured runs explained, beside the explained predictions of those very runs.

A benchmark document says what ran; the records of its runs lie next to it. Predicted runs have
the same requests and the same accepted drafts, on a host as fast as it was during the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pdvsim.documents.explanation import Gap, LargestGap
from pdvsim.explain.compare import Explained, explain_run, explain_simulated
from pdvsim.explain.run_arrays import of_files
from pdvsim.machine import Replication
from pdvsim.measured.benched import Bench, Hosts, OnHost
from pdvsim.pool import run_all
from pdvsim.profile import Profile
from pdvsim.quantities import CAUSES

NOTABLE = 0.05  # causes above this share of the latency are held to the bar


def benched(
    benches: Sequence[Bench],
    profile: Profile,
    replications: int,
    on_run: Callable[[int, int], None] | None = None,
) -> list[Explained]:
    """Every benched cell, predicted and measured.

    Args:
        replications: predictions of each measured run.

    Raises:
        InputError: a record is missing or damaged.
    """
    hosts = Hosts(benches, profile)
    tasks: list[Replication] = []
    cells: list[Explained] = []
    for bench in benches:
        for one in bench.cells:
            runs, count = [], len(one.runs)
            for plan, (run, stem) in enumerate(zip(one.runs, one.records, strict=True)):
                runs.append(explain_run(of_files(stem, profile)))
                host = OnHost(profile, hosts.of(one, [run]))
                tasks += [
                    Replication(one.cell, host, plan + i * count, plan) for i in range(replications)
                ]
            cells.append(Explained(one.label, "real", one.cell.concurrency, runs, one.cell))
    predicted = iter(run_all(explain_simulated, tasks, on_run=on_run))
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


def largest_gaps(gaps: Sequence[Gap], cells: Sequence[Explained]) -> list[LargestGap]:
    """By cause: cells in which it is notable, predicted or measured, and the largest gap."""
    shares = {
        (cell.architecture, cell.concurrency, cell.world, cause): cell.share(cause).value
        for cell in cells
        for cause in CAUSES
    }
    summary = []
    for cause in CAUSES:
        found = [
            gap
            for gap in gaps
            if max(
                shares[gap.label, gap.concurrency, "simulated", cause],
                shares[gap.label, gap.concurrency, "real", cause],
            )
            > NOTABLE
        ]
        if found:
            largest = max(found, key=lambda gap: abs(gap.points[cause]))
            summary.append(
                LargestGap(
                    cause=cause,
                    cells=len(found),
                    within_5_points=sum(abs(gap.points[cause]) <= 5.0 for gap in found),
                    largest_points=largest.points[cause],
                    label=largest.label,
                    concurrency=largest.concurrency,
                )
            )
    return summary
