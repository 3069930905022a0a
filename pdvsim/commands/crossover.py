"""`pdvsim crossover`: where one configuration overtakes another, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from pdvsim import output
from pdvsim.errors import InputError
from pdvsim.options import (
    SLO,
    Asked,
    Reference,
    cell_options,
    profile_option,
)
from pdvsim.protocols import protocols

if TYPE_CHECKING:
    from pdvsim.crossover import Comparison, Point, Root
    from pdvsim.crossover.contour import Row
    from pdvsim.crossover.space import Axis, Place
    from pdvsim.profile import Profile

REPLICATIONS = 16
POINTS = 8
MAP_RUNS = 6


@click.command()
@click.argument("first")
@click.argument("second")
@click.option("--over", default="concurrency", show_default=True, help="What is varied.")
@click.option("--from", "low", type=float, default=None, help="Where the axis begins.")
@click.option("--to", "high", type=float, default=None, help="Where it ends.")
@click.option(
    "--points", type=int, default=POINTS, show_default=True, help="Values looked at to begin with."
)
@click.option("--metric", default="output_throughput", show_default=True)
@click.option("--map", "second_axis", default=None, help="A second axis: draws a map.")
@cell_options(*SLO)
@profile_option
@click.option(
    "--replications",
    type=int,
    default=REPLICATIONS,
    show_default=True,
    help="Pairs of runs at one load at most; fewer where it is clear sooner.",
)
@output.json_option
def command(
    asked: Asked,
    first: str,
    second: str,
    over: str,
    low: float | None,
    high: float | None,
    points: int,
    metric: str,
    second_axis: str | None,
    profile_name: str | None,
    replications: int,
    as_json: bool,
) -> None:
    """Where SECOND overtakes FIRST: crossings, valleys and ratios, with intervals.

    FIRST and SECOND are architectures, with parameters if wanted: pdv@admission_factor=1.2
    """
    from pdvsim.crossover import Budget, compare
    from pdvsim.crossover.space import lower_is_better, simulated
    from pdvsim.sweep import check_replications

    axis, across = _axis(over), None if second_axis is None else _axis(second_axis)
    if across is axis:
        raise InputError(f"both axes of the map are {over}")
    _check_metric(metric, asked)
    check_replications(replications, least=4, most=1000)
    grid = axis.grid(low, high, points)
    profile = asked.profile(profile_name)
    chosen = Reference.parse(first), Reference.parse(second)
    place = _place(asked, chosen, profile, [axis] if across is None else [axis, across])
    for value in (grid[0], grid[-1]):  # refuse what cannot run before running anything
        for side in axis.place(place, value).sides:
            side.cell.config()
    with output.progress("simulating", as_json) as update:

        def sampler_at(where: Axis, at: Place) -> Any:
            return simulated(where, at, metric, profile, on_run=update)

        comparison = compare(
            grid,
            sampler_at(axis, place),
            lower_is_better=lower_is_better(metric),
            logarithmic=axis.logarithmic,
            whole=axis.whole,
            budget=Budget(_looks(replications), most_runs=max(8, replications)),
        )
        rows = None if across is None else _map(axis, across, grid, place, sampler_at, points)
    names = chosen[0].text, chosen[1].text
    document = {
        "command": "crossover",
        "seed": place.sides[0].cell.seed,
        "sides": [side.cell.to_dict() for side in place.sides],
        "first": names[0],
        "second": names[1],
        "over": axis.name,
        "metric": metric,
        "lower_is_better": lower_is_better(metric),
        "executor": profile.executor.name,
        "pair": profile.pair.name,
        "interval": "95 %: of the ratios all together, of each crossing by itself",
        **_described(comparison, names),
        "map": None if rows is None or across is None else _map_dict(rows, across),
        "profile": profile.provenance,
    }
    if as_json:
        output.print_json(document)
    else:
        show(document)


def _axis(name: str) -> Axis:
    from pdvsim.crossover.space import AXES

    if name not in AXES:
        raise InputError(f"unknown axis {name!r}; known are {', '.join(AXES)}")
    return AXES[name]


def _check_metric(metric: str, asked: Asked) -> None:
    from pdvsim.crossover.space import COMPARED

    mine = protocols()[asked.values["protocol"]]
    foreign = {n for one in protocols().values() if one is not mine for n in one.figure_names}
    known = [name for name in COMPARED if name not in foreign]
    if metric not in known:
        raise InputError(
            f"cannot compare {metric!r} under {mine.name}; known are {', '.join(known)}"
        )
    limits = [name for name in asked.given if name.startswith("slo_")]
    if metric == "request_goodput" and not limits:
        raise InputError("goodput counts requests within an SLO; give --slo-tpot-ms or another")
    if metric != "request_goodput":
        asked.refuse_given(f"{metric} knows no SLO", limits)


def _place(
    asked: Asked, chosen: tuple[Reference, Reference], profile: Profile, axes: Sequence[Axis]
) -> Place:
    """Both sides as the options say; an arrival rate that is varied begins where its axis does."""
    from pdvsim.crossover.space import Place, Side

    protocol = protocols()[asked.values["protocol"]]
    if not protocol.sets_load:
        others = [name for name, one in protocols().items() if one.sets_load]
        raise InputError(
            f"a {protocol.name} has one load; crossover needs one of {', '.join(others)}"
        )
    for axis in axes:
        asked.refuse_given(f"{axis.name} is varied", [axis.option])
        if all(axis.option in one.fixed for one in chosen):
            raise InputError(f"{axis.name} is varied, but both sides have one of their own")
    load = asked.one_load("vary it with --over concurrency")
    begins = {axis.option: axis.low for axis in axes if axis.option == "rate_per_s"}
    base = asked.base(profile.pair.name, profile.executor.name, load, **begins)
    first, second = (
        Side(one.text, cell, one.fixed)
        for one, cell in zip(chosen, asked.configured(base, chosen), strict=True)
    )
    return Place((first, second))


def _looks(replications: int) -> tuple[int, ...]:
    """4, 8, 16, ... and at last all."""
    looks = [4]
    while 2 * looks[-1] < replications:
        looks.append(2 * looks[-1])
    return tuple(sorted({*looks, replications}))


def _map(
    axis: Axis,
    across: Axis,
    grid: Sequence[float],
    place: Place,
    sampler_at: Callable[[Axis, Place], Any],
    points: int,
) -> list[Row]:
    from pdvsim.crossover.contour import contour

    return contour(
        grid,
        across.grid(None, None, points),
        lambda load: sampler_at(across, axis.place(place, load)),
        logarithmic=across.logarithmic,
        runs=MAP_RUNS,
    )


def _described(comparison: Comparison, names: tuple[str, str]) -> dict[str, Any]:
    return {
        "points": [
            {
                "load": point.load,
                "ratio": point.ratio and point.ratio.to_dict(),
                "verdict": _verdict(point, comparison, names),
                "replications": point.runs,
                "first": float(point.pairs.first.mean()) if point.ratio and point.pairs else None,
                "second": float(point.pairs.second.mean()) if point.ratio and point.pairs else None,
            }
            for point in comparison.points
        ],
        "crossings": [_root_dict(found) for found in comparison.crossings],
        "valleys": [
            {
                "worse": names[valley.worse],
                "from": valley.start,
                "to": valley.end,
                "deepest": valley.deepest,
                "ratio": valley.ratio.to_dict(),
            }
            for valley in comparison.valleys
        ],
        "alike": comparison.alike,
        "undecided": comparison.undecided,
        "pairs_of_runs": comparison.runs,
    }


def _verdict(point: Point, comparison: Comparison, names: tuple[str, str]) -> str:
    """The better side's name, `alike` or `open`."""
    if point.load in comparison.undecided:
        return "open"
    if not point.sign:
        return "alike"
    return names[int((point.sign > 0) != comparison.lower_is_better)]


def _root_dict(found: Root) -> dict[str, Any]:
    return {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "ratio_rises": found.rises,
        "replications": found.runs,
        "loads": list(found.loads),
    }


def _map_dict(rows: Sequence[Row], across: Axis) -> dict[str, Any]:
    return {
        "across": across.name,
        "rows": [
            {
                "load": row.load,
                "points": [
                    {across.option: p.load, "ratio": p.ratio and p.ratio.to_dict()}
                    for p in row.points
                ],
                "break_even": [_root_dict(found) for found in row.break_even],
            }
            for row in rows
        ],
    }


def show(document: dict[str, Any]) -> None:
    """Print the survey, and a sentence for each crossing and valley."""
    from rich.table import Table

    first, second, over = document["first"], document["second"], document["over"]
    page = output.console()
    page.print(
        f"[bold]{second}[/bold] against [bold]{first}[/bold], {document['metric']} over {over}; "
        f"{document['pair']}, {document['executor']} executor"
    )
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in (over, first, second, f"{second} / {first}", "interval", "better", "runs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for point in document["points"]:
        ratio = point["ratio"]
        ends = (ratio["low"], ratio["high"]) if ratio else (None, None)
        table.add_row(
            f"{point['load']:.4g}",
            output.number(point["first"]),
            output.number(point["second"]),
            output.number(ratio["value"] if ratio else None, 4),
            f"{output.number(ends[0], 4)} to {output.number(ends[1], 4)}",
            point["verdict"],
            str(point["replications"]),
        )
    page.print(table)
    for line in sentences(document):
        page.print(line)
    if document["map"] is not None:
        _show_map(document, page)


def sentences(document: dict[str, Any]) -> list[str]:
    """Crossings, valleys and what stays open, one sentence each."""
    first, second, over = document["first"], document["second"], document["over"]
    lines = []
    for found in document["crossings"]:
        better = second if found["ratio_rises"] != document["lower_is_better"] else first
        lines.append(
            f"From {over} {output.number(found['value'])} on ({output.number(found['low'])} to "
            f"{output.number(found['high'])}) {better} is better."
        )
    if not lines:
        lines.append("No crossing is certain in this range.")
    for valley in document["valleys"]:
        ratio = valley["ratio"]
        start, end = f"{valley['from']:.4g}", f"{valley['to']:.4g}"
        lines.append(
            f"{valley['worse']} is worse at {over} {start if start == end else f'{start} to {end}'}"
            f", most at {valley['deepest']:.4g}: "
            f"{second} / {first} = {output.number(ratio['value'], 4)} "
            f"({output.number(ratio['low'], 4)} to {output.number(ratio['high'], 4)})."
        )
    if document["undecided"]:
        loads = ", ".join(f"{load:.4g}" for load in document["undecided"])
        lines.append(f"Open at {over} {loads}: the difference is within its interval.")
    lines.append(f"Intervals, {document['interval']}; {document['pairs_of_runs']} pairs of runs.")
    return lines


def _show_map(document: dict[str, Any], page: Any) -> None:
    from rich.table import Table

    across, rows = document["map"]["across"], document["map"]["rows"]
    page.print(f"\n{document['second']} / {document['first']} over {across}")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(document["over"], justify="right")
    field = next(name for name in rows[0]["points"][0] if name != "ratio")
    for point in rows[0]["points"]:
        table.add_column(f"{point[field]:.4g}", justify="right")
    table.add_column("break-even", justify="right", no_wrap=True)
    for row in rows:
        evens = [
            f"{output.number(e['value'])} ({output.number(e['low'])} to {output.number(e['high'])})"
            for e in row["break_even"]
        ]
        ratios = [output.number((p["ratio"] or {}).get("value")) for p in row["points"]]
        table.add_row(f"{row['load']:.4g}", *ratios, ", ".join(evens) or "none")
    page.print(table)
