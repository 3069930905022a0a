"""`pdvsim crossover`: where one configuration overtakes another, with intervals."""

from __future__ import annotations

import click

from pdvsim.asked import Asked
from pdvsim.destination import Destination, destination_options
from pdvsim.options import SLO, cell_options, gpu_option, profile_option
from pdvsim.quantities import COMPARABLE

REPLICATIONS = 32
POINTS = 8
# The axes of `pdvsim.crossover.space`, which is too heavy for --help.
OVER = (
    *(
        "concurrency",
        "rate",
        "trace-speed",
        "draft-tokens",
        "acceptance",
        "prompt-tokens",
        "output-tokens",
    ),
    *("admission-factor", "model-ratio"),
)


@click.command()
@click.argument("first")
@click.argument("second")
@click.option(
    "--over", default="concurrency", show_default=True, help=f"What is varied: {', '.join(OVER)}."
)
@click.option("--from", "low", type=float, default=None, help="Where the axis begins.")
@click.option("--to", "high", type=float, default=None, help="Where it ends.")
@click.option(
    "--points", type=int, default=POINTS, show_default=True, help="Values looked at to begin with."
)
@click.option(
    "--metric",
    default=None,
    help=f"What is compared: {', '.join(COMPARABLE)}. [output_throughput; goodput under an SLO; "
    "median_e2el_ms in an open loop]",
)
@click.option("--map", "second_axis", default=None, help="A second of --over: draws a map.")
@cell_options(*SLO)
@profile_option
@gpu_option
@click.option(
    "--replications",
    type=int,
    default=REPLICATIONS,
    show_default=True,
    help="Machines drawn at one load at most; fewer where it is clear sooner.",
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
    metric: str | None,
    second_axis: str | None,
    profile_name: str | None,
    gpu: str | None,
    replications: int,
    to: Destination,
) -> None:
    """Where SECOND overtakes FIRST: crossings, valleys and ratios, with intervals.

    FIRST and SECOND are architectures, with parameters if wanted: pdv@admission_factor=1.2
    """
    from pdvsim.crossover.question import crossed
    from pdvsim.documents.head import command_line

    profile = asked.profile(profile_name, gpu=gpu)
    with to.progress("simulating") as update:
        document = crossed(
            asked,
            profile,
            (first, second),
            over=over,
            ends=(low, high),
            points=points,
            metric=metric,
            second_axis=second_axis,
            replications=replications,
            workers=None,
            on_run=update,
            command=command_line(),
        )
    to.deliver(document)
