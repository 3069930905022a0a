"""`pdvsim ablate`: what a difference between two architectures is made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pdvsim.architectures import COMPARED
from pdvsim.asked import Asked, Reference, references
from pdvsim.cell import check_bounds
from pdvsim.destination import Destination, destination_options
from pdvsim.errors import InputError
from pdvsim.options import architecture_option, cell_options, profile_option, replications_option
from pdvsim.pdverify import MECHANISMS

if TYPE_CHECKING:
    from pdvsim.ablate import Subject
    from pdvsim.ablate.shapley import Scale
    from pdvsim.documents.ablation import Ablation
    from pdvsim.profile import Profile

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
        seed = asked.values["seed"]
        found = published_ablation(
            tables, chosen, load, seed, profile_name, metric, mechanisms, scale, replications, to
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


def published_ablation(
    tables: tuple[Path, Path],
    chosen: Sequence[Reference],
    load: int,
    seed: int,
    profile_name: str | None,
    metric: str | None,
    mechanisms: tuple[str, ...],
    scale: Scale,
    replications: int,
    to: Destination,
) -> Ablation:
    """What the difference of two published cells is made of."""
    from pdvsim.ablate import ablate
    from pdvsim.ablate.document import document, length_of
    from pdvsim.ablate.question import check_metric
    from pdvsim.documents.head import command_line
    from pdvsim.pdverify.ablation import METRICS
    from pdvsim.profile import load_profile
    from pdvsim.sweep import check_replications

    metric = metric or PUBLISHED[0]
    check_metric(metric, METRICS)
    check_replications(replications)
    check_bounds("seed", seed)
    profile = load_profile(profile_name or MECHANISMS)
    subjects = published_subjects(chosen, tables, load, profile, replications, seed)
    with to.progress("simulating") as update:
        found = ablate(subjects, METRICS[metric], mechanisms or None, scale, on_run=update)
    return document(
        found,
        profile,
        load,
        seed,
        published=tables,
        length=length_of(subjects),
        command=command_line(),
    )


def published_subjects(
    chosen: Sequence[Reference],
    tables: tuple[Path, Path],
    concurrency: int,
    profile: Profile,
    replications: int,
    seed: int,
) -> list[Subject]:
    """The published cells, by the names of our architectures."""
    from pdvsim.pdverify.ablation import published
    from pdvsim.pdverify.published import read_published
    from pdvsim.pdverify.tables import ARCHITECTURE_OF

    engine_of = {name: engine for engine, name in ARCHITECTURE_OF.items()}
    names = [one.text for one in chosen]
    missing = [name for name in names if name not in engine_of]
    if missing:
        raise InputError(f"{missing[0]} was never published; choose among {', '.join(engine_of)}")
    engines = [engine_of[name] for name in names]
    cells, host = read_published(*tables), profile.host_costs()
    return published(cells, engines, concurrency, host, replications, seed)
