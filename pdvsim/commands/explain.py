"""`pdvsim explain`: every request's latency split into causes that sum to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pdvsim import output
from pdvsim.architectures import COMPARED
from pdvsim.asked import Asked
from pdvsim.destination import Destination, destination_options
from pdvsim.errors import InputError
from pdvsim.options import architecture_option, cell_options, profile_option, replications_option

if TYPE_CHECKING:
    from pdvsim.documents.explanation import Explanation
    from pdvsim.explain import Explained

REPLICATIONS = 5


@click.command()
@cell_options(architecture_option(",".join(COMPARED)))
@profile_option
@replications_option(REPLICATIONS)
@click.option(
    "--records",
    multiple=True,
    metavar="DIR/STEM",
    type=click.Path(path_type=Path),
    help="A run that bench --records has written; may be given several times. Cells are simulated "
    "beside it only if --concurrency is given.",
)
@click.option(
    "--bench",
    "benches",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Instead: a bench document beside its records; each run is predicted and held against.",
)
@click.option("--threads", is_flag=True, help="Also every second of each thread and stream.")
@destination_options
def command(
    asked: Asked,
    profile_name: str | None,
    replications: int,
    records: tuple[Path, ...],
    benches: tuple[Path, ...],
    threads: bool,
    to: Destination,
) -> None:
    """Split latency into its causes, simulated and real, and say what differences are made of."""
    from pdvsim.documents.head import command_line
    from pdvsim.explain import benched, of_files
    from pdvsim.explain.document import explanation
    from pdvsim.explain.question import recorded, simulated
    from pdvsim.measured.benched import profile_for, read_bench
    from pdvsim.sweep import check_replications

    check_replications(replications)
    simulating = "concurrency" in asked.given or not (records or benches)
    if benches:
        asked.refuse_given("--bench brings its own cells")
        if records:
            raise InputError("--bench brings its own records; leave --records out")
    elif not simulating:
        asked.refuse_given("--records bring their own cells", asked.given - {"pair", "executor"})
    measured = [read_bench(path) for path in benches]
    traces = [of_files(stem) for stem in records]
    profile, wanted = None, []
    if measured:
        profile = profile_for(measured, profile_name)
    elif simulating or profile_name is not None:
        profile = asked.profile(profile_name, traces[0].config.executor.name if traces else None)
        wanted = asked.simulated(profile) if simulating else []
    cells: list[Explained] = []
    with to.progress("simulating") as update:
        if wanted and profile is not None:
            cells += simulated(wanted, profile, replications, None, update)
        if measured and profile is not None:
            cells += benched(measured, profile, replications, update)
    cells += recorded(traces, profile)
    seed = wanted[0].seed if wanted else asked.values["seed"]
    document = explanation(cells, profile, replications, seed, command_line())
    to.deliver(document)
    if threads and not to.as_json:
        show_threads(document)


def show_threads(document: Explanation) -> None:
    """Print what every thread and stream did, in shares of its time."""
    page = output.console()
    for row in document.cells:
        for kind, budgets in (("thread", row.threads), ("stream", row.streams)):
            for budget in budgets:
                total = sum(part.seconds for part in budget.spent)
                spent = ", ".join(
                    f"{part.what} {part.seconds / total:.1%}"
                    for part in budget.spent
                    if part.seconds > 0
                )
                page.print(f"{row.label}, {row.world}, {kind} {budget.name}: {spent}", markup=False)
