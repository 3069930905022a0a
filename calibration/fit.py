"""Fits measured seconds with physical terms: weights >= 0, so cost never decreases in work.

What the terms miss, where kernels change tiles with the number of rows, is smooth neither in theory
nor as measured. Where launches come in few shapes, all of which were measured, a correction says
what they miss at each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from pdvsim.cost_fit import Correction, CostFit, Load, term_value
from pdvsim.errors import InputError
from pdvsim.profile_file import Estimate

DRAWS = 48
NOISE_QUANTILES = 41
OUTLIER = 5.0  # beyond this multiple of the fit a launch paid for something else, once
FOLDS = 10  # of points, left out in turn

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Point:
    """Launches that were alike: their load, and the seconds of each."""

    load: Load
    seconds: Array

    @property
    def median_s(self) -> float:
        return float(np.median(self.seconds))


def fit_cost(
    points: Sequence[Point],
    terms: Sequence[str],
    rng: np.random.Generator,
    corrected: bool = False,
) -> CostFit:
    """Least relative squares on the median of each measured point, weights >= 0.

    The bootstrap resamples the timings of each point. The noise keeps the distribution of measured
    / fitted within a point, so that a simulation draws the measured mean and not the median;
    outliers (first uses, interruptions) are left out of it and counted.

    Args:
        corrected: add a correction.

    Raises:
        InputError: nothing was measured.
    """
    if not points:
        raise InputError("nothing was measured for this cost")
    loads = [point.load for point in points]
    medians = np.array([point.median_s for point in points])
    if not medians.any():
        return nothing()
    weights, correction = _solve(loads, medians, terms, corrected)
    factors = _factors(loads, correction)
    draws = []
    for _ in range(DRAWS):
        drawn = [np.median(rng.choice(one.seconds, len(one.seconds))) for one in points]
        draws.append(_weights(loads, np.array(drawn) / factors, terms).tolist())
    fitted = np.maximum(_design(loads, terms) @ weights * factors, 1e-12)
    ratios = np.concatenate(
        [one.seconds / max(one.median_s, 1e-12) for one in points]
        if corrected
        else [one.seconds / fit for one, fit in zip(points, fitted, strict=True)]
    )
    usual = ratios <= OUTLIER * max(1.0, float(np.median(ratios)))
    left_out = _left_out(loads, medians, terms, corrected)
    return CostFit(
        terms=list(terms),
        weights=weights.tolist(),
        draws=draws,
        noise=noise_quantiles(ratios[usual]),
        outliers=int((~usual).sum()),
        residual_rms=_rms(medians / fitted - 1.0),
        correction=correction,
        left_out_rms=_rms(left_out),
        left_out_median=float(np.median(np.abs(left_out))),
    )


def nothing() -> CostFit:
    """The cost of what takes no time."""
    return CostFit(
        terms=["fixed"], weights=[0.0], draws=[[0.0]], noise=[1.0], outliers=0, residual_rms=0.0
    )


def _left_out(
    loads: Sequence[Load], medians: Array, terms: Sequence[str], corrected: bool
) -> Array:
    """Predicted / measured - 1 of each point by a fit that does not know it, nor the other points
    of its fold."""
    folds = np.random.default_rng(0).permutation(len(loads)) % min(FOLDS, len(loads))
    errors = np.zeros(len(loads))
    for fold in range(folds.max() + 1):
        known = np.flatnonzero(folds != fold).tolist()
        if not len(known):
            continue
        own = [loads[i] for i in known]
        weights, correction = _solve(own, medians[known], terms, corrected)
        for i in np.flatnonzero(folds == fold).tolist():
            one = [loads[i]]
            seconds = (_design(one, terms) @ weights * _factors(one, correction))[0]
            errors[i] = seconds / max(medians[i], 1e-12) - 1.0
    return errors


def _solve(
    loads: Sequence[Load], medians: Array, terms: Sequence[str], corrected: bool
) -> tuple[Array, Correction | None]:
    weights = _weights(loads, medians, terms)
    if not corrected:
        return weights, None
    correction = _correction(loads, medians / np.maximum(_design(loads, terms) @ weights, 1e-12))
    # Context was measured at few shapes: what it costs is asked again beside the correction.
    return _weights(loads, medians / _factors(loads, correction), terms), correction


def _weights(loads: Sequence[Load], seconds: Array, terms: Sequence[str]) -> Array:
    design = _design(loads, terms)
    scale = 1.0 / np.maximum(seconds, 1e-9)
    # Columns of size one keep tokens and tokens squared equally well conditioned.
    size = np.maximum(np.abs(design).max(axis=0), 1e-12)
    weights, _ = nnls(design / size * scale[:, None], np.ones(len(seconds)))
    return np.asarray(weights / size, dtype=np.float64)


def _design(loads: Sequence[Load], terms: Sequence[str]) -> Array:
    return np.array([[term_value(term, load) for term in terms] for load in loads])


def _factors(loads: Sequence[Load], correction: Correction | None) -> Array:
    if correction is None:
        return np.ones(len(loads))
    return np.array([correction.factor(load) for load in loads])


def _correction(loads: Sequence[Load], ratios: Array) -> Correction:
    """Measured / fitted at every shape, from its shortest context; what was not measured is between
    its neighbours, in batches first."""
    shapes: dict[tuple[float, float], tuple[float, float]] = {}
    for load, ratio in zip(loads, ratios, strict=True):
        key = load.requests, load.size
        if key not in shapes or load.context < shapes[key][0]:
            shapes[key] = load.context, float(ratio)
    requests, sizes = (sorted({key[axis] for key in shapes}) for axis in (0, 1))
    grid = np.full((len(requests), len(sizes)), np.nan)
    for (one, size), (_, ratio) in shapes.items():
        grid[requests.index(one), sizes.index(size)] = ratio
    _fill(grid, np.log(requests))
    _fill(grid.T, np.log(sizes))
    return Correction(requests=requests, sizes=sizes, factors=grid.tolist())


def _fill(grid: Array, axis: Array) -> None:
    """Interpolate what is missing in each column that has anything."""
    for column in grid.T:
        known = ~np.isnan(column)
        if known.any() and not known.all():
            column[~known] = np.interp(axis[~known], axis[known], column[known])


def noise_quantiles(ratios: Array) -> list[float]:
    """The distribution of measured / fitted, at equal steps of probability."""
    steps = (np.arange(NOISE_QUANTILES) + 0.5) / NOISE_QUANTILES
    return [float(q) for q in np.maximum(np.quantile(ratios, steps), 1e-6)]


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))


def estimate(values: Sequence[float], rng: np.random.Generator) -> Estimate:
    """The median of `values` with its bootstrap 95 % interval."""
    data = np.array(values, dtype=float)
    middle = float(np.median(data))
    medians = np.median(rng.choice(data, (400, len(data))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return Estimate(value=middle, low=min(float(low), middle), high=max(float(high), middle))
