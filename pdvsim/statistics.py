"""Distributions from censored samples, and intervals from replicated runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# A mean is only given when at most this share of a distribution lies beyond the longest
# observation; the rest is placed at that observation (Efron 1967).
MEAN_TAIL_LIMIT = 0.05


@dataclass(frozen=True, eq=False)
class Distribution:
    """Point masses, and the share that is only known to lie beyond the last of them.

    Attributes:
        points: ascending, shape (n,).
        mass: of each point, shape (n,); sums to 1 - tail.
        tail: what censoring hides.
    """

    points: NDArray[np.float64]
    mass: NDArray[np.float64]
    tail: float = 0.0

    @classmethod
    def of(cls, values: ArrayLike, weights: ArrayLike | None = None) -> Distribution:
        """The empirical distribution of complete observations."""
        points = np.asarray(values, dtype=np.float64)
        mass = np.ones(len(points)) if weights is None else np.asarray(weights, dtype=np.float64)
        order = np.argsort(points, kind="stable")
        total = mass.sum()
        return cls(points[order], mass[order] / total if total else mass[order])

    @classmethod
    def survival(
        cls, exits: ArrayLike, observed: ArrayLike, entries: ArrayLike | None = None
    ) -> Distribution:
        """The Kaplan-Meier estimate of a duration.

        Args:
            exits: age at the event or at the last look, shape (n,).
            observed: whether the event was seen; otherwise right-censored, shape (n,).
            entries: age from which each one was under observation (delayed entry; negative:
                from birth), shape (n,). With `entries` None this is `scipy.stats.ecdf` of
                `CensoredData.right_censored`, which knows no delayed entry.
        """
        exit_age = np.asarray(exits, dtype=np.float64)
        seen = np.asarray(observed, dtype=bool)
        entry_age = np.full(len(exit_age), -1.0) if entries is None else np.asarray(entries)
        points, events = np.unique(exit_age[seen], return_counts=True)
        entered = np.searchsorted(np.sort(entry_age), points, side="left")
        left = np.searchsorted(np.sort(exit_age), points, side="left")
        alive = np.concatenate(([1.0], np.cumprod(1.0 - events / (entered - left))))
        tail = float(alive[-1])
        return cls(points, alive[:-1] - alive[1:], tail if tail > 1e-12 else 0.0)

    def quantile(self, share: float) -> float | None:
        """Smallest point with at least `share` at or below it; None if that lies in the tail."""
        cumulative = np.cumsum(self.mass)
        index = int(np.searchsorted(cumulative, share - 1e-9))
        return float(self.points[index]) if index < len(self.points) else None

    def mean(self) -> float | None:
        """Mean, with a small tail placed at the last point; None if the tail is not small."""
        if not len(self.points) or self.tail > MEAN_TAIL_LIMIT:
            return None
        return _product(self.points, self.mass) + self.tail * float(self.points[-1])

    def std(self) -> float | None:
        """Population standard deviation, under the same condition as the mean."""
        mean = self.mean()
        if mean is None:
            return None
        square = (self.points - mean) ** 2
        return float(np.sqrt(_product(square, self.mass) + self.tail * square[-1]))


def _product(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Their scalar product. `@` would wake a thread on every core for it, whose waiting for more
    work then costs more than a run, and whose number would decide the last digits."""
    return float((one * other).sum())


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its 95 % interval; no interval (None) from a single run."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - it stands in documents as it is

    value: float
    low: float | None
    high: float | None


def prediction_interval(
    samples: Sequence[float], least: float = -np.inf, most: float = np.inf, level: float = 0.95
) -> Interval:
    """The mean of n >= 2 independent runs, and where one further run will fall: mean +- t s
    sqrt(1 + 1/n). Of a quantity that cannot be negative, and is above 0 in every run, these are
    mean and deviation of its logarithm: waits are skewed, and none is below zero. (Not of fewer
    than five runs: t is so large there that the upper end would be any number.)

    It does not shrink to nothing with more runs; the confidence interval of the mean,
    mean +- t s / sqrt(n), does, and says where the average of many runs lies. What a
    prediction is held against is one run, so this is the interval that is stated.

    Args:
        least, most: the interval is cut to the values that the quantity can take.
    """
    values = np.asarray(samples, dtype=np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, None, None)
    logarithmic = least >= 0.0 and len(values) >= 5 and bool((values > 0.0).all())
    scaled = np.log(values) if logarithmic else values
    half = student(level, len(values) - 1) * further(scaled)
    ends = np.array([scaled.mean() - half, scaled.mean() + half])
    low, high = map(float, np.exp(np.minimum(ends, _LARGEST)) if logarithmic else ends)
    return Interval(mean, max(min(low, mean), least), min(max(high, mean), most))


def further(samples: NDArray[np.float64]) -> Any:
    """Standard deviation of one further run about the mean of these, along the first axis."""
    runs = len(samples)
    return samples.std(axis=0, ddof=1) * np.sqrt(1.0 + 1.0 / runs)


def student(level: float, dof: int) -> float:
    """The two-sided critical value of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(dof, 0.5 + level / 2.0))


def share_above(samples: NDArray[np.float64]) -> Any:
    """The share of further runs that will be above 0, seen from n >= 2 runs of about normal
    distribution, along the first axis: Student's t of what `further` says. A prediction interval
    leaves 0 out where this is beyond 2.5 or 97.5 %."""
    from scipy.special import stdtr

    mean, spread = samples.mean(axis=0), further(samples)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(spread > 0.0, mean / spread, np.where(mean == 0.0, 0.0, mean * np.inf))
    return stdtr(len(samples) - 1, t)


_LARGEST = 700.0  # the exponential of more is no number
