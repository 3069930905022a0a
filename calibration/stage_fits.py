"""From samples to the fitted costs of each stage, and to the host's figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from calibration.fit import Timing, estimate, fit_cost
from pdvsim.core import Stage
from pdvsim.profile import CostFit, Estimate, Range, StageFit
from realengine.engine import Engine

Samples = list[dict[str, Any]]

_PREFILLS = (Stage.PREFILL_DRAFT, Stage.PREFILL_VERIFIER)
_WIDE = ["query_above_64", "query_above_128", "query_above_256", "query_above_512"]


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
        prefill = stage in _PREFILLS
        plain = [row for row in rows if not row["hidden"]]
        device = fit_cost(
            [_timing(row, row["device_s"] if cuda else 0.0) for row in device_rows[stage]],
            _device_terms(synchronous, prefill),
            rng,
        )
        exposed = cuda and not synchronous
        host = fit_cost(
            [
                _timing(r, exposed_host_s(r, device) if exposed else _whole_s(r, cuda))
                for r in plain
            ],
            ["fixed", "per_query_token" if prefill else "per_request"]
            if not synchronous or prefill
            else ["fixed"],
            rng,
        )
        fits[stage] = StageFit(
            host=host,
            device=device,
            measured=_range(rows),
            buckets=[] if prefill else buckets,
        )
    return fits


def exposed_host_s(sample: dict[str, Any], device: CostFit) -> float:
    """Host time of a batched stage that the device does not hide: all of it less the device's.

    What the host does after the device has begun (queueing the copies back, say) overlaps and does
    not count; what it does after the end (waking up, settling) does.
    """
    work = sample["batch"], sample["query_tokens"], sample["context_tokens"]
    whole_s = float(sample["launch_s"]) + float(sample["wait_s"])
    return max(whole_s - device.seconds(*work), 0.1 * float(sample["launch_s"]))


def _whole_s(sample: dict[str, Any], cuda: bool) -> float:
    """Host time of a launch; on the CPU with what settling takes."""
    return float(sample["launch_s"]) + (0.0 if cuda else float(sample["wait_s"]))


def _device_terms(synchronous: bool, prefill: bool) -> list[str]:
    terms = ["fixed", "per_query_token", "per_context_token"]
    if synchronous:
        return terms
    if prefill:
        return ["fixed", "per_query_token", "per_query_pair", *_WIDE]
    return [*terms, "per_request", *_WIDE]


def _range(rows: Samples) -> Range:
    ends = {
        key: (min(row[key] for row in rows), max(row[key] for row in rows))
        for key in ("batch", "query_tokens", "context_tokens")
    }
    return Range(**ends)


def _timing(sample: dict[str, Any], seconds: float) -> Timing:
    return Timing(sample["batch"], sample["query_tokens"], sample["context_tokens"], seconds)


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
