"""A map in two dimensions and its break-even contour."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import exp, log

from pdvsim.crossover.curve import Root, root
from pdvsim.crossover.search import Budget, Point, Sampler, survey


@dataclass(frozen=True, eq=False)
class Row:
    """One load of a map.

    Attributes:
        points: over the second axis.
        break_even: where on it the two are alike; the contour goes through here.
    """

    load: float
    points: list[Point]
    break_even: list[Root] = field(default_factory=list)


def contour(
    loads: Sequence[float],
    values: Sequence[float],
    sampler_at: Callable[[float], Sampler],
    *,
    logarithmic: bool,
    runs: int,
    level: float = 0.95,
) -> list[Row]:
    """`runs` pairs of runs at every load and value.

    A break-even lies between values at which the mean certainly is on opposite sides; its interval
    rests on the runs at those and between.
    """
    rows = []
    for load in loads:
        points, _ = survey(values, sampler_at(load), Budget(looks=(runs,), level=level))
        decided = [i for i, point in enumerate(points) if point.mean_sign]
        roots = (
            _between(points[i : j + 1], logarithmic, level)
            for i, j in pairwise(decided)
            if points[i].mean_sign != points[j].mean_sign
        )
        rows.append(Row(load, points, [found for found in roots if found is not None]))
    return rows


def _between(points: Sequence[Point], logarithmic: bool, level: float) -> Root | None:
    forth, back = (log, exp) if logarithmic else (float, float)
    known = [point for point in points if point.pairs is not None]
    fewest = min(len(point.pairs) for point in known if point.pairs is not None)
    if any(point.runs != fewest for point in known):
        return None  # some run could not say everywhere, so the runs do not match up
    places = [forth(point.load) for point in known]
    found = root(
        places,
        [point.pairs for point in known if point.pairs is not None],
        (places[0], places[-1]),
        level,
    )
    if found is None:
        return None
    return replace(
        found,
        value=back(found.value),
        low=back(found.low),
        high=back(found.high),
        loads=tuple(point.load for point in known),
    )
