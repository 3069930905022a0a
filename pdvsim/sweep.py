"""Grids of simulated runs: every cell, many times, over processes, with intervals.

Replication i of every cell has the same workload plan and the same machine (`pdvsim.machine`).

The interval of a metric is a 95 % *prediction interval for one run*, mean +- t s sqrt(1 + 1/n)
over n replications: where a measured run should fall, given the randomness of one run and what
calibration left uncertain. It is not a confidence interval of the mean, which would shrink to
nothing with n. Requests inside one run are correlated, so runs are the sample, never requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pdvsim.cell import Cell, labels
from pdvsim.errors import InputError
from pdvsim.extrapolation import farthest
from pdvsim.invariants import check
from pdvsim.machine import Calibration, Replication
from pdvsim.metrics import stage_seconds, summarize
from pdvsim.open_loop import Drift, drift
from pdvsim.pool import run_all
from pdvsim.protocols import protocols
from pdvsim.quantities import METRICS, OVERLOADED, WITHOUT_END
from pdvsim.records import STAGES, STREAMS, RunRecord
from pdvsim.statistics import Interval, prediction_interval

SHARES = frozenset({"gpu_busy", "slo_attainment", "spec_decode_acceptance_rate"})
TIMELINE_ROWS = 64
TIMELINE_MOMENTS = ("launched_s", "launch_end_s", "started_s", "ended_s", "settled_s")


@dataclass(frozen=True, eq=False)
class Run:
    """What comes back from one replication of one cell; small, as it crosses processes.

    Attributes:
        drift: how the queue of an open loop went on.
    """

    metrics: dict[str, float | None]
    acceptance_per_position: tuple[float, ...]
    reasons: dict[str, str]
    extrapolated: tuple[str, ...]
    stages: dict[str, dict[str, float]]
    timeline: list[dict[str, Any]] = field(default_factory=list)
    impossible: tuple[str, ...] = ()
    drift: Drift | None = None


@dataclass(frozen=True, eq=False)
class CellResult:
    """One cell over all its replications.

    Attributes:
        label: what to call it among its likes.
        metrics: prediction interval by metric name; None where most runs could not say.
        reasons: why a metric is None, or rests on fewer runs than there were.
        extrapolated: what lay outside the calibrated range, in any run.
        impossible: why no engine can run it.
        stages: seconds by stage and cause, mean over the runs (`metrics.stage_seconds`).
        timeline: stage executions of the first run after its warm-up.
        overloaded: of the runs in which more came than could be served, the drift.
    """

    cell: Cell
    label: str
    runs: list[Run]
    metrics: dict[str, Interval | None]
    acceptance_per_position: list[Interval]
    reasons: dict[str, str]
    extrapolated: list[str]
    stages: dict[str, dict[str, float]]
    timeline: list[dict[str, Any]]
    impossible: list[str]
    overloaded: list[Drift] = field(default_factory=list)


def sweep(
    cells: Sequence[Cell],
    calibration: Calibration | Sequence[Calibration],
    replications: int,
    workers: int | None = None,
    on_run: Callable[[int, int], None] | None = None,
    plans: int | None = None,
) -> list[CellResult]:
    """Simulate every cell `replications` times; results in the order of `cells`.

    Args:
        calibration: of all cells, or one for each.
        workers: processes; None takes one per usable core.
        on_run: called with (runs done, runs in all) after each.
        plans: distinct workload plans, taken in turn; None draws one for each replication. With
            as many plans as a benchmark had, predicted and measured runs pair up.
    """
    check_replications(replications)
    of_each = calibration if isinstance(calibration, Sequence) else [calibration] * len(cells)
    # Replications vary slowest, so a first result for every cell comes early.
    tasks = [
        Replication(cell, its, i, i % (plans or replications))
        for i in range(replications)
        for cell, its in zip(cells, of_each, strict=True)
    ]
    runs = run_all(simulate_cell, tasks, workers, on_run)
    return [
        combine(cell, label, runs[i :: len(cells)])
        for i, (cell, label) in enumerate(zip(cells, labels(cells), strict=True))
    ]


def replications_for(cells: Sequence[Cell]) -> int:
    """How many runs a prediction rests on unless asked otherwise.

    With 24 an interval is 8 % wider than one of endlessly many runs, with 16 it is 12 %, with 5 it
    is 55 %: as many as take about a second. A run of the eager executor takes ten times as long,
    and is as uncertain as its host, which is one number: more runs would not say more of it. Runs
    of an open loop are long for their tails' sake: with 12 an interval is 17 % wider.
    """
    if any(cell.executor == "eager" for cell in cells):
        return 5
    if any(protocols()[cell.protocol].open_loop for cell in cells):
        return 12
    return 24 if max(cell.concurrency for cell in cells) <= 64 else 16


def check_replications(
    replications: int, least: int = 1, most: int = 10_000, option: str = "--replications"
) -> None:
    """Raises InputError unless there are at least `least` and at most `most` replications."""
    if not least <= replications <= most:
        raise InputError(f"{option} is {replications}; it must be between {least} and {most}")


def simulate_cell(task: Replication) -> Run:
    """One replication, checked against the invariants; the first keeps a timeline."""
    record, calibration = task.run(), task.calibration
    run = evaluate(task.cell, record, calibration.extrapolations(record), draw=task.index == 0)
    return replace(run, impossible=tuple(calibration.impossible(record)))


def evaluate(
    cell: Cell, record: RunRecord, extrapolated: Sequence[str] = (), draw: bool = False
) -> Run:
    """Check a record against the invariants and reduce it to its metrics; `draw` keeps a
    timeline."""
    check(record)
    summary, protocol = summarize(record, cell.slo), protocols()[cell.protocol]
    metrics, reasons = {**summary.metrics, **protocol.measure(record)}, dict(summary.reasons)
    drifted = drift(record) if protocol.open_loop and record.workload.deadline_s is None else None
    if protocol.steady and drifted is not None and drifted.overloaded:
        metrics |= dict.fromkeys(WITHOUT_END)
        reasons |= dict.fromkeys(WITHOUT_END, OVERLOADED)
    return Run(
        metrics,
        summary.acceptance_per_position,
        reasons,
        tuple(extrapolated),
        stage_seconds(record),
        timeline(record, summary.window_s[0]) if draw else [],
        drift=drifted,
    )


def timeline(record: RunRecord, start_s: float) -> list[dict[str, Any]]:
    """The first stage executions launched from `start_s` on, for drawing; seconds of the run."""
    rows = np.flatnonzero(record.column("launched_s") >= start_s)
    rows = rows[np.argsort(record.column("launched_s")[rows], kind="stable")][:TIMELINE_ROWS]
    moments = {name: record.column(name)[rows] for name in TIMELINE_MOMENTS}
    codes = [record.column(name)[rows].astype(int) for name in ("stage", "lane", "stream", "batch")]
    return [
        {
            "stage": str(STAGES[stage]),
            "lane": record.lanes[lane],
            "stream": str(STREAMS[stream]),
            "batch": int(batch),
            **{name: float(when[i]) for name, when in moments.items()},
        }
        for i, (stage, lane, stream, batch) in enumerate(zip(*codes, strict=True))
    ]


def combine(cell: Cell, label: str, runs: Sequence[Run]) -> CellResult:
    """A cell's metrics over its replications."""
    names = (*METRICS, *protocols()[cell.protocol].figure_names)
    metrics: dict[str, Interval | None] = {}
    reasons: dict[str, str] = {}
    for name in names:
        known = [value for run in runs if (value := run.metrics[name]) is not None]
        metrics[name] = None
        if 2 * len(known) > len(runs):
            most = 1.0 if name in SHARES else np.inf
            metrics[name] = prediction_interval(known, least=0.0, most=most)
        if len(known) < len(runs):
            why = next(
                run.reasons.get(name, "unknown") for run in runs if run.metrics[name] is None
            )
            silent = len(runs) - len(known)
            reasons[name] = why if not known else f"{why} (in {silent} of {len(runs)} runs)"
    positions = zip(*(run.acceptance_per_position for run in runs), strict=True)
    return CellResult(
        cell,
        label,
        list(runs),
        metrics,
        [prediction_interval(rates, 0.0, 1.0) for rates in positions],
        reasons,
        farthest(reason for run in runs for reason in run.extrapolated),
        _mean_stages(runs),
        runs[0].timeline,
        farthest(reason for run in runs for reason in run.impossible),
        [run.drift for run in runs if run.drift is not None and run.drift.overloaded],
    )


def _mean_stages(runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """Mean over the runs of each stage's seconds by cause."""
    stages = dict.fromkeys(stage for run in runs for stage in run.stages)
    causes = dict.fromkeys(c for run in runs for parts in run.stages.values() for c in parts)
    return {
        stage: {
            cause: sum(run.stages.get(stage, {}).get(cause, 0.0) for run in runs) / len(runs)
            for cause in causes
        }
        for stage in stages
    }
