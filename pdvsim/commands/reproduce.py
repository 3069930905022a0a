"""`pdvsim reproduce`: predict a published pdverify table from its own rows at C <= 2."""

from __future__ import annotations

from pathlib import Path

import click

from pdvsim.cell import check_bounds
from pdvsim.destination import Destination, destination_options
from pdvsim.options import replications_option, seed_option
from pdvsim.pdverify import MECHANISMS

REPLICATIONS = 20


@click.command()
@click.argument("summary", type=click.Path(path_type=Path))
@click.argument("detailed", type=click.Path(path_type=Path))
@click.option(
    "--profile",
    "profile_name",
    default=MECHANISMS,
    show_default=True,
    help="Where the GIL's and the locks' behaviour was measured; its stage times are not used.",
)
@replications_option(REPLICATIONS)
@seed_option
@destination_options
def command(
    summary: Path,
    detailed: Path,
    profile_name: str,
    replications: int,
    seed: int,
    to: Destination,
) -> None:
    """Calibrate on the rows at C <= 2 of a published table, predict all of it, and compare."""
    from pdvsim.documents.head import command_line
    from pdvsim.pdverify.document import document
    from pdvsim.pdverify.published import read_published
    from pdvsim.pdverify.reproduce import reproduce
    from pdvsim.profile import load_profile
    from pdvsim.sweep import check_replications

    check_replications(replications, least=2)
    check_bounds("seed", seed)
    cells = read_published(summary, detailed)
    profile = load_profile(profile_name)
    with to.progress("simulating") as update:
        found = reproduce(cells, profile.host_costs(), replications, seed, on_run=update)
    to.deliver(document(found, profile, (summary, detailed), seed, command_line()))
