"""Which runs to make, so that those are made that still can change the answer.

1. *Survey*: a few pairs of runs at every load; then more, look by look, only where it is still
   open which configuration is better. A load is decided when its interval leaves 1 out. The level
   is divided by the number of loads and looks (Bonferroni), so that all intervals hold together,
   stopping early or not.
2. *Crossings*: between neighbouring decided loads of opposite sign. The bracket is narrowed on
   pilot runs, and the number of final runs is set from their spread; the interval then rests on
   fresh runs alone (Stein's two stages), so neither the search nor the stopping biases it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, pairwise
from math import ceil, exp, inf, log

import numpy as np

from pdvsim.crossover.curve import Pairs, Root, root
from pdvsim.errors import InputError
from pdvsim.statistics import Interval

# (load, index of the run) -> the metric of both, or None where a run cannot say.
Sample = tuple[float, int]
Sampler = Callable[[Sequence[Sample]], Sequence[tuple[float, float] | None]]

PILOT_RUNS = 6
LEAST_RUNS = 16  # that an interval rests on: of fewer, the skewness is not known well enough
PLACES = 5  # loads inside a bracket
MARGIN = 3.0  # half width of the last bracket, in half widths of the pilot's interval
INDIFFERENCE = 0.01  # ratios that are certainly this close to 1 do not matter
FIRST_FRESH_RUN = 1_000_000  # the survey's indices stay below


@dataclass(frozen=True, slots=True)
class Budget:
    """How much to spend.

    Attributes:
        looks: pairs of runs at a load after each look of the survey.
        level: of the crossings' intervals, and of all the survey's intervals together.
        indifference: configurations whose ratio is certainly this close to 1 are alike: neither
            is better, however certain the difference.
        precision: wanted half width of a crossing's interval, as a share of it.
        most_runs: pairs of runs at each of the final loads of a crossing.
    """

    looks: tuple[int, ...] = (4, 8, 16)
    level: float = 0.95
    indifference: float = INDIFFERENCE
    precision: float = 0.05
    most_runs: int = 32

    def __post_init__(self) -> None:
        if not self.looks or self.looks[0] < 2 or list(self.looks) != sorted(set(self.looks)):
            raise InputError(f"looks are {self.looks}; they must grow, from at least 2 runs")


@dataclass(frozen=True, eq=False)
class Point:
    """What the survey knows at one load.

    Attributes:
        ratio: second / first; None where the runs could not say.
        runs: pairs of runs spent.
        indifference: how close to 1 the ratio of those that are alike is.
    """

    load: float
    ratio: Interval | None = None
    runs: int = 0
    pairs: Pairs | None = None
    indifference: float = 0.0

    @property
    def alike(self) -> bool:
        """Whether neither is certainly better by enough to matter."""
        return self._within(1.0 - self.indifference, 1.0 + self.indifference)

    @property
    def sign(self) -> int:
        """1 if second is certainly greater, -1 if certainly smaller, else 0."""
        if self.alike:
            return 0
        return int(self._within(1.0, inf)) - int(self._within(-inf, 1.0))

    @property
    def open(self) -> bool:
        """Whether more runs could decide."""
        return self.ratio is not None and not self.sign and not self.alike

    def _within(self, low: float, high: float) -> bool:
        ratio = self.ratio
        if ratio is None or ratio.low is None or ratio.high is None:
            return False
        return low < ratio.low and ratio.high < high

    def after(
        self, look: int, answers: Sequence[tuple[float, float] | None], level: float
    ) -> Point:
        """This point with the runs of one more look."""
        known = [pair for pair in answers if pair is not None]
        if self.pairs is not None:
            known = [*zip(self.pairs.first, self.pairs.second, strict=True), *known]
        table = np.array(known, dtype=np.float64).reshape(-1, 2)
        pairs = Pairs(table[:, 0], table[:, 1])
        typical = 2 * len(pairs) > look  # else most runs could not say
        ratio = pairs.ratio(level) if typical else None
        return replace(self, ratio=ratio, runs=look, pairs=pairs)


@dataclass(frozen=True, slots=True)
class Valley:
    """A run of neighbouring loads at which one configuration is certainly worse.

    Attributes:
        worse: 0 for the first configuration, 1 for the second.
        deepest: where the ratio is farthest from 1.
    """

    worse: int
    start: float
    end: float
    deepest: float
    ratio: Interval


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two configurations over one axis.

    Attributes:
        valleys: of each configuration, the widest first.
        alike: loads at which the two are certainly within the budget's indifference.
        undecided: loads at which the runs leave open which is better.
    """

    lower_is_better: bool
    points: list[Point]
    crossings: list[Root]
    valleys: list[Valley]
    alike: list[float]
    undecided: list[float]
    runs: int


@dataclass(slots=True)
class _Axis:
    """The axis as the fits see it: logarithmic for loads, and rounded where only whole numbers
    can be run."""

    logarithmic: bool
    whole: bool
    sampler: Sampler
    fresh: count[int] = field(default_factory=lambda: count(FIRST_FRESH_RUN))
    spent: int = 0

    def forth(self, load: float) -> float:
        return log(load) if self.logarithmic else load

    def back(self, place: float) -> float:
        return exp(place) if self.logarithmic else place

    def loads(self, low: float, high: float) -> list[float]:
        """Places for runs between two places of the fit, ends included."""
        loads = [self.back(place) for place in np.linspace(low, high, PLACES)]
        if self.whole:
            loads = [float(round(load)) for load in loads]
            if len(set(loads)) < 2:
                loads = [float(int(self.back(low))), float(ceil(self.back(high)))]
        return sorted(set(loads))

    def pairs(self, loads: Sequence[float], indices: Sequence[int]) -> list[Pairs]:
        """The same runs at every load; a run that cannot say at one is left out at all."""
        samples = [(load, index) for index in indices for load in loads]
        self.spent += len(samples)
        table = np.array(
            [(np.nan, np.nan) if pair is None else pair for pair in self.sampler(samples)],
            dtype=np.float64,
        ).reshape(len(indices), len(loads), 2)
        table = table[~np.isnan(table).any(axis=(1, 2))]
        return [Pairs(table[:, i, 0], table[:, i, 1]) for i in range(len(loads))]


def compare(
    loads: Sequence[float],
    sampler: Sampler,
    *,
    lower_is_better: bool,
    logarithmic: bool = True,
    whole: bool = True,
    budget: Budget | None = None,
) -> Comparison:
    """Survey `loads`, then find each crossing between them."""
    budget = budget or Budget()
    axis = _Axis(logarithmic, whole, sampler)
    points, axis.spent = survey(sorted(set(loads)), sampler, budget)
    decided = [point for point in points if point.sign]
    crossings = [
        found
        for before, after in pairwise(decided)
        if before.sign != after.sign
        and (found := _crossing(axis, before.load, after.load, budget)) is not None
    ]
    return Comparison(
        lower_is_better,
        points,
        crossings,
        _valleys(points, lower_is_better, axis),
        [p.load for p in points if p.alike],
        [p.load for p in points if not p.ratio or p.open],
        axis.spent,
    )


def survey(loads: Sequence[float], sampler: Sampler, budget: Budget) -> tuple[list[Point], int]:
    """What is known at each load after the last look, and the pairs of runs spent."""
    level = 1.0 - (1.0 - budget.level) / (len(loads) * len(budget.looks))
    points = {load: Point(load, indifference=budget.indifference) for load in loads}
    done = spent = 0
    for look in budget.looks:
        unclear = [p.load for p in points.values() if not done or p.open]
        samples = [(load, index) for index in range(done, look) for load in unclear]
        answers = sampler(samples) if samples else ()
        spent += len(samples)
        for i, load in enumerate(unclear):
            points[load] = points[load].after(look, answers[i :: len(unclear)], level)
        done = look
    return list(points.values()), spent


def _crossing(axis: _Axis, low: float, high: float, budget: Budget) -> Root | None:
    """The crossing between two loads where the opposite is certain."""
    outer = axis.forth(low), axis.forth(high)
    bracket, runs = outer, min(LEAST_RUNS, budget.most_runs)
    for _ in range(2):
        pilot = _fit(axis, bracket, PILOT_RUNS, budget.level)
        if pilot is None:
            break
        half = max(pilot.high - pilot.value, pilot.value - pilot.low)
        wanted = budget.precision if axis.logarithmic else budget.precision * abs(pilot.value)
        needed = ceil(PILOT_RUNS * (half / wanted) ** 2) if wanted else budget.most_runs
        runs = min(max(needed, LEAST_RUNS), budget.most_runs)
        inner = (
            max(pilot.value - MARGIN * half, outer[0]),
            min(pilot.value + MARGIN * half, outer[1]),
        )
        if inner[1] - inner[0] > 0.5 * (bracket[1] - bracket[0]):
            break
        bracket = inner
    found = _fit(axis, bracket, runs, budget.level)
    if found is None:  # the pilot misled: take the whole bracket
        found = _fit(axis, outer, budget.most_runs, budget.level)
    return None if found is None else _on_the_axis(found, axis, bracket, outer)


def _fit(axis: _Axis, bracket: tuple[float, float], runs: int, level: float) -> Root | None:
    loads = axis.loads(*bracket)
    pairs = axis.pairs(loads, [next(axis.fresh) for _ in range(runs)])
    if len(pairs[0]) < 3:
        return None
    places = [axis.forth(load) for load in loads]
    return root(places, pairs, (min(bracket[0], places[0]), max(bracket[1], places[-1])), level)


def _on_the_axis(
    found: Root, axis: _Axis, bracket: tuple[float, float], outer: tuple[float, float]
) -> Root:
    """`found` in units of the axis; what reaches an end of its bracket goes on to the outer one."""
    first, last = min(bracket[0], found.loads[0]), max(bracket[1], found.loads[-1])
    low = outer[0] if found.low <= first else found.low
    high = outer[1] if found.high >= last else found.high
    loads = tuple(axis.back(place) for place in found.loads)
    return Root(
        axis.back(found.value),
        axis.back(low),
        axis.back(high),
        found.runs,
        loads,
        found.rises,
    )


def _valleys(points: Sequence[Point], lower_is_better: bool, axis: _Axis) -> list[Valley]:
    """The longest runs of certain loads, of each configuration, the widest first."""
    valleys: list[Valley] = []
    start = 0
    for i, point in enumerate(points):
        if i + 1 < len(points) and points[i + 1].sign == point.sign:
            continue
        run, start = points[start : i + 1], i + 1
        if not point.sign:
            continue
        worse = int((point.sign > 0) == lower_is_better)
        deepest = max(run, key=lambda p: abs(log(p.ratio.value)) if p.ratio else 0.0)
        assert deepest.ratio is not None
        valleys.append(Valley(worse, run[0].load, run[-1].load, deepest.load, deepest.ratio))
    return sorted(valleys, key=lambda v: axis.forth(v.start) - axis.forth(v.end))
