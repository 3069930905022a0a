"""Fits measured seconds with physical terms: weights >= 0, so cost never decreases in work.

What the terms miss, where kernels change tiles with the number of rows, is smooth neither in theory
nor as measured. Where launches come in few shapes, all of which were measured, a correction says
what they miss at each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from pdvsim.cost_fit import OF_CONTEXT, Correction, CostFit, Load, term_value
from pdvsim.errors import InputError
from pdvsim.profile_file import Estimate

DRAWS = 48
NOISE_QUANTILES = 41
OUTLIER = 5.0  # beyond this multiple of the fit a launch paid for something else, once
_BENT = (0.5, 2.0)  # what context may cost, over what the terms say
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


class Corrected(Enum):
    """What a correction goes by: the shape of rounds, requests and size, with context apart; or
    the rows of passes with prompts."""

    BY_SHAPE = "by shape"
    BY_ROWS = "by rows"


@dataclass(frozen=True, slots=True)
class _Fitted:
    weights: Array
    correction: Correction | None = None
    context: Correction | None = None


def fit_cost(
    points: Sequence[Point],
    terms: Sequence[str],
    rng: np.random.Generator,
    corrected: Corrected | None = None,
) -> CostFit:
    """Least relative squares on the median of each measured point, weights >= 0.

    The bootstrap resamples the timings of each point. The noise keeps the distribution of measured
    / fitted, so that a simulation draws the measured mean and not the median, or with a correction
    that within a point; outliers (first uses, interruptions) are left out of it and counted.

    Raises:
        InputError: nothing was measured.
    """
    if not points:
        raise InputError("nothing was measured for this cost")
    loads = [point.load for point in points]
    medians = np.array([point.median_s for point in points])
    if not medians.any():
        return nothing()
    fitted = _solve(loads, medians, terms, corrected)
    seconds = np.maximum(_seconds(fitted, loads, terms), 1e-12)
    # What a correction multiplies is bootstrapped without it.
    times = seconds / np.maximum(_design(loads, terms) @ fitted.weights, 1e-12)
    draws = []
    for _ in range(DRAWS):
        drawn = [np.median(rng.choice(one.seconds, len(one.seconds))) for one in points]
        draws.append(_weights(loads, np.array(drawn) / times, terms).tolist())
    around = medians if corrected else seconds
    ratios = np.concatenate(
        [one.seconds / max(at, 1e-12) for one, at in zip(points, around, strict=True)]
    )
    usual = ratios <= OUTLIER * max(1.0, float(np.median(ratios)))
    left_out = _left_out(loads, medians, terms, corrected)
    return CostFit(
        terms=list(terms),
        weights=fitted.weights.tolist(),
        draws=draws,
        noise=noise_quantiles(ratios[usual]),
        outliers=int((~usual).sum()),
        residual_rms=_rms(medians / seconds - 1.0),
        correction=fitted.correction,
        context_correction=fitted.context,
        left_out_rms=_rms(left_out),
        left_out_median=float(np.median(np.abs(left_out))),
    )


def left_out(points: Sequence[Point], terms: Sequence[str], corrected: Corrected | None) -> Array:
    """Predicted / measured - 1 of each point by a fit that does not know it, nor the other points
    of its fold."""
    medians = np.array([point.median_s for point in points])
    return _left_out([point.load for point in points], medians, terms, corrected)


def nothing() -> CostFit:
    """The cost of what takes no time."""
    return CostFit(
        terms=["fixed"], weights=[0.0], draws=[[0.0]], noise=[1.0], outliers=0, residual_rms=0.0
    )


def _left_out(
    loads: Sequence[Load], medians: Array, terms: Sequence[str], corrected: Corrected | None
) -> Array:
    folds = np.random.default_rng(0).permutation(len(loads)) % min(FOLDS, len(loads))
    errors = np.zeros(len(loads))
    for fold in range(folds.max() + 1):
        known = np.flatnonzero(folds != fold).tolist()
        if not len(known):
            continue
        fitted = _solve([loads[i] for i in known], medians[known], terms, corrected)
        for i in np.flatnonzero(folds == fold).tolist():
            seconds = _seconds(fitted, [loads[i]], terms)[0]
            errors[i] = seconds / max(medians[i], 1e-12) - 1.0
    return errors


def _solve(
    loads: Sequence[Load], medians: Array, terms: Sequence[str], corrected: Corrected | None
) -> _Fitted:
    weights = _weights(loads, medians, terms)
    if corrected is None:
        return _Fitted(weights)
    if corrected is Corrected.BY_ROWS:
        ratios = medians / np.maximum(_design(loads, terms) @ weights, 1e-12)
        by_rows: dict[tuple[float, float], list[float]] = defaultdict(list)
        for load, ratio in zip(loads, ratios, strict=True):
            by_rows[1.0, load.size].append(float(ratio))
        return _Fitted(weights, _grid({at: float(np.median(r)) for at, r in by_rows.items()}))
    rest, context = _parts(loads, terms, weights)
    slopes = _context_ratios(loads, medians, context)
    bent = _grid(slopes) if slopes else None
    if bent is not None:
        context = context * np.array([bent.factor(load) for load in loads])
    # Each shape at its shortest context.
    shapes: dict[tuple[float, float], tuple[float, float]] = {}
    for i, load in enumerate(loads):
        at = load.requests, load.size
        if at not in shapes or load.context < shapes[at][0]:
            ratio = (medians[i] - context[i]) / max(rest[i], 1e-12)
            shapes[at] = load.context, float(np.clip(ratio, 0.2, 5.0))
    return _Fitted(weights, _grid({at: ratio for at, (_, ratio) in shapes.items()}), bent)


def _context_ratios(
    loads: Sequence[Load], medians: Array, context: Array
) -> dict[tuple[float, float], float]:
    """What context costs over what it should, of shapes that were measured at several."""
    alike: dict[tuple[float, float], list[int]] = defaultdict(list)
    for i, load in enumerate(loads):
        alike[load.requests, load.size].append(i)
    ratios = {}
    for at, places in alike.items():
        expected, seen = context[places], medians[places]
        if len(places) > 1 and np.ptp(expected) > 0.0:
            # The largest step says most; a line through all is nearly that.
            slope = np.polyfit(expected, seen, 1)[0]
            ratios[at] = float(np.clip(slope, *_BENT))
    return ratios


def _parts(loads: Sequence[Load], terms: Sequence[str], weights: Array) -> tuple[Array, Array]:
    """(seconds without context, seconds of context) by the terms alone."""
    of_context = np.array([term in OF_CONTEXT for term in terms])
    parts = _design(loads, terms) * weights
    return parts[:, ~of_context].sum(axis=1), parts[:, of_context].sum(axis=1)


def _seconds(fitted: _Fitted, loads: Sequence[Load], terms: Sequence[str]) -> Array:
    rest, context = _parts(loads, terms, fitted.weights)
    if fitted.correction is not None:
        rest = rest * np.array([fitted.correction.factor(load) for load in loads])
    if fitted.context is not None:
        context = context * np.array([fitted.context.factor(load) for load in loads])
    return np.asarray(rest + context, dtype=np.float64)


def _weights(loads: Sequence[Load], seconds: Array, terms: Sequence[str]) -> Array:
    design = _design(loads, terms)
    scale = 1.0 / np.maximum(seconds, 1e-9)
    # Columns of size one keep tokens and tokens squared equally well conditioned.
    size = np.maximum(np.abs(design).max(axis=0), 1e-12)
    weights, _ = nnls(design / size * scale[:, None], np.ones(len(seconds)))
    return np.asarray(weights / size, dtype=np.float64)


def _design(loads: Sequence[Load], terms: Sequence[str]) -> Array:
    return np.array([[term_value(term, load) for term in terms] for load in loads])


def _grid(found: Mapping[tuple[float, float], float]) -> Correction:
    """Factors by (requests, size); what is missing lies between its neighbours along both axes,
    and is their mean."""
    requests, sizes = (sorted({at[axis] for at in found}) for axis in (0, 1))
    grid = np.full((len(requests), len(sizes)), np.nan)
    for (one, size), ratio in found.items():
        grid[requests.index(one), sizes.index(size)] = ratio
    both = [grid.copy(), grid.copy()]
    _fill(both[0], np.log(requests))
    _fill(both[1].T, np.log(sizes))
    known = (~np.isnan(both)).sum(axis=0)
    means = np.nansum(both, axis=0) / np.maximum(known, 1)
    grid = np.where(known > 0, means, np.nan)
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
