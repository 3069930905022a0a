"""Which runs to make, so that those are made that still can change the answer.

1. *Survey*: a few machines at every load; then more, look by look, only where it is still open
   which configuration is better on a further one.
2. *Crossings*: between neighbouring loads at which the mean certainly is on opposite sides of 1
   (with the level divided by the number of loads and looks, Bonferroni). A few pilot machines say
   how far machines cross from each other; the bracket is moved and widened until all but few of
   them cross inside. The interval then rests on fresh machines alone, so that the search does not
   bias it. It is as wide as machines differ: more runs make it surer, not narrower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, pairwise
from math import ceil, exp, floor, inf, log

import numpy as np

from pdvsim.crossover.curve import Pairs, Root, root, whole_root
from pdvsim.errors import InputError
from pdvsim.statistics import Interval
from pdvsim.strata import BLOCK

# (load, index of the machine) -> the metric of both, or None where a run cannot say.
Sample = tuple[float, int]
Sampler = Callable[[Sequence[Sample]], Sequence[tuple[float, float] | None]]

PILOT_RUNS = 8
PLACES = 5  # loads inside a bracket
WHOLE_PLACES = 9  # of an axis of whole numbers, where curves have teeth
MARGIN = 1.5  # half width of a bracket, in those of the interval seen so far
LEAST_WIDTH = 0.05  # of a bracket, on both sides of the crossing, in widths of the one before
TRIES = 4  # brackets looked at on pilot machines
INDIFFERENCE = 0.01  # ratios that are certainly this close to 1 do not matter
FIRST_FRESH_RUN = 2**20  # the survey's indices stay below; a block of evenly spread draws begins


@dataclass(frozen=True, slots=True)
class Budget:
    """How much to spend.

    Attributes:
        looks: machines at a load after each look of the survey.
        level: of the crossings' intervals, of each ratio's, and of all mean ratios together.
        indifference: configurations whose ratio is certainly this close to 1 are alike: neither
            is better, however certain the difference.
        most_runs: machines that a crossing's interval rests on.
    """

    looks: tuple[int, ...] = (4, 8, 16)
    level: float = 0.95
    indifference: float = INDIFFERENCE
    most_runs: int = 32

    def __post_init__(self) -> None:
        if not self.looks or self.looks[0] < 2 or list(self.looks) != sorted(set(self.looks)):
            raise InputError(f"looks are {self.looks}; they must grow, from at least 2 runs")


@dataclass(frozen=True, eq=False)
class Point:
    """What the survey knows at one load.

    Attributes:
        ratio: second / first, with the interval of a further machine; None where the runs could
            not say.
        mean: the same with the interval of the mean, which decides between which loads to search.
        share: of machines, on which second is greater.
        runs: machines looked at.
        indifference: how close to 1 the ratio of those that are alike is.
    """

    load: float
    ratio: Interval | None = None
    mean: Interval | None = None
    share: float | None = None
    runs: int = 0
    pairs: Pairs | None = None
    indifference: float = 0.0

    @property
    def alike(self) -> bool:
        """Whether neither is certainly better by enough to matter."""
        return _within(self.ratio, 1.0 - self.indifference, 1.0 + self.indifference)

    @property
    def sign(self) -> int:
        """1 if second is greater on all machines but few, -1 if smaller, else 0."""
        return 0 if self.alike else _side(self.ratio)

    @property
    def mean_sign(self) -> int:
        """1 if second is certainly greater on most machines or on average, -1 if smaller, else 0;
        also 0 if it hardly matters."""
        close = _within(self.mean, 1.0 - self.indifference, 1.0 + self.indifference)
        return self.sign or (0 if self.alike or close else _side(self.mean))

    @property
    def open(self) -> bool:
        """Whether machines differ in which is better, as far as is known."""
        return self.ratio is not None and not self.sign and not self.alike

    def after(
        self, look: int, answers: Sequence[tuple[float, float] | None], level: float, each: float
    ) -> Point:
        """This point with the runs of one more look.

        Args:
            level, each: of the interval of a further machine, and of the mean.
        """
        known = [pair for pair in answers if pair is not None]
        if self.pairs is not None:
            known = [*zip(self.pairs.first, self.pairs.second, strict=True), *known]
        table = np.array(known, dtype=np.float64).reshape(-1, 2)
        pairs = Pairs(table[:, 0], table[:, 1])
        if 2 * len(pairs) <= look:  # most runs could not say
            return replace(self, ratio=None, mean=None, share=None, runs=look, pairs=pairs)
        return replace(
            self,
            ratio=pairs.machines(level),
            mean=pairs.ratio(each),
            share=pairs.share(),
            runs=look,
            pairs=pairs,
        )


def _within(ratio: Interval | None, low: float, high: float) -> bool:
    if ratio is None or ratio.low is None or ratio.high is None:
        return False
    return low < ratio.low and ratio.high < high


def _side(ratio: Interval | None) -> int:
    return int(_within(ratio, 1.0, inf)) - int(_within(ratio, -inf, 1.0))


@dataclass(frozen=True, slots=True)
class Valley:
    """A run of neighbouring loads at which one configuration is worse on all machines but few.

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
        undecided: loads at which machines differ in which is better, or runs could not say.
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
    fresh: count[int] = field(default_factory=lambda: count(FIRST_FRESH_RUN, 32 * BLOCK))
    spent: int = 0

    def forth(self, load: float) -> float:
        return log(load) if self.logarithmic else load

    def back(self, place: float) -> float:
        return exp(place) if self.logarithmic else place

    def loads(self, low: float, high: float) -> list[float]:
        """Places for runs between two places of the fit, ends included."""
        if not self.whole:
            return sorted({self.back(place) for place in np.linspace(low, high, PLACES)})
        first, last = floor(self.back(low) + 1e-6), ceil(self.back(high) - 1e-6)
        last = max(last, first + 1)
        if last - first < WHOLE_PLACES:
            return [float(load) for load in range(first, last + 1)]
        space = np.geomspace if self.logarithmic else np.linspace
        return sorted({float(round(load)) for load in space(first, last, WHOLE_PLACES)})

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
    crossings = [
        found
        for bracket in _brackets(points)
        if (found := _crossing(axis, bracket, budget)) is not None
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
    each = 1.0 - (1.0 - budget.level) / (len(loads) * len(budget.looks))
    points = {load: Point(load, indifference=budget.indifference) for load in loads}
    done = spent = 0
    for look in budget.looks:
        unclear = [p.load for p in points.values() if not done or p.open]
        samples = [(load, index) for index in range(done, look) for load in unclear]
        answers = sampler(samples) if samples else ()
        spent += len(samples)
        for i, load in enumerate(unclear):
            mine = answers[i :: len(unclear)]
            points[load] = points[load].after(look, mine, budget.level, each)
        done = look
    return list(points.values()), spent


@dataclass(frozen=True, slots=True)
class _Bracket:
    """Where to look for a crossing.

    Attributes:
        low, high: the mean crosses between these.
        first, last: how far machines' crossings of it may lie: to where the mean crosses again, or
            to the end of the axis.
        rises: whether second gets ahead.
    """

    low: float
    high: float
    first: float
    last: float
    rises: bool


def _brackets(points: Sequence[Point]) -> list[_Bracket]:
    decided = [point for point in points if point.mean_sign]
    changes = [i for i, (a, b) in enumerate(pairwise(decided)) if a.mean_sign != b.mean_sign]
    found = []
    for before, at, after in zip([None, *changes], changes, [*changes[1:], None], strict=False):
        first = points[0] if before is None else decided[before + 1]
        last = points[-1] if after is None else decided[after]
        low, high = decided[at], decided[at + 1]
        rises = high.mean_sign > 0
        found.append(_Bracket(low.load, high.load, first.load, last.load, rises))
    return found


def _crossing(axis: _Axis, bracket: _Bracket, budget: Budget) -> Root | None:
    """The crossing of the mean inside `bracket`, with that of machines."""
    begun = low, high = axis.forth(bracket.low), axis.forth(bracket.high)
    first, last = axis.forth(bracket.first), axis.forth(bracket.last)
    for _ in range(TRIES):
        pilot = _fit(axis, (low, high), bracket.rises, PILOT_RUNS, budget.level)
        if pilot is None:
            break
        width = high - low
        wanted = (
            max(first, pilot.value - MARGIN * (pilot.value - pilot.low) - LEAST_WIDTH * width),
            min(last, pilot.value + MARGIN * (pilot.high - pilot.value) + LEAST_WIDTH * width),
        )
        if pilot.before > 0.0 and low > first:  # how far is not known
            wanted = max(first, low - width), wanted[1]
        if pilot.beyond > 0.0 and high < last:
            wanted = wanted[0], min(last, high + width)
        if axis.whole:  # beyond what looks like the last tooth there may be one more
            wanted = min(wanted[0], begun[0]), max(wanted[1], begun[1])
        fits = low <= wanted[0] and wanted[1] <= high
        low, high = wanted
        if fits and high - low > 0.5 * width:
            break
    found = _fit(axis, (low, high), bracket.rises, budget.most_runs, budget.level)
    if found is None:  # the pilot misled
        found = _fit(axis, begun, bracket.rises, budget.most_runs, budget.level)
    return None if found is None else _on_the_axis(found, axis)


def _fit(
    axis: _Axis, bracket: tuple[float, float], rises: bool, runs: int, level: float
) -> Root | None:
    """On fresh machines, in places of the fit."""
    loads = axis.loads(*bracket)
    begin = next(axis.fresh)
    pairs = axis.pairs(loads, range(begin, begin + runs))
    if len(pairs[0]) < 3:
        return None
    places = [axis.forth(load) for load in loads]
    if axis.whole:
        return whole_root(places, pairs, rises, level)
    return root(places, pairs, (min(bracket[0], places[0]), max(bracket[1], places[-1])), level)


def _on_the_axis(found: Root, axis: _Axis) -> Root:
    """`found` in units of the axis; of whole numbers, the first on the other side."""

    def back(place: float) -> float:
        load = axis.back(place)
        return float(ceil(load - 1e-6)) if axis.whole else load

    return replace(
        found,
        value=back(found.value),
        low=back(found.low),
        high=back(found.high),
        loads=tuple(axis.back(place) for place in found.loads),
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
