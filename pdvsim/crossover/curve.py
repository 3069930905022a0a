"""The statistics of a ratio and of a crossing over machines, from paired runs.

A run is one observation: requests inside it are correlated. Run i of both configurations is on
machine i, one of those that a calibration leaves plausible, with the same arrivals, lengths and
acceptance outcomes (common random numbers). A user has one machine, of which all that is known is
that it is one of these: what is stated is where a *further* machine lies, not the mean of all,
which more runs would pin down without telling that user anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdvsim.statistics import Interval, further, share_above, student

GRID = 2001  # places inside a bracket at which the interval of a crossing is inverted
LEAST_FREEDOM = 3.0  # that the spread of machines is taken to rest on
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

    def machines(self, level: float = 0.95) -> Interval:
        """The ratio of the means, and where second / first of a further machine's run falls; the
        interval of the mean ratio where some run has nothing to take the logarithm of."""
        found = self.ratio(level)
        if len(self) < 2 or not self._positive:
            return found
        logs = heights([self])[:, 0]
        half = student(level, len(self) - 1) * float(further(logs))
        low, high = (float(np.exp(logs.mean() + end)) for end in (-half, half))
        return Interval(found.value, min(low, found.value), max(high, found.value))

    def share(self) -> float | None:
        """Of machines, on which second is greater; None of a single run."""
        return float(share_above(heights([self])[:, 0])) if len(self) > 1 else None

    @property
    def _positive(self) -> bool:
        return bool((self.first > 0.0).all() and (self.second > 0.0).all())


def heights(pairs: Sequence[Pairs]) -> Array:
    """How far second is above first, by run and load: ln(second / first), or where some are 0
    second - first relative to half their sum."""
    if all(one._positive for one in pairs):
        return np.stack([np.log(one.second / one.first) for one in pairs], axis=1)
    sums = [one.first + one.second for one in pairs]
    return np.stack(
        [
            2.0 * (one.second - one.first) / np.where(total == 0.0, 1.0, total)
            for one, total in zip(pairs, sums, strict=True)
        ],
        axis=1,
    )


@dataclass(frozen=True, slots=True)
class Root:
    """Where two curves cross, on one machine and another.

    Attributes:
        value: where their means cross.
        low, high: where 95 % of machines lie; the end of what was looked at where `before` or
            `beyond` are more.
        before, beyond: shares of machines that cross before the first or beyond the last of the
            loads (or never), 0 where that was not looked at.
        runs: machines, each with a pair of runs at each of `loads`.
        rises: whether second / first is growing there.
    """

    value: float
    low: float
    high: float
    before: float
    beyond: float
    runs: int
    loads: tuple[float, ...]
    rises: bool


@dataclass(frozen=True, slots=True)
class Heights:
    """Height of a curve at some places: its mean, and the standard deviation of a further
    machine's, with what so many machines leave open about the mean; and the degrees of freedom
    that this rests on."""

    mean: Array
    spread: Array
    freedom: Array

    def t(self) -> Array:
        """Student's t of the hypothesis that a further machine's is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Array = np.where(
                self.spread > 0.0, self.mean / self.spread, np.copysign(inf, self.mean)
            )
        return np.where(self.mean == 0.0, 0.0, found)

    def above(self) -> Any:
        """The share of machines above 0."""
        from scipy.special import stdtr

        return stdtr(self.freedom, self.t())

    def outside(self, level: float) -> NDArray[np.bool_]:
        """Where a prediction of a further machine's leaves 0 out."""
        from scipy.special import stdtrit

        found: NDArray[np.bool_] = np.abs(self.t()) > stdtrit(self.freedom, 0.5 + level / 2.0)
        return found


def over(places: Array, found: Array, grid: Array | None) -> Heights:
    """The heights on `grid` of machines that were seen at `places`, shape (machines, places).

    The mean follows a parabola; without a grid it is free at each place. Each machine lies off
    the mean by a line of its own. What is left about that line is the chance of single runs,
    which a machine's crossing does not depend on: it is taken out of the spread.
    """
    runs, count = found.shape
    middle, scale = float(places.mean()), float(np.ptp(places)) or 1.0
    x, at = ((where - middle) / scale for where in (places, places if grid is None else grid))

    def fit(degree: int, where: Array) -> Array:
        """What the heights at each place weigh in a polynomial's."""
        weights: Array = np.vander(where, degree + 1) @ np.linalg.pinv(np.vander(x, degree + 1))
        return weights

    mean = found.mean(axis=0)
    off, degree = found - mean, max(0, min(1, count - 2))
    weights, freedom = fit(degree, at), (runs - 1) * (count - degree - 1)
    left = off - off @ fit(degree, x).T
    chance = float((left**2).sum() / freedom) if freedom else 0.0
    seen = (off @ weights.T).var(axis=0, ddof=1)
    machines = np.maximum(seen - chance * (weights**2).sum(axis=1), 0.0)
    of_mean = (found.var(axis=0, ddof=1) if grid is None else seen) / runs
    # A difference of variances is less sure than each of them (Satterthwaite).
    share = (machines + of_mean) / np.where(seen > 0.0, (1.0 + 1.0 / runs) * seen, 1.0)
    return Heights(
        mean if grid is None else fit(min(2, count - 1), at) @ mean,
        np.sqrt(machines + of_mean),
        np.maximum((runs - 1) * np.minimum(share, 1.0) ** 2, LEAST_FREEDOM),
    )


def root(
    places: Sequence[float],
    pairs: Sequence[Pairs],
    bracket: tuple[float, float],
    level: float = 0.95,
) -> Root | None:
    """The crossing inside `bracket`; None if the mean curves do not cross there.

    A further machine has crossed at x if its height there has the sign that it has behind the
    crossing; its crossing lies between those x, up and down from that of the mean, at which a
    prediction of its height leaves 0 out.

    Args:
        places: loads at which every machine ran.
    """
    x = np.asarray(places, dtype=np.float64)
    grid = np.linspace(*bracket, GRID)
    found = over(x, heights(pairs), grid)
    mean = found.mean
    signs = np.flatnonzero(np.diff(np.sign(mean)) != 0)
    if not len(signs):
        return None
    at = int(signs[np.argmin(np.abs(signs - GRID // 2))])
    low, high = float(mean[at]), float(mean[at + 1])
    value = float(grid[at] + (grid[1] - grid[0]) * low / (low - high))
    outside = found.outside(level)
    below, above = np.flatnonzero(outside[: at + 1]), np.flatnonzero(outside[at + 1 :])
    crossed = found.above() if high > low else 1.0 - found.above()
    return Root(
        value,
        min(value, float(grid[below[-1] + 1 if len(below) else 0])),
        max(value, float(grid[at + above[0] if len(above) else GRID - 1])),
        0.0 if len(below) else float(crossed[0]),
        0.0 if len(above) else float(1.0 - crossed[-1]),
        len(pairs[0]),
        tuple(float(place) for place in places),
        high > low,
    )


def whole_root(
    places: Sequence[float], pairs: Sequence[Pairs], rises: bool, level: float = 0.95
) -> Root | None:
    """The crossing on an axis of whole numbers: from where on second stays ahead (behind, if it
    does not rise) at every later place that ran. None if that is beyond the last.

    Curves may go up and down between neighbours there, as batches fill the sizes that launches
    are padded to, or do not. So the mean is free at each place instead of smooth, and between
    places that are no neighbours it is a line.
    """
    from scipy.special import stdtrit

    found = over(np.asarray(places, dtype=np.float64), heights(pairs), None)
    ahead = found.mean if rises else -found.mean

    def from_on(share: float) -> float:
        """Where more than `share` of machines have crossed, and stay so; infinite if nowhere."""
        left = ahead - stdtrit(found.freedom, share) * found.spread
        short = np.flatnonzero(left <= 0.0)
        if not len(short):
            return places[0]
        last = int(short[-1])
        if last == len(places) - 1:
            return inf
        below, above = float(left[last]), float(left[last + 1])
        return places[last] + (places[last + 1] - places[last]) * below / (below - above)

    tail = (1.0 - level) / 2.0
    low, value, high = from_on(tail), from_on(0.5), from_on(1.0 - tail)
    if value == inf:
        return None
    crossed = found.above() if rises else 1.0 - found.above()
    return Root(
        value,
        low,
        min(high, places[-1]),
        float(crossed[0]) if low == places[0] else 0.0,
        float(1.0 - crossed[-1]) if high == inf else 0.0,
        len(pairs[0]),
        tuple(places),
        rises,
    )
