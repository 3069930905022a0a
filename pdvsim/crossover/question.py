"""Finds where one configuration overtakes another: the question behind `pdvsim crossover`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pdvsim.asked import Asked, Reference
from pdvsim.crossover.contour import Row, contour
from pdvsim.crossover.curve import Root
from pdvsim.crossover.search import Budget, Comparison, Point, compare
from pdvsim.crossover.space import AXES, Axis, Place, Side, Simulated
from pdvsim.documents import crossover as documents
from pdvsim.documents.base import RunLength
from pdvsim.documents.head import calibration, head, valid_for
from pdvsim.errors import InputError
from pdvsim.extrapolation import told
from pdvsim.profile import Profile
from pdvsim.protocols import protocols
from pdvsim.quantities import COMPARABLE, OF_SLO, QUANTITIES, Better
from pdvsim.rules_said import rules_said
from pdvsim.statistics import Interval
from pdvsim.sweep import check_replications
from pdvsim.verdict import PENDING, judged, ranking_metric

MAP_RUNS = 6
# Files that bring what an axis varies.
BRINGS = {
    "acceptance": ("acceptance_from",),
    "prompt_tokens": ("lengths_from", "prompts"),
    "output_tokens": ("lengths_from",),
}
INTERVAL = "95 % of plausible machines: of each ratio (in one run), of each crossing"
Name = Literal["first", "second"]
SIDES: tuple[Name, Name] = ("first", "second")


def crossed(
    asked: Asked,
    profile: Profile,
    sides: tuple[str, str],
    *,
    over: str,
    ends: tuple[float | None, float | None],
    points: int,
    metric: str | None,
    second_axis: str | None,
    replications: int,
    workers: int | None,
    on_run: Callable[[int, int], None] | None = None,
    command: str | None = None,
) -> documents.Crossover:
    """Where the second of two architectures overtakes the first.

    Args:
        asked: all else of their cells.
        over, ends: what is varied, and from where to where; None takes the axis's own ends.
        points: values looked at to begin with.
        metric: None takes what cells of the protocol are ranked by.
        second_axis: draws a map over both.
        replications: pairs of runs at one value at most.
        workers: processes; None takes one per usable core.

    Raises:
        InputError: something that cannot be, or that would have no effect.
    """
    axis, across = axis_called(over), None if second_axis is None else axis_called(second_axis)
    if across is axis:
        raise InputError(f"both axes of the map are {over}")
    if metric is None:
        slo = any(name.startswith("slo_") for name in asked.given)
        metric = ranking_metric(asked.values["protocol"], slo)
    _check_metric(metric, asked)
    check_replications(replications, least=4, most=1000)
    grid = axis.grid(*ends, points)
    better = QUANTITIES[metric].better
    assert better is not None
    chosen = Reference.parse(sides[0]), Reference.parse(sides[1])
    place = _place(asked, chosen, profile, [axis] if across is None else [axis, across])
    for value in (grid[0], grid[-1]):  # refuse what cannot run before running anything
        for side in axis.place(place, value).sides:
            side.cell.config()
            profile.check(side.cell)

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
            across.grid(None, None, points),
            lambda value: sampler_at(across, axis.place(place, value)),
            logarithmic=across.logarithmic,
            runs=MAP_RUNS,
        )
    return _document(place, axis, metric, better, profile, found, sampler, across, rows, command)


def axis_called(name: str) -> Axis:
    """The axis of that name.

    Raises:
        InputError: there is none.
    """
    if name not in AXES:
        raise InputError(f"unknown axis {name!r}; known are {', '.join(AXES)}")
    return AXES[name]


def _check_metric(metric: str, asked: Asked) -> None:
    """Refuse a metric that the protocol does not have, or that an SLO has no effect on."""
    mine = protocols()[asked.values["protocol"]]
    foreign = {n for one in protocols().values() if one is not mine for n in one.figure_names}
    known = [name for name in COMPARABLE if name not in foreign]
    if metric not in known:
        raise InputError(
            f"cannot compare {metric!r} under {mine.name}; known are {', '.join(known)}"
        )
    limits = [name for name in asked.given if name.startswith("slo_")]
    if metric in OF_SLO and not limits:
        raise InputError(f"{metric} counts requests within an SLO; give --slo-tpot-ms or another")
    if metric not in OF_SLO:
        asked.refuse_given(f"{metric} knows no SLO", limits)


def _place(
    asked: Asked, chosen: tuple[Reference, Reference], profile: Profile, axes: Sequence[Axis]
) -> Place:
    """Both sides as the options say; an arrival rate that is varied begins where its axis does."""
    protocol = protocols()[asked.values["protocol"]]
    if not protocol.sets_load and not any(axis.option in protocol.takes for axis in axes):
        others = [name for name, one in protocols().items() if one.sets_load]
        raise InputError(
            f"a {protocol.name} has one load; crossover needs one of {', '.join(others)}, or "
            "--over trace-speed"
        )
    for axis in axes:
        asked.refuse_given(f"{axis.name} is varied", [axis.option, *BRINGS.get(axis.option, ())])
        if all(axis.option in one.fixed for one in chosen):
            raise InputError(f"{axis.name} is varied, but both sides have one of their own")
    load = asked.one_load("vary it with --over concurrency")
    begins = {axis.option: axis.low for axis in axes if axis.option == "rate_per_s"}
    base = asked.base(profile.pair, profile.executor.name, load, **begins)
    first, second = (
        Side(one.text, cell, one.fixed)
        for one, cell in zip(chosen, asked.configured(base, chosen), strict=True)
    )
    return Place((first, second))


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
            *profile.notes,
            f"Acceptance: {first.cell.acceptance_text}. Seed {first.cell.seed}, "
            f"{found.runs} pairs of runs.",
            *rules_said([first.cell, second.cell]),
            *told(sampler.extrapolated),
        ),
        extrapolated=sampler.extrapolated,
        first=first,
        second=second,
        axis=_axis(axis),
        metric=metric,
        better=better,
        length=_length(sampler),
        points=tuple(_point(point, found, sampler) for point in found.points),
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


def _point(point: Point, found: Comparison, sampler: Simulated) -> documents.Point:
    overloads = sampler.overloads(point.load)
    alone = overloads[0] != overloads[1]
    pairs = point.pairs if point.ratio else None
    return documents.Point(
        at=point.load,
        ratio=point.ratio,
        first=float(pairs.first.mean()) if pairs else None,
        second=float(pairs.second.mean()) if pairs else None,
        answer=SIDES[int(overloads[0])] if alone else _answer(point, found),
        overloaded=tuple(side for side, too_much in zip(SIDES, overloads, strict=True) if too_much),
        pairs_of_runs=point.runs,
        share=point.share,
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
    return documents.Crossing(
        at=Interval(found.value, found.low, found.high),
        before=found.before,
        beyond=found.beyond,
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
