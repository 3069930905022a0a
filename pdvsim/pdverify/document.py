"""The document of a reproduction: the answer behind `pdvsim reproduce`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pdvsim.documents import tables as documents
from pdvsim.documents.base import PUBLISHED_ENGINES, RunLength
from pdvsim.documents.head import calibration, head
from pdvsim.pdverify.published import PublishedCell
from pdvsim.pdverify.reproduce import Reproduced, Timings
from pdvsim.profile import Profile
from pdvsim.statistics import Interval
from pdvsim.verdict import PENDING, judged

Samples = NDArray[np.float64]
CENTRAL = (0.025, 0.975)
ROUNDED = 0.005  # published throughputs are rounded to 0.01


def document(
    found: Reproduced,
    profile: Profile,
    files: Sequence[Path],
    seed: int,
    command: str | None = None,
) -> documents.Reproduction:
    """What `found` says. Interval: the central 95 % of the simulated runs. Value: their median."""
    rows = [_row(cell, runs) for cell, runs in zip(found.cells, found.samples, strict=True)]
    errors = [abs(row.predicted.tps.value / row.published.tps - 1.0) for row in rows]
    source = _source(found.timings)
    rounds = ", ".join(f"{one.engine} {one.round_ms:.1f} ms" for one in source.rounds)
    made = documents.Reproduction(
        **head("reproduce", command),
        subject=f"published table {files[0]}",
        valid_for=PUBLISHED_ENGINES,
        interval="central 95 % of simulated runs",
        verdict=PENDING,
        notes=(
            f"Calibrated from {len(source.rows)} rows at C <= 2: round {rounds}; prefill "
            f"{source.prefill_ms:.1f} ms; run-to-run spread {100 * source.run_spread:.1f} %.",
            "GIL and locks as the profile has them; its stage times are not used.",
        ),
        seed=seed,
        replications=found.samples.shape[1],
        files=tuple(map(str, files)),
        length=RunLength(
            runs=found.samples.shape[1],
            seconds=float(found.samples[:, :, 3].mean()),
            requests=float(found.samples[:, :, 2].mean()),
        ),
        cells=tuple(rows),
        gains=tuple(_gains(found.cells, found.samples)),
        median_abs_error_tps=float(np.median(errors)),
        inside_interval=sum(row.inside_interval for row in rows),
        calibrated_from=source,
        profile=calibration(profile),
    )
    return judged(made)


def _source(timings: Timings) -> documents.CalibratedFrom:
    return documents.CalibratedFrom(
        rows=tuple(
            documents.CalibrationRow(engine=engine, concurrency=at, request=request)
            for engine, at, request in timings.rows
        ),
        rounds=tuple(
            documents.Round(engine=engine, round_ms=1e3 * seconds)
            for engine, seconds in timings.round_s.items()
        ),
        prefill_ms=1e3 * timings.prefill_s,
        run_spread=timings.spread,
    )


def _row(cell: PublishedCell, runs: Samples) -> documents.ReproducedRow:
    tps, latency_ms, completed, _ = runs.T
    low, high = (float(end) for end in np.quantile(tps, CENTRAL))
    published = cell.throughput_tokens_per_s
    known = latency_ms[~np.isnan(latency_ms)]
    latency = None
    if len(known):
        ends = (float(end) for end in np.quantile(known, CENTRAL))
        latency = Interval(float(np.median(known)), *ends)
    return documents.ReproducedRow(
        engine=cell.engine,
        concurrency=cell.concurrency,
        published=documents.PublishedFigures(
            tps=published, latency_ms=1e3 * cell.latency_s, completed=len(cell.requests)
        ),
        predicted=documents.PredictedFigures(
            tps=Interval(float(np.median(tps)), low, high),
            latency_ms=latency,
            completed=float(np.median(completed)),
        ),
        inside_interval=bool(low - ROUNDED <= published <= high + ROUNDED),
    )


def _gains(cells: Sequence[PublishedCell], samples: Samples) -> list[documents.Gain]:
    """PDV / PD at every C that has both: throughput and latency ratios, paired by seed."""
    index = {(cell.engine, cell.concurrency): i for i, cell in enumerate(cells)}
    gains = []
    for at in sorted({cell.concurrency for cell in cells}):
        if ("PD", at) not in index or ("PDV", at) not in index:
            continue
        pd, pdv = index["PD", at], index["PDV", at]
        below, above = cells[pd], cells[pdv]
        latencies = [_median(samples[i, :, 1]) for i in (pdv, pd)]
        gains.append(
            documents.Gain(
                concurrency=at,
                published=above.throughput_tokens_per_s / below.throughput_tokens_per_s,
                predicted=_ratio(samples[pdv, :, 0], samples[pd, :, 0]),
                published_latency_ratio=above.latency_s / below.latency_s,
                predicted_latency_ratio=(
                    latencies[0] / latencies[1] if latencies[0] and latencies[1] else None
                ),
            )
        )
    return gains


def _median(values: Samples) -> float | None:
    """Over the runs that know; None where none does."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else None


def _ratio(above: Samples, below: Samples) -> Interval | None:
    """Of two throughputs; None, or without an end, where it would be infinite."""
    if not np.median(below):
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = above / below
    # Of two runs, not between them: a ratio to no completed request at all is infinite.
    known = ratios[~np.isnan(ratios)]
    low, high = np.quantile(known, CENTRAL, method="nearest")
    return Interval(float(np.median(above) / np.median(below)), _end(low), _end(high))


def _end(value: float) -> float | None:
    """JSON has no infinity."""
    return float(value) if np.isfinite(value) else None
