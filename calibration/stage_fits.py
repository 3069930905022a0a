"""From samples to the fitted costs of each stage, and to the host's figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from calibration.fit import (
    DRAWS,
    OUTLIER,
    Corrected,
    Point,
    estimate,
    fit_cost,
    left_out,
    noise_quantiles,
)
from pdvsim.core import PREFILLS, Executor, Stage
from pdvsim.cost_fit import ABOVE, CostFit, Load, term_value
from pdvsim.profile_file import Estimate, Range, StageFit, host_load
from pdvsim.work import Work

Samples = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What an engine pads its launches to: batches of rounds, rows of prefills, and both of mixed
    passes; ascending, and empty for no padding."""

    batches: tuple[int, ...] = ()
    prefill_rows: tuple[int, ...] = ()
    mixed_batches: tuple[int, ...] = ()
    mixed_rows: tuple[int, ...] = ()

    def of(self, stage: Stage) -> tuple[list[int], list[int]]:
        if stage in PREFILLS:
            return [], [*self.prefill_rows]
        if stage is Stage.MIXED:
            return [*self.mixed_batches], [*self.mixed_rows]
        return [*self.batches], []


_HINGES = [f"{ABOVE}{place}" for place in (16, 32, 64, 128, 256, 512, 1024)]
_OF_PROMPTS = ["fixed", "per_query_token", "per_prompt_pair", "per_request", *_HINGES[2:]]
_DEVICE_TERMS = {
    Stage.PREFILL_DRAFT: _OF_PROMPTS,
    Stage.PREFILL_VERIFIER: _OF_PROMPTS,
    Stage.MIXED: [*_OF_PROMPTS, "per_look_back", "per_context_token"],
    Stage.DRAFT: [
        *("fixed", "per_pass", "per_request", "per_query_token"),
        *("per_context_token", "per_mean_context", *_HINGES),
    ],
}
_OF_ROUNDS = [
    *("fixed", "per_request", "per_query_token"),
    *("per_context_token", "per_mean_context", *_HINGES),
]
_CONTEXT = "per_context_token"
_EAGER_TERMS = ["per_pass", "per_query_token", "per_context_token"]


def fit_stages(
    samples: Samples,
    kernels: Samples,
    executor: Executor,
    sizes: Sizes,
    cuda: bool,
    rng: np.random.Generator,
) -> dict[Stage, StageFit]:
    """One fit per stage.

    Device time comes from `kernels`, or from trains; on the CPU the launching thread does all the
    work, so the device has none.
    """
    by_stage, device_rows = _by_stage(samples), _by_stage(kernels or _hidden(samples))
    fits: dict[Stage, StageFit] = {}
    for stage, rows in by_stage.items():
        batches, tokens = sizes.of(stage)
        shape = StageFit.model_construct(buckets=batches, token_buckets=tokens)
        terms, corrected = _device_form(stage, executor, cuda)
        points = _points(device_rows[stage], shape.load, _device_s if cuda else _free)
        known_s = 0.0
        if stage is Stage.MIXED and Stage.VERIFY in fits and not _varied(rows):
            device = fits[Stage.VERIFY].device
            known_s = dict(zip(device.terms, device.weights, strict=True)).get(_CONTEXT, 0.0)
        device = _fit_device(points, terms, rng, corrected, known_s)
        plain = [row for row in rows if not row["hidden"]]
        if cuda and not executor.synchronous:
            host = fit_exposed_host(plain, device, shape.load, rng)
        else:
            terms = ["fixed", "per_pass", "per_query_token"]
            if executor.batched:
                terms += ["per_request", "per_context_token"]
            points = _points(plain, host_load, lambda row: _whole_s(row, cuda))
            host = fit_cost(points, terms, rng)
        fits[stage] = StageFit(
            host=host,
            device=device,
            measured=_range(stage, rows),
            buckets=batches,
            token_buckets=tokens,
        )
    return fits


def fit_exposed_host(
    rows: Samples,
    device: CostFit,
    load_of: Callable[[Work], Load],
    rng: np.random.Generator,
) -> CostFit:
    """Host time of a batched stage that the device does not hide: the whole time of a launch that
    nothing disturbed, from the call to the settled tokens, less the device's.

    What the host does once the device has begun (queueing copies back, say) overlaps and does not
    count; what it does after the end (waking up, settling) does, and so does what a device that
    was idle takes longer than in a train. It is a small difference of large numbers, so it is
    fitted by absolute error, and its noise is that of the launch call.
    """
    terms = ["fixed", "per_request", "per_query_token"]

    def exposed_s(row: dict[str, Any]) -> float:
        busy_s = min(_device_s(row), device.seconds(load_of(work_of_row(row))))
        return max(0.0, float(row["launch_s"]) + float(row["wait_s"]) - busy_s)

    points = _points(rows, host_load, exposed_s)
    design = np.array([[term_value(term, one.load) for term in terms] for one in points])
    size = np.maximum(np.abs(design).max(axis=0), 1e-12)

    def solve(medians: Sequence[float]) -> list[float]:
        return [float(weight) for weight in nnls(design / size, np.array(medians))[0] / size]

    weights = solve([one.median_s for one in points])
    launches = _points(rows, host_load, lambda row: float(row["launch_s"]))
    ratios = np.concatenate([one.seconds / one.median_s for one in launches])
    usual = ratios[ratios <= OUTLIER]
    whole_s = [one.median_s for one in _points(rows, host_load, lambda row: _whole_s(row, False))]
    missed = (design @ weights - np.array([one.median_s for one in points])) / np.array(whole_s)
    return CostFit(
        terms=terms,
        weights=weights,
        draws=[
            solve([float(np.median(rng.choice(one.seconds, len(one.seconds)))) for one in points])
            for _ in range(DRAWS)
        ],
        noise=noise_quantiles(usual),
        outliers=len(ratios) - len(usual),
        residual_rms=float(np.sqrt(np.mean(missed**2))),
    )


def _device_form(
    stage: Stage, executor: Executor, cuda: bool
) -> tuple[list[str], Corrected | None]:
    """(terms, correction) of a device cost."""
    if executor.synchronous:
        return _EAGER_TERMS, None
    corrected = Corrected.BY_ROWS if stage is Stage.MIXED else Corrected.BY_SHAPE
    return _DEVICE_TERMS.get(stage, _OF_ROUNDS), corrected if cuda else None


def _varied(rows: Samples) -> bool:
    """Whether rounds of mixed passes were measured at contexts of many lengths."""
    each = [row["context_tokens"] / (row["batch"] - row["prompts"]) for row in rows]
    return float(np.max(each)) > 2.0 * float(np.median(each))


def _fit_device(
    points: Sequence[Point],
    terms: Sequence[str],
    rng: np.random.Generator,
    corrected: Corrected | None,
    known_s: float,
) -> CostFit:
    """A fit whose cost of a cached token is known, if above 0: it is the same model's in another
    stage, and cannot be told from points that all had the same context."""
    if not known_s:
        return fit_cost(points, terms, rng, corrected)
    without = [
        Point(one.load, np.maximum(one.seconds - known_s * one.load.context, 1e-9))
        for one in points
    ]
    fit = fit_cost(without, [term for term in terms if term != _CONTEXT], rng, corrected)
    return fit.model_copy(
        update={
            "terms": [*fit.terms, _CONTEXT],
            "weights": [*fit.weights, known_s],
            "draws": [[*draw, known_s] for draw in fit.draws],
        }
    )


def residuals(
    samples: Samples, kernels: Samples, executor: Executor, fits: Mapping[Stage, StageFit]
) -> Samples:
    """Each measured point of the device beside its fits: a row of its load, seconds measured,
    fitted / measured - 1, and the same of a fit that does not know it."""
    rows: Samples = []
    for stage, own in _by_stage(kernels or _hidden(samples)).items():
        fit = fits[stage]
        points = _points(own, fit.load, _device_s)
        errors = left_out(points, *_device_form(stage, executor, True))
        for point, error in zip(points, errors.tolist(), strict=True):
            fitted_s = fit.device.seconds(point.load)
            rows.append(
                {
                    "stage": str(stage),
                    **point.load._asdict(),
                    "launches": len(point.seconds),
                    "measured_s": point.median_s,
                    "fitted_off": fitted_s / point.median_s - 1.0,
                    "left_out_off": error,
                }
            )
    return rows


def _by_stage(samples: Samples) -> dict[Stage, Samples]:
    found: dict[Stage, Samples] = defaultdict(list)
    for sample in samples:
        stage = Stage(sample["stage"])
        if stage is Stage.MIXED and sample["prompts"] == sample["batch"]:
            continue  # that is a prefill, by another name
        found[stage].append(sample)
    return found


def _hidden(samples: Samples) -> Samples:
    return [sample for sample in samples if sample["hidden"]] or samples


def _points(
    rows: Samples, load_of: Callable[[Work], Load], seconds_of: Callable[[dict[str, Any]], float]
) -> list[Point]:
    """Launches of the same kind after prompts of the same length; their contexts differ by a few
    tokens, and count as their mean."""
    alike: dict[tuple[Any, ...], Samples] = defaultdict(list)
    for row in rows:
        work = work_of_row(row)
        kind = load_of(work._replace(context_tokens=0)), row["prompt_tokens"]
        alike[kind].append(row)
    return [
        Point(
            load._replace(context=float(np.mean([row["context_tokens"] for row in same]))),
            np.array([seconds_of(row) for row in same]),
        )
        for (load, _), same in alike.items()
    ]


def _device_s(row: dict[str, Any]) -> float:
    return float(row["device_s"])


def _free(row: dict[str, Any]) -> float:
    return 0.0


def _whole_s(sample: dict[str, Any], cuda: bool) -> float:
    """Host time of a launch; on the CPU with what settling takes."""
    return float(sample["launch_s"]) + (0.0 if cuda else float(sample["wait_s"]))


def _range(stage: Stage, rows: Samples) -> Range:
    works = [work_of_row(row) for row in rows]

    def ends(values: list[int]) -> tuple[int, int]:
        return min(values), max(values)

    rounds = [work for work in works if work.batch > work.prompts] or works
    return Range(
        batch=ends([work.batch for work in works]),
        passes=ends([work.passes for work in works]),
        new_tokens=ends([work.longest_new_tokens for work in rounds]),
        context_tokens=ends([-(-work.context_tokens // work.batch) for work in rounds]),
        chunk_tokens=ends([work.new_tokens for work in works]) if stage is Stage.MIXED else None,
    )


def work_of_row(row: dict[str, Any]) -> Work:
    """The work of a sample."""
    return Work(*[row[name] for name in Work._fields])


def run_spread(passes: Sequence[Samples]) -> float:
    """Relative standard deviation of host speed between passes: each pass is the mean, over its
    stages, of the log of the stage's median launch time."""
    speeds = []
    for samples in passes:
        by_stage = defaultdict(list)
        for sample in samples:
            if not sample["hidden"]:
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
