"""`pdvsim ablate`: what a difference between two architectures is made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pdvsim.architectures import COMPARED
from pdvsim.asked import Asked, references
from pdvsim.destination import Destination, destination_options
from pdvsim.errors import InputError
from pdvsim.options import architecture_option, cell_options, profile_option, replications_option
from pdvsim.pdverify import MECHANISMS

if TYPE_CHECKING:
    from pdvsim.ablate.shapley import Scale

REPLICATIONS = 12
PREDICTED, PUBLISHED = ("e2e", "ttft", "throughput"), ("latency", "tps")


@click.command()
@cell_options(architecture_option(",".join(COMPARED)))
@profile_option
@click.option(
    "--metric",
    type=click.Choice((*PREDICTED, *PUBLISHED)),
    default=None,
    help="[e2e; with --published: latency] tps and latency are the published benchmark's own.",
)
@click.option("--mechanism", "mechanisms", multiple=True, help="Only these [all that play a part].")
@click.option(
    "--scale",
    type=click.Choice(("ratio", "difference")),
    default="ratio",
    show_default=True,
    help="Parts are factors, or amounts; amounts also where a metric is 0.",
)
@click.option(
    "--published",
    "tables",
    nargs=2,
    type=click.Path(path_type=Path),
    default=None,
    metavar="SUMMARY.csv DETAILED.csv",
    help="Take apart a published table instead of a prediction.",
)
@replications_option(REPLICATIONS)
@destination_options
def command(
    asked: Asked,
    profile_name: str | None,
    metric: str | None,
    mechanisms: tuple[str, ...],
    scale: Scale,
    tables: tuple[Path, Path] | None,
    replications: int,
    to: Destination,
) -> None:
    """Switch mechanisms off, singly and in every combination; shares add up to the whole.

    Of two architectures, the second over the first."""
    from pdvsim.ablate.question import ablated
    from pdvsim.documents.head import command_line
    from pdvsim.pdverify import question
    from pdvsim.profile import load_profile

    load = asked.one_load("one is ablated at a time")
    chosen = references(asked.values["architecture"])
    if len(chosen) > 2:
        raise InputError(
            f"--architecture is {asked.values['architecture']!r}; one or two can be ablated at a "
            "time"
        )
    if tables is not None:
        used = {"concurrency", "architecture", "seed"}
        asked.refuse_given("a published table has its own cells", asked.given - used)
        profile = load_profile(profile_name or MECHANISMS)
        with to.progress("simulating") as update:
            found = question.ablated(
                tables,
                [one.text for one in chosen],
                load,
                profile,
                metric=metric or PUBLISHED[0],
                mechanisms=mechanisms or None,
                scale=scale,
                replications=replications,
                seed=asked.values["seed"],
                on_run=update,
                command=command_line(),
            )
    else:
        profile = asked.profile(profile_name)
        cells = asked.simulated(profile)
        with to.progress("simulating") as update:
            found = ablated(
                cells,
                profile,
                metric=metric or PREDICTED[0],
                mechanisms=mechanisms or None,
                scale=scale,
                replications=replications,
                workers=None,
                on_run=update,
                command=command_line(),
            )
    to.deliver(found)
