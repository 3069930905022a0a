"""`pdvsim validate`: bench and predict the same cells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pdvsim import output
from pdvsim.asked import Asked
from pdvsim.destination import Destination, destination_options
from pdvsim.errors import InputError
from pdvsim.models import pair
from pdvsim.options import (
    SLO,
    architecture_option,
    cell_options,
    gpu_option,
    profile_option,
    refuse_given,
)
from realengine.commands.bench import run_options

if TYPE_CHECKING:
    from pdvsim.profile import Profile


@click.command()
@cell_options(architecture_option("all"), *SLO)
@run_options
@destination_options
@profile_option
@gpu_option
@click.option(
    "--bench",
    "benches",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Measured before, by pdvsim bench -o; nothing is run then.",
)
@click.option("--predictions", type=int, default=16, show_default=True, help="Simulated runs.")
@click.pass_context
def command(
    ctx: click.Context,
    asked: Asked,
    device: str,
    replications: int,
    records: Path | None,
    profile_name: str | None,
    gpu: str | None,
    benches: tuple[Path, ...],
    predictions: int,
    to: Destination,
) -> None:
    """Measure cells, predict them from a profile, and print the errors."""
    from calibration.validate import validate
    from pdvsim.documents.head import command_line
    from pdvsim.measured.benched import bench_of, check_predictable, profile_for, read_bench
    from pdvsim.store import Store
    from pdvsim.sweep import check_replications
    from realengine.commands.bench import measured as measure

    output.make_folder(records)
    check_replications(predictions, most=1000, option="--predictions")
    store = Store(None, {})
    if benches:
        asked.refuse_given("--bench brings its own cells")
        refuse_given(ctx, "--bench brings its own runs", ("device", "replications", "records"))
        measured = [read_bench(path) for path in benches]
        profile = profile_for(measured, profile_name, gpu)
    else:
        profile = asked.profile(profile_name, gpu=gpu)
        cells = asked.simulated(profile)
        for cell in cells:
            check_predictable(cell, profile)
        reference = asked.values["pair"] or _known(profile)
        bench, store = measure(cells, reference, device, replications, records, to)
        measured = [bench_of(bench, Path() if records is None else records)]
    with to.progress("predicting") as update:
        document = validate(measured, profile, predictions, None, update, command_line())
    to.save(document)
    store.remove()
    to.show(document)


def _known(profile: Profile) -> str:
    """The pair of `profile`, where its names alone say where the models are."""
    try:
        pair(profile.pair.name)
    except InputError:
        raise InputError(
            f"profile {profile.name} is for {profile.pair.name}; say with --pair where they are"
        ) from None
    return profile.pair.name
