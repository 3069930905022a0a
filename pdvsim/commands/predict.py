"""`pdvsim predict`: every architecture at a load, from a profile, with intervals."""

from __future__ import annotations

import click

from pdvsim.asked import Asked
from pdvsim.destination import Destination, destination_options
from pdvsim.options import (
    SLO,
    architecture_option,
    cell_options,
    gpu_option,
    profile_option,
    replications_option,
    tail_of,
    tail_options,
)


@click.command()
@cell_options(architecture_option("all"), *SLO)
@profile_option
@gpu_option
@replications_option(
    None,
    "Simulated runs of each cell [default: 24, beyond C = 64 16, of open loops 12, of eager 5].",
)
@tail_options
@click.option("--formulas", is_flag=True, help="Closed forms beside the simulation, and why off.")
@destination_options
def command(
    asked: Asked,
    profile_name: str | None,
    gpu: str | None,
    replications: int | None,
    formulas: bool,
    tail_within: float,
    most_requests: int,
    to: Destination,
) -> None:
    """Predict every architecture at a load; metrics carry 95 % intervals for one run."""
    from pdvsim.pool import prepare

    prepare("pdvsim.sweep")
    from pdvsim.documents.head import command_line
    from pdvsim.prediction import predicted

    profile = asked.profile(profile_name, gpu=gpu)
    cells = asked.predicted(profile)
    wanted = tail_of(asked, tail_within, most_requests)
    with to.progress("simulating") as update:
        document = predicted(
            cells,
            profile,
            replications,
            formulas=formulas,
            wanted=wanted,
            workers=None,
            on_run=update,
            command=command_line(),
        )
    to.deliver(document)
