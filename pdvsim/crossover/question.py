"""Finds where one configuration overtakes another: the question behind `pdvsim crossover`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pdvsim.crossover.contour import Row, contour
from pdvsim.crossover.curve import Root
from pdvsim.crossover.search import Budget, Comparison, Point, compare
from pdvsim.crossover.space import Axis, Place, Simulated
from pdvsim.documents import analyses as documents
from pdvsim.documents.base import RunLength
from pdvsim.documents.head import calibration, head, valid_for
from pdvsim.errors import InputError
from pdvsim.profile import Profile
from pdvsim.quantities import QUANTITIES, Better
from pdvsim.verdict import PENDING, judged

MAP_RUNS = 6
INTERVAL = "95 %: of the ratios all together, of each crossing by itself"
Name = Literal["first", "second"]
SIDES: tuple[Name, Name] = ("first", "second")


def crossed(
    place: Place,
    axis: Axis,
    grid: Sequence[float],
    metric: str,
    profile: Profile,
    replications: int,
    *,
    across: Axis | None = None,
    across_grid: Sequence[float] = (),
    workers: int | None = 1,
    on_run: Callable[[int, int], None] | None = None,
    command: str | None = None,
) -> documents.Crossover:
    """Where the second side of `place` overtakes the first along `axis`.

    Args:
        grid: values of the axis to look at to begin with.
        replications: pairs of runs at one value at most.
        across, across_grid: a second axis and its values; draws a map.
        workers: processes; None takes one per usable core.

    Raises:
        InputError: something on the way cannot run.
    """
    for value in (grid[0], grid[-1]):  # refuse what cannot run before running anything
        for side in axis.place(place, value).sides:
            side.cell.config()
    better = QUANTITIES[metric].better
    if better is None:
        raise InputError(f"neither more nor less of {metric} is better")

    def sampler_at(where: Axis, at: Place) -> Simulated:
        return Simulated(where, at, metric, profile, workers, on_run)

    sampler = sampler_at(axis, place)
    found = compare(
        grid,
        sampler,
        lower_is_better=better == "lower",
        logarithmic=axis.logarithmic,
        whole=axis.whole,
        budget=Budget(looks(replications), most_runs=max(8, replications)),
    )
    rows = None
    if across is not None:
        rows = contour(
            grid,
            across_grid,
            lambda value: sampler_at(across, axis.place(place, value)),
            logarithmic=across.logarithmic,
            runs=MAP_RUNS,
        )
    return _document(place, axis, metric, better, profile, found, sampler, across, rows, command)


def looks(replications: int) -> tuple[int, ...]:
    """4, 8, 16, ... and at last all."""
    found = [4]
    while 2 * found[-1] < replications:
        found.append(2 * found[-1])
    return tuple(sorted({*found, replications}))


def _document(
    place: Place,
    axis: Axis,
    metric: str,
    better: Better,
    profile: Profile,
    found: Comparison,
    sampler: Simulated,
    across: Axis | None,
    rows: Sequence[Row] | None,
    command: str | None,
) -> documents.Crossover:
    lower = better == "lower"
    first, second = (documents.Side(label=side.name, cell=side.cell) for side in place.sides)
    drawn = None
    if across is not None and rows is not None:
        drawn = documents.Map(axis=_axis(across), rows=tuple(_row(row, lower) for row in rows))
    document = documents.Crossover(
        **head("crossover", command),
        subject=" · ".join(
            (
                first.cell.pair,
                first.cell.executor,
                first.cell.protocol,
                f"{second.label} against {first.label} over {axis.name}",
            )
        ),
        valid_for=valid_for(profile),
        interval=INTERVAL,
        verdict=PENDING,
        notes=(
            f"Acceptance: {first.cell.acceptance_text}. Seed {first.cell.seed}, "
            f"{found.runs} pairs of runs.",
        ),
        first=first,
        second=second,
        axis=_axis(axis),
        metric=metric,
        better=better,
        length=_length(sampler),
        points=tuple(_point(point, found) for point in found.points),
        crossings=tuple(_crossing(one, lower) for one in found.crossings),
        valleys=tuple(
            documents.Valley(
                worse=SIDES[valley.worse],
                start=valley.start,
                end=valley.end,
                deepest=valley.deepest,
                ratio=valley.ratio,
            )
            for valley in found.valleys
        ),
        pairs_of_runs=found.runs,
        sentences=(),
        map=drawn,
        profile=calibration(profile),
    )
    return judged(document)


def _length(sampler: Simulated) -> RunLength | None:
    runs = len(sampler.lengths)
    if not runs:
        return None
    seconds, requests = (sum(column) / runs for column in zip(*sampler.lengths, strict=True))
    return RunLength(runs=runs, seconds=seconds, requests=requests)


def _axis(axis: Axis) -> documents.Axis:
    return documents.Axis(name=axis.name, logarithmic=axis.logarithmic, whole=axis.whole)


def _point(point: Point, found: Comparison) -> documents.Point:
    pairs = point.pairs if point.ratio else None
    return documents.Point(
        at=point.load,
        ratio=point.ratio,
        first=float(pairs.first.mean()) if pairs else None,
        second=float(pairs.second.mean()) if pairs else None,
        answer=_answer(point, found),
        pairs_of_runs=point.runs,
    )


def _answer(point: Point, found: Comparison) -> documents.Answer:
    ratio = point.ratio
    if ratio is None or ratio.low is None or ratio.high is None:
        return "unknown"
    if point.alike:
        return "alike"
    if not point.sign:
        return "open"
    return SIDES[int((point.sign > 0) != found.lower_is_better)]


def _crossing(found: Root, lower: bool) -> documents.Crossing:
    from pdvsim.statistics import Interval

    return documents.Crossing(
        at=Interval(found.value, found.low, found.high),
        ratio_rises=found.rises,
        better="second" if found.rises != lower else "first",
        pairs_of_runs=found.runs,
        places=tuple(found.loads),
    )


def _row(row: Row, lower: bool) -> documents.MapRow:
    return documents.MapRow(
        at=row.load,
        points=tuple(documents.MapPoint(at=p.load, ratio=p.ratio) for p in row.points),
        break_even=tuple(_crossing(found, lower) for found in row.break_even),
    )
