"""`pdvsim ablate`: what a difference between two architectures is made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pdvsim import output
from pdvsim.architectures import COMPARED
from pdvsim.cell import check_bounds
from pdvsim.errors import InputError
from pdvsim.options import (
    Asked,
    Reference,
    architecture_option,
    cell_options,
    profile_option,
    references,
)
from pdvsim.pdverify import MECHANISMS

if TYPE_CHECKING:
    from pdvsim.ablate import Subject
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
@click.option("--replications", type=int, default=REPLICATIONS, show_default=True)
@output.json_option
def command(
    asked: Asked,
    profile_name: str | None,
    metric: str | None,
    mechanisms: tuple[str, ...],
    scale: str,
    tables: tuple[Path, Path] | None,
    replications: int,
    as_json: bool,
) -> None:
    """Switch mechanisms off, singly and in every combination; shares add up to the whole.

    Of two architectures, the second over the first."""
    from pdvsim.ablate import METRICS, ablate, predicted
    from pdvsim.pdverify import ablation
    from pdvsim.profile import load_profile
    from pdvsim.sweep import check_replications

    offered = METRICS if tables is None else ablation.METRICS
    metric = metric or next(iter(offered))
    if metric not in offered:
        raise InputError(f"the metric {metric} is not known here; known are {', '.join(offered)}")
    check_replications(replications)
    load, seed = asked.one_load("one is ablated at a time"), asked.values["seed"]
    chosen = references(asked.values["architecture"])
    if len(chosen) > 2:
        raise InputError(
            f"--architecture is {asked.values['architecture']!r}; one or two can be ablated at a "
            "time"
        )
    if tables is None:
        profile = asked.profile(profile_name)
        subjects = [predicted(cell, profile, replications) for cell in asked.simulated(profile)]
    else:
        used = {"concurrency", "architecture", "seed"}
        asked.refuse_given("a published table has its own cells", asked.given - used)
        check_bounds("seed", seed)
        profile = load_profile(profile_name or MECHANISMS)
        subjects = published_subjects(chosen, tables, load, profile, replications, seed)
    with output.progress("simulating", as_json) as update:
        result = ablate(subjects, offered[metric], mechanisms or None, scale, on_run=update)
    document = {
        "command": "ablate",
        "seed": seed,
        "concurrency": load,
        "interval": "95 % prediction interval for one run",
        "published": None if tables is None else [str(path) for path in tables],
        **result.to_dict(),
        "profile": profile.provenance,
    }
    if as_json:
        output.print_json(document)
    else:
        show(document)


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


# How the parts of each scale are called, add up and are written.
WORDS = {
    "ratio": ("factor", "Factors multiply", "3f"),
    "difference": ("amount", "Amounts add up", "3g"),
}


def show(document: dict[str, Any]) -> None:
    """Print the table, and its sentence."""
    from rich.table import Table

    page = output.console()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("mechanism\n", no_wrap=True)
    what, rule, style = WORDS[document["scale"]]
    for heading in (f"{what}\n", "share of the whole\n%", f"{what}, it alone\nswitched off"):
        table.add_column(heading, justify="right", no_wrap=True)
    without = []
    for part in document["parts"]:
        if not part["effect"]:
            without.append(part["mechanism"])
            continue
        share = _interval(part["share"], "0f", 100.0) if document["decided"] else "n/a\n"
        table.add_row(
            part["mechanism"],
            _interval(part["part"], style),
            share,
            _interval(part["switched_off_alone"], style),
        )
    table.add_row("[bold]the whole[/bold]", _interval(document["whole"], style), "100\n", "")
    page.print(table)
    if without:
        page.print(f"Without effect: {', '.join(without)}.")
    page.print(document["sentence"])
    page.print(
        f"{rule} to the whole. Below each value: {document['interval']}, from "
        f"{document['replications']} replications (seed {document['seed']}, {document['runs']} "
        f"simulated runs in all)."
    )


def _interval(of: dict[str, float], digits: str, scale: float = 1.0) -> str:
    value, low, high = (None if of[name] is None else scale * of[name] for name in of)
    if low is None or high is None:
        return f"{value:.{digits}}\n[dim]one run[/dim]"
    return f"{value:.{digits}}\n[dim]{low:.{digits}} to {high:.{digits}}[/dim]"
