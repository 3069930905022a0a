"""Reproduces a published pdverify table from its own rows at C <= 2.

Calibrated from those rows: the seconds of one round, per engine, and of one prefill. Everything
else is mechanism: lane programs, arrivals, the time limit, and, from our own GPU, what two
threads under one GIL and one lock do to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pdvsim.architectures import Config
from pdvsim.core import EAGER, Stage
from pdvsim.des import HostCosts, simulate
from pdvsim.errors import InputError
from pdvsim.pdverify.protocol import figures
from pdvsim.pdverify.published import PublishedCell, RequestWork
from pdvsim.pool import run_all

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

    def cost(
        self, stage: Stage, batch: int, query_tokens: int, context_tokens: int
    ) -> tuple[float, float]:
        share = _SHARE_OF_ROUND.get(stage)
        return (self.prefill_s / 2 if share is None else self.round_s * share), 0.0


@dataclass(frozen=True, slots=True)
class _Task:
    cell: PublishedCell
    work: RequestWork
    timings: Timings
    host: HostCosts
    workload_seed: np.random.SeedSequence
    machine_seed: np.random.SeedSequence


def _run(task: _Task) -> list[float]:
    """Tokens/s, latency in ms and completed requests of one run; NaN where it cannot say."""
    machine_rng = np.random.default_rng(task.machine_seed)
    workload_rng = np.random.default_rng(task.workload_seed)
    factor = task.timings.draw_factor(task.cell.engine, machine_rng)
    costs = PublishedCosts(
        task.timings.round_s[task.cell.engine] * factor, task.timings.prefill_s * factor
    )
    config = Config(task.cell.architecture, EAGER, batch_cap=task.cell.concurrency)
    workload = task.work.workload(task.cell, workload_rng)
    found = figures(simulate(config, workload, costs, task.host))
    return [float("nan") if value is None else value for value in found.values()]


def reproduce(
    cells: Sequence[PublishedCell],
    host: HostCosts,
    replications: int,
    seed: int,
    workers: int | None = None,
    on_run: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Predict every cell; the JSON document of `pdvsim reproduce`, without provenance.

    Interval: the central 95 % of `replications` simulated runs, each with its own machine speed
    and its own draw of the unknown rounds. Value: their median.
    """
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
    samples = np.array(runs, dtype=float).reshape(len(cells), replications, 3)
    rows = [_cell(cell, runs) for cell, runs in zip(cells, samples, strict=True)]
    errors = [abs(row["predicted_tps"] / row["published_tps"] - 1.0) for row in rows]
    return {
        "cells": rows,
        "gains": _gains(cells, samples),
        "median_abs_error_tps": float(np.median(errors)),
        "inside_interval": sum(row["inside_interval"] for row in rows),
        "calibrated_from": {
            "rows": [{"engine": e, "concurrency": c, "request": i} for e, c, i in timings.rows],
            "round_ms": {engine: 1e3 * s for engine, s in timings.round_s.items()},
            "prefill_ms": 1e3 * timings.prefill_s,
            "run_spread": timings.spread,
        },
        "replications": replications,
        "seed": seed,
    }


def _number(value: float) -> float | None:
    """JSON has no infinity: a ratio to zero completed requests is None."""
    return float(value) if np.isfinite(value) else None


def _quantile(values: np.ndarray[Any, Any], share: float) -> float | None:
    """Over the runs that know; None where none does."""
    known = values[~np.isnan(values)]
    return float(np.quantile(known, share)) if len(known) else None


def _cell(cell: PublishedCell, runs: np.ndarray[Any, Any]) -> dict[str, Any]:
    tps, latency_ms, completed = runs[:, 0], runs[:, 1], runs[:, 2]
    low, high = np.quantile(tps, [0.025, 0.975])
    published = cell.throughput_tokens_per_s
    # Published throughputs are rounded to 0.01.
    inside = bool(low - 0.005 <= published <= high + 0.005)
    return {
        "engine": cell.engine,
        "concurrency": cell.concurrency,
        "published_tps": published,
        "predicted_tps": float(np.median(tps)),
        "predicted_tps_low": float(low),
        "predicted_tps_high": float(high),
        "inside_interval": inside,
        "published_latency_ms": cell.latency_s * 1e3,
        "predicted_latency_ms": _quantile(latency_ms, 0.5),
        "predicted_latency_ms_low": _quantile(latency_ms, 0.025),
        "predicted_latency_ms_high": _quantile(latency_ms, 0.975),
        "published_completed": len(cell.requests),
        "predicted_completed": float(np.median(completed)),
    }


def _gains(cells: Sequence[PublishedCell], samples: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    """PDV / PD at every C that has both: throughput and latency ratios, paired by seed."""
    index = {(cell.engine, cell.concurrency): i for i, cell in enumerate(cells)}
    gains = []
    for concurrency in sorted({cell.concurrency for cell in cells}):
        if ("PD", concurrency) not in index or ("PDV", concurrency) not in index:
            continue
        pd, pdv = index["PD", concurrency], index["PDV", concurrency]
        tps = [cells[i].throughput_tokens_per_s for i in (pd, pdv)]
        latency = [cells[i].latency_s for i in (pd, pdv)]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = samples[pdv, :, 0] / samples[pd, :, 0]
            tps_ratio = np.median(samples[pdv, :, 0]) / np.median(samples[pd, :, 0])
        # Of two runs, not between them: a ratio to no completed request at all is infinite.
        known = ratios[~np.isnan(ratios)] if not np.isnan(ratios).all() else np.array([np.inf])
        low, high = np.quantile(known, [0.025, 0.975], method="nearest")
        latencies = [_quantile(samples[i, :, 1], 0.5) for i in (pdv, pd)]
        gains.append(
            {
                "concurrency": concurrency,
                "published": tps[1] / tps[0],
                "predicted": _number(tps_ratio),
                "predicted_low": _number(low),
                "predicted_high": _number(high),
                "published_latency_ratio": latency[1] / latency[0],
                "predicted_latency_ratio": (
                    latencies[0] / latencies[1] if latencies[0] and latencies[1] else None
                ),
            }
        )
    return gains
