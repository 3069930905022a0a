"""The statistics of a ratio and of a crossing, from paired runs.

A run is one observation: requests inside it are correlated. Run i of both configurations has the
same arrivals, lengths, acceptance outcomes and machine (common random numbers), and so has run i
at different loads; only different i are independent. Both intervals below are therefore t
intervals over i of something that each i yields by itself, and hold whatever the correlation
between configurations and between loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

from pdvsim.statistics import Interval, student

GRID = 2001  # places inside a bracket at which the interval of a crossing is inverted
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pairs:
    """One metric of two configurations at one load.

    Attributes:
        first, second: run by run, shape (runs,).
    """

    first: Array
    second: Array

    def __len__(self) -> int:
        return len(self.first)

    def ratio(self, level: float = 0.95) -> Interval:
        """E second / E first by Fieller's theorem: those r for which the mean of second - r first
        is within t standard errors of 0. Unlike the mean of log ratios it is not biased by the
        noise of the two. An end is None where the runs leave it open.

        Fieller, "Some problems in interval estimation", JRSS B 1954.
        """
        first, second = float(self.first.mean()), float(self.second.mean())
        value = second / first if first else inf
        if len(self) < 2:
            return Interval(value, None, None)
        cov = np.cov(self.first, self.second) / len(self)
        t2 = student(level, len(self) - 1) ** 2
        a = first * first - t2 * cov[0, 0]
        b = first * second - t2 * cov[0, 1]
        c = second * second - t2 * cov[1, 1]
        if a <= 0.0:
            return Interval(value, None, None)
        half = sqrt(max(b * b - a * c, 0.0))
        return Interval(value, (b - half) / a, (b + half) / a)


@dataclass(frozen=True, slots=True)
class Root:
    """Where two mean curves cross.

    Attributes:
        value, low, high: the crossing and its interval; an end is that of the bracket where the
            runs leave it open.
        runs: pairs of runs at each of `loads` that this rests on.
        rises: whether second / first is growing there.
    """

    value: float
    low: float
    high: float
    runs: int
    loads: tuple[float, ...]
    rises: bool


def skewed_t(samples: Array) -> Array:
    """Student's t of the hypothesis that each column of `samples [runs, .]` has mean 0, corrected
    for the skewness of its distribution.

    Two runs show no skewness; samples that are all the same leave no doubt.

    Johnson, "Modified t tests and confidence intervals for asymmetrical populations", JASA 1978,
    equation 2.6.
    """
    runs = len(samples)
    mean, variance = samples.mean(axis=0), samples.var(axis=0, ddof=1)
    third = ((samples - mean) ** 3).sum(axis=0) * runs / ((runs - 1) * max(runs - 2, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = third / (6.0 * variance * runs) + third * mean**2 / (3.0 * variance**2)
        corrected: Array = (mean + shift) * np.sqrt(runs / variance)
    certain = np.where(mean == 0.0, 0.0, np.copysign(inf, mean))
    return np.where(variance > 0.0, corrected, certain)


def root(
    places: Sequence[float],
    pairs: Sequence[Pairs],
    bracket: tuple[float, float],
    level: float = 0.95,
) -> Root | None:
    """The crossing inside `bracket`; None if the fitted curves do not cross there.

    For each run i a parabola in load is fitted to second - first (a line through two loads); its
    height g_i(x) is linear in that run's observations. The interval holds those x, up and down
    from the crossing, at which the mean of g is within t standard errors of 0, with one degree of
    freedom less than runs and corrected for skewness: means of response times have a long tail.

    Args:
        places: loads at which every run was made.
    """
    x = np.asarray(places, dtype=np.float64)
    # Relative to the mean of both at each load: straighter, and the crossing stays where it is.
    heights = np.stack(
        [2.0 * (p.second - p.first) / (p.first.mean() + p.second.mean()) for p in pairs], axis=1
    )
    grid = np.linspace(*bracket, GRID)
    middle, scale = float(x.mean()), float(np.ptp(x)) or 1.0
    degree = min(2, len(x) - 1)
    basis = np.vander((x - middle) / scale, degree + 1)
    weights = np.vander((grid - middle) / scale, degree + 1) @ np.linalg.pinv(basis)
    curves = heights @ weights.T  # run, place
    mean = curves.mean(axis=0)
    signs = np.flatnonzero(np.diff(np.sign(mean)) != 0)
    if not len(signs):
        return None
    at = int(signs[np.argmin(np.abs(signs - GRID // 2))])
    low, high = float(mean[at]), float(mean[at + 1])
    step = grid[1] - grid[0]
    value = float(grid[at] + step * low / (low - high))
    runs = len(heights)
    outside = np.abs(skewed_t(curves)) > student(level, runs - 1)
    below, above = np.flatnonzero(outside[: at + 1]), np.flatnonzero(outside[at + 1 :])
    first = below[-1] + 1 if len(below) else 0
    last = at + above[0] if len(above) else GRID - 1
    return Root(
        value,
        min(value, float(grid[min(first, GRID - 1)])),
        max(value, float(grid[last])),
        runs,
        tuple(float(place) for place in places),
        high > low,
    )
