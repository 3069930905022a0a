"""Grids of simulated runs: every cell, many times, over processes, with intervals.

Replication i of every cell runs the same workload plan and the same draw of the model's fitted
parameters (common random numbers), so cells differ by what they are and not by luck. The seeds
depend on the replication alone: the result is the same whatever the number of processes.

The interval of a metric is a 95 % *prediction interval for one run*, mean +- t s sqrt(1 + 1/n)
over n replications: where a measured run should fall, given the randomness of one run and what
calibration left uncertain. It is not a confidence interval of the mean, which would shrink to
nothing with n. Requests inside one run are correlated, so runs are the sample, never requests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pdvsim.acceptance import Acceptance
from pdvsim.architectures import Config, architecture
from pdvsim.des.gpu import Contention
from pdvsim.des.host import HostCosts
from pdvsim.des.world import StageCosts, simulate
from pdvsim.errors import InputError
from pdvsim.invariants import check
from pdvsim.metrics import (
    Slo,
    pdverify_metrics,
    stage_seconds,
    summarize,
)
from pdvsim.pool import run_all
from pdvsim.quantities import METRICS, PDVERIFY_METRICS
from pdvsim.records import STAGES, STREAMS, RunRecord
from pdvsim.statistics import Interval, prediction_interval
from pdvsim.workload import (
    PROTOCOLS,
    Lengths,
    Workload,
    check_concurrency,
    closed_loop,
    pdverify,
    poisson,
    trace,
)

SHARES = frozenset({"gpu_busy", "spec_decode_acceptance_rate"})
TIMELINE_ROWS = 64
TIMELINE_MOMENTS = ("launched_s", "launch_end_s", "started_s", "ended_s", "settled_s")


class Model(Protocol):
    """What a sweep asks of a calibrated profile. Sent to worker processes, so picklable."""

    def replicate(self, seed: np.random.SeedSequence) -> tuple[StageCosts, HostCosts, Contention]:
        """One draw of the fitted parameters from their bootstrap."""
        ...

    def extrapolations(self, record: RunRecord) -> Sequence[str]:
        """What `record` asked for outside the measured range, one reason each."""
        ...


@dataclass(frozen=True, slots=True)
class Load:
    """A recipe for workload plans.

    Attributes:
        acceptance: injected acceptance; None for real tokens, which only a real engine has.
        concurrency: requests in flight (closed loop), or the C of `pdverify`; in the other
            protocols it only sizes the system under load.
        rate_per_s: `poisson` only.
        requests: `poisson`: how many; `trace`: how many of the first; `closed-loop`: completions
            measured after the warm-up. None: 8 x concurrency but at least 200, the whole trace,
            and `cycles`.
        trace: CSV file of the `trace` protocol.
        cycles: `closed-loop`: completions measured after the warm-up, in units of concurrency.
    """

    protocol: str
    concurrency: int
    lengths: Lengths
    acceptance: Acceptance | None
    rate_per_s: float | None = None
    requests: int | None = None
    trace: Path | None = None
    cycles: int = 2

    def __post_init__(self) -> None:
        check_concurrency(self.concurrency)
        if not 1 <= self.cycles <= 1000:
            raise InputError(f"cycles is {self.cycles}; it must be between 1 and 1000")
        if self.protocol not in PROTOCOLS:
            raise InputError(
                f"unknown protocol {self.protocol!r}; known are {', '.join(PROTOCOLS)}"
            )
        if self.requests is not None:
            if self.protocol == "pdverify":
                raise InputError("requests is not for the protocol pdverify, which has its own")
            if not 1 <= self.requests <= 10_000_000:
                raise InputError(f"requests is {self.requests}; it must be between 1 and 10000000")
        for name, needed_by in (("rate_per_s", "poisson"), ("trace", "trace")):
            given = getattr(self, name) is not None
            if given != (self.protocol == needed_by):
                verb = "is only for" if given else "is needed by"
                raise InputError(f"{name} {verb} the protocol {needed_by}")

    @property
    def longest(self) -> int:
        """Prompt and output tokens of the longest request."""
        plan = self.plan(np.random.SeedSequence(0))
        return max(p + o for p, o in zip(plan.prompt_tokens, plan.output_tokens, strict=True))

    def plan(self, seed: np.random.SeedSequence) -> Workload:
        """Draw one workload."""
        if self.protocol == "closed-loop":
            return closed_loop(
                self.concurrency,
                self.lengths,
                self.acceptance,
                seed,
                self.cycles,
                measured=self.requests,
            )
        if self.acceptance is None:
            raise InputError(f"real acceptance is only for closed-loop runs, not {self.protocol}")
        if self.rate_per_s is not None:
            count = self.requests or max(200, 8 * self.concurrency)
            return poisson(self.rate_per_s, count, self.lengths, self.acceptance, seed)
        if self.trace is not None:
            return trace(self.trace, self.acceptance, seed, limit=self.requests)
        return pdverify(self.concurrency, self.lengths, self.acceptance, seed)


@dataclass(frozen=True, slots=True)
class Cell:
    """One point of a grid: a configured architecture on a model pair under a load.

    Attributes:
        model: what to simulate it with; None for a cell that is only run for real.
    """

    config: Config
    pair: str
    load: Load
    model: Model | None = None

    def name(self) -> dict[str, str | int]:
        """The fields that identify the cell in JSON."""
        return {
            "architecture": self.config.name,
            "executor": self.config.executor.name,
            "pair": self.pair,
            "protocol": self.load.protocol,
            "concurrency": self.load.concurrency,
        }


@dataclass(frozen=True, eq=False)
class Run:
    """What comes back from one replication of one cell; small, as it crosses processes."""

    metrics: dict[str, float | None]
    acceptance_per_position: tuple[float, ...]
    reasons: dict[str, str]
    extrapolated: tuple[str, ...]
    stages: dict[str, dict[str, float]]
    timeline: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class CellResult:
    """One cell over all its replications.

    Attributes:
        metrics: prediction interval by metric name; None where most runs could not say.
        reasons: why a metric is None, or rests on fewer runs than there were.
        extrapolated: what lay outside the calibrated range, in any run.
        stages: seconds by stage and cause, mean over the runs (`metrics.stage_seconds`).
        timeline: stage executions of the first run after its warm-up.
    """

    cell: Cell
    runs: list[Run]
    metrics: dict[str, Interval | None]
    acceptance_per_position: list[Interval]
    reasons: dict[str, str]
    extrapolated: list[str]
    stages: dict[str, dict[str, float]]
    timeline: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """The cell as it stands in JSON documents."""
        return {
            **self.cell.name(),
            "replications": len(self.runs),
            **{
                name: interval.to_dict() if interval else None
                for name, interval in self.metrics.items()
            },
            "spec_decode_per_position_acceptance_rates": [
                interval.to_dict() for interval in self.acceptance_per_position
            ],
            "reasons": self.reasons,
            "extrapolated": self.extrapolated,
            "stages": self.stages,
            "timeline": self.timeline,
        }


def sweep(
    cells: Sequence[Cell],
    replications: int,
    seed: int,
    slo: Slo | None = None,
    workers: int | None = None,
    on_run: Callable[[int, int], None] | None = None,
    plans: int | None = None,
) -> list[CellResult]:
    """Simulate every cell `replications` times; results in the order of `cells`.

    Args:
        plans: distinct workload plans, taken in turn; None draws one for each replication. With
            as many plans as a benchmark had, predicted and measured runs pair up.
        workers: processes; None takes one per usable core.
        on_run: called with (runs done, runs in all) after each.
    """
    if not 1 <= replications <= 10_000:
        raise InputError(f"replications is {replications}; it must be between 1 and 10000")
    if not 0 <= seed < 2**63:
        raise InputError(f"seed is {seed}; it must be at least 0 and below 2^63")
    for cell in cells:
        architecture(cell.config.architecture)
    # Replications vary slowest, so a first result for every cell comes early.
    tasks = [
        (cell, seed, i, i % (plans or replications), slo)
        for i in range(replications)
        for cell in cells
    ]
    runs = run_all(simulate_cell, tasks, workers, on_run)
    return [combine(cell, runs[i :: len(cells)]) for i, cell in enumerate(cells)]


Task = tuple[Cell, int, int, int, Slo | None]


def simulate_cell(task: Task) -> Run:
    """Replication `index` of `cell`, checked against the invariants."""
    cell, seed, index, plan, slo = task
    assert cell.model is not None
    plan_seed, _ = replication_seeds(seed, plan)
    _, model_seed = replication_seeds(seed, index)
    costs, host, contention = cell.model.replicate(model_seed)
    record = simulate(cell.config, cell.load.plan(plan_seed), costs, host, contention)
    return evaluate(cell, record, slo, cell.model.extrapolations(record), draw=index == 0)


def replication_seeds(
    seed: int, index: int
) -> tuple[np.random.SeedSequence, np.random.SeedSequence]:
    """(workload plan, model parameters) of replication `index`. Spelled out instead of spawned
    from a shared parent, so that any process, and the real engine, can do it alone."""
    plan_seed, model_seed = np.random.SeedSequence(seed, spawn_key=(index,)).spawn(2)
    return plan_seed, model_seed


def evaluate(
    cell: Cell,
    record: RunRecord,
    slo: Slo | None = None,
    extrapolated: Sequence[str] = (),
    draw: bool = False,
) -> Run:
    """Check a record against the invariants and reduce it to its metrics; `draw` keeps a
    timeline."""
    check(record)
    summary = summarize(record, slo)
    metrics = dict(summary.metrics)
    if cell.load.protocol == "pdverify":
        metrics.update(pdverify_metrics(record))
    return Run(
        metrics,
        summary.acceptance_per_position,
        dict(summary.reasons),
        tuple(extrapolated),
        stage_seconds(record),
        timeline(record, summary.window_s[0]) if draw else [],
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


def combine(cell: Cell, runs: Sequence[Run]) -> CellResult:
    """A cell's metrics over its replications."""
    names = (*METRICS, *PDVERIFY_METRICS) if cell.load.protocol == "pdverify" else METRICS
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
        list(runs),
        metrics,
        [prediction_interval(rates, 0.0, 1.0) for rates in positions],
        reasons,
        _alike_once(reason for run in runs for reason in run.extrapolated),
        _mean_stages(runs),
        runs[0].timeline,
    )


def _alike_once(reasons: Iterable[str]) -> list[str]:
    """The first of those sentences that differ in their numbers only."""
    first: dict[str, str] = {}
    for reason in reasons:
        first.setdefault(re.sub(r"\d+", "#", reason), reason)
    return list(first.values())


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
