"""Fits measured seconds with physical terms: weights >= 0, so cost never decreases in work."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from pdvsim.cost_fit import CostFit, Load, term_value
from pdvsim.errors import InputError
from pdvsim.profile_file import Estimate

DRAWS = 48
NOISE_QUANTILES = 41
OUTLIER = 5.0  # beyond this multiple of the fit a launch paid for something else, once

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Timing:
    """One measured launch: its work and the seconds it took."""

    load: Load
    seconds: float


def fit_cost(timings: Sequence[Timing], terms: Sequence[str], rng: np.random.Generator) -> CostFit:
    """Least relative squares on the median of each measured point, weights >= 0.

    The bootstrap resamples the timings of each point. The noise keeps the distribution of measured
    / fitted, so that a simulation draws the measured mean and not the median; outliers (first uses,
    interruptions) are left out of it and counted.

    Raises:
        InputError: nothing was measured.
    """
    if not timings:
        raise InputError("nothing was measured for this cost")
    points: dict[Load, list[float]] = defaultdict(list)
    for timing in timings:
        points[timing.load].append(timing.seconds)
    design = np.array([[term_value(term, load) for term in terms] for load in points])
    samples = [np.array(values) for values in points.values()]
    weights = _solve(design, np.array([np.median(values) for values in samples]))
    draws = [
        _solve(design, np.array([np.median(rng.choice(values, len(values))) for values in samples]))
        for _ in range(DRAWS)
    ]
    fitted = design @ weights
    ratios = np.concatenate(
        [values / max(fit, 1e-12) for values, fit in zip(samples, fitted, strict=True)]
    )
    usual = ratios <= OUTLIER * max(1.0, float(np.median(ratios)))
    outliers, ratios = int((~usual).sum()), ratios[usual]
    medians = np.array([np.median(values) for values in samples])
    return CostFit(
        terms=list(terms),
        weights=weights.tolist(),
        draws=[draw.tolist() for draw in draws],
        noise=noise_quantiles(ratios),
        outliers=outliers,
        residual_rms=float(np.sqrt(np.mean((medians / np.maximum(fitted, 1e-12) - 1.0) ** 2))),
    )


def noise_quantiles(ratios: Array) -> list[float]:
    """The distribution of measured / fitted, at equal steps of probability."""
    steps = (np.arange(NOISE_QUANTILES) + 0.5) / NOISE_QUANTILES
    return [float(q) for q in np.maximum(np.quantile(ratios, steps), 1e-6)]


def _solve(design: Array, seconds: Array) -> Array:
    scale = 1.0 / np.maximum(seconds, 1e-9)
    # Columns of size one keep tokens and tokens squared equally well conditioned.
    size = np.maximum(np.abs(design).max(axis=0), 1e-12)
    weights, _ = nnls(design / size * scale[:, None], np.ones(len(seconds)))
    return np.asarray(weights / size, dtype=np.float64)


def estimate(values: Sequence[float], rng: np.random.Generator) -> Estimate:
    """The median of `values` with its bootstrap 95 % interval."""
    data = np.array(values, dtype=float)
    middle = float(np.median(data))
    medians = np.median(rng.choice(data, (400, len(data))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return Estimate(value=middle, low=min(float(low), middle), high=max(float(high), middle))
