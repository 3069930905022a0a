"""Reproduces a published pdverify table from its own rows at C <= 2.

Calibrated from those rows: the seconds of one round, per engine, and of one prefill. Everything
else is mechanism: lane programs, arrivals, the time limit, and, from our own GPU, what two
threads under one GIL and one lock do to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pdvsim.core import Stage
from pdvsim.des import HostCosts, simulate
from pdvsim.errors import InputError
from pdvsim.pdverify.protocol import figures
from pdvsim.pdverify.published import PublishedCell, RequestWork, config_of
from pdvsim.pool import run_all
from pdvsim.work import Work

CALIBRATION_LIMIT = 2
# Forward passes of each stage in one round, and of the two prefills.
_SHARE_OF_ROUND = {
    Stage.DRAFT: 3 / 6,
    Stage.VERIFY: 1 / 6,
    Stage.COMMIT_DRAFT: 1 / 6,
    Stage.COMMIT_VERIFIER: 1 / 6,
}


@dataclass(frozen=True, slots=True)
class Timings:
    """What the rows at C <= 2 say.

    Attributes:
        round_s: seconds of one round, by engine.
        prefill_s: seconds of one prefill.
        spread: relative standard deviation of a round's time from run to run.
        spread_degrees: degrees of freedom behind `spread`.
        rows: (engine, C, request id) of the rows used.
    """

    round_s: Mapping[str, float]
    prefill_s: float
    spread: float
    spread_degrees: int
    rows: tuple[tuple[str, int, int], ...]

    def draw_factor(self, engine: str, rng: np.random.Generator) -> float:
        """Speed of one new run against the calibrated mean: a t-distributed prediction, since
        both the mean and the spread come from a handful of rows."""
        samples = sum(1 for name, _, _ in self.rows if name == engine)
        scale = self.spread * np.sqrt(1.0 + 1.0 / samples)
        return float(np.exp(scale * rng.standard_t(self.spread_degrees)))


def calibrate(cells: Sequence[PublishedCell]) -> Timings:
    """Read the timings off the rows at C <= 2.

    Raises:
        InputError: an engine has fewer than two rows there.
    """
    rounds: dict[str, list[float]] = {cell.engine: [] for cell in cells}
    prefills, rows = [], []
    for cell in cells:
        if cell.concurrency <= CALIBRATION_LIMIT:
            for request in cell.requests:
                rounds[cell.engine].append(request.decode_s / request.work[0])
                prefills.append(request.prefill_s)
                rows.append((cell.engine, cell.concurrency, request.id))
    for engine, values in rounds.items():
        if len(values) < 2:
            raise InputError(
                f"engine {engine} has {len(values)} completed requests at C <= "
                f"{CALIBRATION_LIMIT}; two are needed to calibrate it"
            )
    residuals = np.concatenate([np.log(v) - np.mean(np.log(v)) for v in rounds.values()])
    degrees = len(residuals) - len(rounds)
    return Timings(
        round_s={engine: float(np.mean(values)) for engine, values in rounds.items()},
        # The median, because the first prefill of a process also pays for its cold start.
        prefill_s=float(np.median(prefills)),
        spread=float(np.sqrt(np.sum(residuals**2) / degrees)),
        spread_degrees=degrees,
        rows=tuple(rows),
    )


@dataclass(frozen=True, slots=True)
class PublishedCosts:
    """Stage costs of the published engine: host time only, since its GPU waits for the host."""

    round_s: float
    prefill_s: float

    def cost(self, stage: Stage, work: Work) -> tuple[float, float]:
        share = _SHARE_OF_ROUND.get(stage)
        return (self.prefill_s / 2 if share is None else self.round_s * share), 0.0


@dataclass(frozen=True, eq=False)
class Reproduced:
    """A published table and its simulated runs.

    Attributes:
        samples: of each run throughput (tokens/s), latency (ms, NaN where nothing completed),
            completed requests and length (s), shape (cells, replications, 4).
    """

    cells: Sequence[PublishedCell]
    samples: NDArray[np.float64]
    timings: Timings


@dataclass(frozen=True, slots=True)
class _Task:
    cell: PublishedCell
    work: RequestWork
    timings: Timings
    host: HostCosts
    workload_seed: np.random.SeedSequence
    machine_seed: np.random.SeedSequence


def _run(task: _Task) -> list[float]:
    """Tokens/s, latency in ms, completed requests and seconds of one run; NaN where it cannot
    say."""
    machine_rng = np.random.default_rng(task.machine_seed)
    workload_rng = np.random.default_rng(task.workload_seed)
    factor = task.timings.draw_factor(task.cell.engine, machine_rng)
    costs = PublishedCosts(
        task.timings.round_s[task.cell.engine] * factor, task.timings.prefill_s * factor
    )
    config = config_of(task.cell)
    workload = task.work.workload(task.cell, workload_rng)
    record = simulate(config, workload, costs, task.host)
    found = (*figures(record).values(), record.end_s)
    return [float("nan") if value is None else value for value in found]


def reproduce(
    cells: Sequence[PublishedCell],
    host: HostCosts,
    replications: int,
    seed: int,
    workers: int | None = None,
    on_run: Callable[[int, int], None] | None = None,
) -> Reproduced:
    """Simulate every cell `replications` times, each run with its own machine speed and its own
    draw of the unknown rounds."""
    timings = calibrate(cells)
    work = RequestWork(cells)
    # Cells share the draws of unknown work (common random numbers); every cell was a run of its
    # own on the machine, so machine speed is drawn for each.
    workload_seed, machine_seed = np.random.SeedSequence(seed).spawn(2)
    workload_seeds = workload_seed.spawn(replications)
    tasks = [
        _Task(cell, work, timings, host, *pair)
        for cell, cell_seed in zip(cells, machine_seed.spawn(len(cells)), strict=True)
        for pair in zip(workload_seeds, cell_seed.spawn(replications), strict=True)
    ]
    runs = run_all(_run, tasks, workers, on_run)
    samples = np.array(runs, dtype=float).reshape(len(cells), replications, 4)
    return Reproduced(cells, samples, timings)
