"""From samples to the fitted costs of each stage, and to the host's figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import nnls

from calibration.fit import DRAWS, OUTLIER, Timing, estimate, fit_cost, noise_quantiles
from pdvsim.core import PREFILLS, Stage
from pdvsim.cost_fit import CostFit, Load, term_value
from pdvsim.profile_file import Estimate, Range, StageFit, host_load
from pdvsim.work import Work
from realengine.engine import Engine

Samples = list[dict[str, Any]]

_WIDE = [f"rows_above_{place}" for place in (64, 128, 256, 512)]


def fit_stages(
    samples: Sequence[dict[str, Any]],
    kernels: Sequence[dict[str, Any]],
    engine: Engine,
    cuda: bool,
    rng: np.random.Generator,
) -> dict[Stage, StageFit]:
    """One fit per stage.

    Device time comes from `kernels`, or from launches that were hidden; on the CPU the launching
    thread does all the work, so the device has none.
    """
    synchronous = engine.executor.synchronous
    buckets = list(engine.batch_sizes)
    by_stage: dict[Stage, Samples] = defaultdict(list)
    device_rows: dict[Stage, Samples] = defaultdict(list)
    for sample in samples:
        by_stage[Stage(sample["stage"])].append(sample)
    for sample in kernels or [s for s in samples if s["hidden"]] or samples:
        device_rows[Stage(sample["stage"])].append(sample)
    fits = {}
    for stage, rows in by_stage.items():
        prefill = stage in PREFILLS
        plain = [row for row in rows if not row["hidden"]]
        device = fit_cost(
            [_timing(row, row["device_s"] if cuda else 0.0) for row in device_rows[stage]],
            _device_terms(synchronous, prefill),
            rng,
        )
        if cuda and not synchronous:
            host = fit_exposed_host(plain, device, prefill, rng)
        else:
            terms = ["fixed", "per_query_token"] if prefill else ["per_pass"]
            host = fit_cost([_timing(row, _whole_s(row, cuda)) for row in plain], terms, rng)
        fits[stage] = StageFit(
            host=host,
            device=device,
            measured=_range(rows),
            buckets=[] if prefill else buckets,
        )
    return fits


def fit_exposed_host(
    rows: Samples, device: CostFit, prefill: bool, rng: np.random.Generator
) -> CostFit:
    """Host time of a batched stage that the device does not hide: the whole time of a launch that
    nothing disturbed, from the call to the settled tokens, less the device's.

    What the host does once the device has begun (queueing copies back, say) overlaps and does not
    count; what it does after the end (waking up, settling) does. It is a small difference of
    large numbers, so it is fitted by absolute error, and its noise is that of the launch call.
    """
    points: dict[Load, Samples] = defaultdict(list)
    for row in rows:
        points[host_load(work_of_row(row))].append(row)
    terms = ["fixed", "per_query_token" if prefill else "per_request"]
    design = np.array([[term_value(term, load) for term in terms] for load in points])
    size = np.abs(design).max(axis=0)
    device_s = np.array([device.seconds(load) for load in points])
    whole_s = [np.array([r["launch_s"] + r["wait_s"] for r in same]) for same in points.values()]

    def solve(medians: Sequence[float]) -> list[float]:
        exposed = np.maximum(np.array(medians) - device_s, 0.0)
        return [float(weight) for weight in nnls(design / size, exposed)[0] / size]

    weights = solve([np.median(values) for values in whole_s])
    ratios = np.concatenate(
        [
            np.array([r["launch_s"] for r in same]) / np.median([r["launch_s"] for r in same])
            for same in points.values()
        ]
    )
    usual = ratios[ratios <= OUTLIER]
    residuals = np.array([np.median(v) for v in whole_s]) / (device_s + design @ weights) - 1.0
    return CostFit(
        terms=terms,
        weights=weights,
        draws=[
            solve([np.median(rng.choice(values, len(values))) for values in whole_s])
            for _ in range(DRAWS)
        ],
        noise=noise_quantiles(usual),
        outliers=len(ratios) - len(usual),
        residual_rms=float(np.sqrt(np.mean(residuals**2))),
    )


def _whole_s(sample: dict[str, Any], cuda: bool) -> float:
    """Host time of a launch; on the CPU with what settling takes."""
    return float(sample["launch_s"]) + (0.0 if cuda else float(sample["wait_s"]))


def _device_terms(synchronous: bool, prefill: bool) -> list[str]:
    terms = ["per_pass", "per_query_token", "per_context_token"]
    if synchronous:
        return terms
    if prefill:
        return ["fixed", "per_query_token", "per_prompt_pair", *_WIDE]
    return [*terms, "per_request", *_WIDE]


def _range(rows: Samples) -> Range:
    works = [work_of_row(row) for row in rows]

    def ends(values: list[int]) -> tuple[int, int]:
        return min(values), max(values)

    return Range(
        batch=ends([work.batch for work in works]),
        passes=ends([work.passes for work in works]),
        new_tokens=ends([work.longest_new_tokens for work in works]),
        context_tokens=ends([work.context_tokens // work.batch for work in works]),
    )


def work_of_row(row: dict[str, Any]) -> Work:
    """The work of a sample."""
    return Work(*[row[name] for name in Work._fields])


def _timing(sample: dict[str, Any], seconds: float) -> Timing:
    return Timing(host_load(work_of_row(sample)), seconds)


def run_spread(passes: Sequence[Samples]) -> float:
    """Relative standard deviation of host speed between passes: each pass is the mean, over its
    stages, of the log of the stage's median launch time."""
    speeds = []
    for samples in passes:
        by_stage = defaultdict(list)
        for sample in samples:
            by_stage[sample["stage"]].append(sample["launch_s"])
        speeds.append(np.mean([np.log(np.median(values)) for values in by_stage.values()]))
    return float(np.std(speeds, ddof=1)) if len(speeds) > 1 else 0.0


def gil_speeds(
    races: Sequence[Sequence[dict[str, list[float]]]], rng: np.random.Generator
) -> list[Estimate]:
    """Speed of each of n launching threads relative to alone, n = 1, 2, ...: the geometric mean
    over the threads, round by round of the race."""
    speeds = [Estimate(value=1.0, low=1.0, high=1.0)]
    for rounds in races:
        ratios = np.array([r["together"] for r in rounds]) / np.array([r["alone"] for r in rounds])
        relative = np.exp(np.mean(np.log(np.clip(ratios, 1e-3, None)), axis=1))
        speeds.append(estimate(np.minimum(relative, 1.0).tolist(), rng))
    return speeds
