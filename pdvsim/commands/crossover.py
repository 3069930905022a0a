"""`pdvsim crossover`: where one configuration overtakes another, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from pdvsim.destination import Destination, destination_options
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
    from pdvsim.crossover.space import Axis, Place
    from pdvsim.profile import Profile

REPLICATIONS = 16
POINTS = 8


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
@destination_options
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
    to: Destination,
) -> None:
    """Where SECOND overtakes FIRST: crossings, valleys and ratios, with intervals.

    FIRST and SECOND are architectures, with parameters if wanted: pdv@admission_factor=1.2
    """
    from pdvsim.crossover.question import crossed
    from pdvsim.documents.head import command_line
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
    with to.progress("simulating") as update:
        document = crossed(
            place,
            axis,
            grid,
            metric,
            profile,
            replications,
            across=across,
            across_grid=() if across is None else across.grid(None, None, points),
            workers=None,
            on_run=update,
            command=command_line(),
        )
    to.deliver(document)


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
