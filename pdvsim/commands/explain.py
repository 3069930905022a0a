"""`pdvsim explain`: every request's latency split into causes that sum to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pdvsim import output
from pdvsim.architectures import COMPARED
from pdvsim.errors import InputError
from pdvsim.options import Asked, architecture_option, cell_options, profile_option

if TYPE_CHECKING:
    from rich.table import Table

    from pdvsim.cell import Cell
    from pdvsim.explain import Explained, Trace
    from pdvsim.profile import Profile

REPLICATIONS = 5
TABLE_WIDTH = 6  # cells beside each other


@click.command()
@cell_options(architecture_option(",".join(COMPARED)))
@profile_option
@click.option("--replications", type=int, default=REPLICATIONS, show_default=True)
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
@output.json_option
def command(
    asked: Asked,
    profile_name: str | None,
    replications: int,
    records: tuple[Path, ...],
    benches: tuple[Path, ...],
    threads: bool,
    as_json: bool,
) -> None:
    """Split latency into its causes, simulated and real, and say what differences are made of."""
    from pdvsim.explain import benched, differences, gaps, largest_gaps, of_files
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
    with output.progress("simulating", as_json) as update:
        if wanted and profile is not None:
            cells += simulated(wanted, profile, replications, update)
        if measured and profile is not None:
            cells += benched(measured, profile, replications, update)
    cells += recorded(traces, profile)
    held = gaps(cells)
    document = {
        "command": "explain",
        "seed": asked.values["seed"],
        "replications": replications,
        "interval": "95 % prediction interval for one run",
        "specified": [cell.to_dict() for cell in wanted],
        "cells": [cell.to_dict() for cell in cells],
        "differences": [difference.to_dict() for difference in differences(cells)],
        "predicted_less_measured": held,
        "largest_gaps": largest_gaps(held, cells),
        "profile": None if profile is None else profile.provenance,
    }
    if as_json:
        output.print_json(document)
    else:
        show(document, cells, threads)


def simulated(
    cells: Sequence[Cell], profile: Profile, replications: int, update: Any
) -> list[Explained]:
    """Every cell, explained over its replications."""
    from pdvsim.cell import labels
    from pdvsim.explain import Explained, explain_simulated
    from pdvsim.machine import Replication
    from pdvsim.pool import run_all

    tasks = [Replication(cell, profile, i) for cell in cells for i in range(replications)]
    runs = run_all(explain_simulated, tasks, on_run=update)
    return [
        Explained(
            label,
            "simulated",
            cell.concurrency,
            runs[i * replications : (i + 1) * replications],
        )
        for i, (cell, label) in enumerate(zip(cells, labels(cells), strict=True))
    ]


def recorded(traces: Sequence[Trace], profile: Profile | None) -> list[Explained]:
    """The records, explained; those of one architecture at one load are replications."""
    from pdvsim.explain import Explained, Run, explain_run, priced

    found: dict[tuple[str, str, int], list[Run]] = {}
    for trace in traces:
        known = trace if profile is None else priced(trace, profile)
        key = trace.config.name, trace.world, trace.config.batch_cap
        found.setdefault(key, []).append(explain_run(known))
    return [Explained(*key, runs) for key, runs in found.items()]


def show(document: dict[str, Any], cells: Sequence[Explained], threads: bool) -> None:
    """Print a table for each load, and the sentences."""
    page = output.console()
    for at in sorted({cell.concurrency for cell in cells}):
        page.print(f"[bold]C = {at}[/bold]: mean E2E latency of completed requests, seconds")
        group = [cell for cell in cells if cell.concurrency == at]
        for first in range(0, len(group), TABLE_WIDTH):
            page.print(_table(group[first : first + TABLE_WIDTH]))
    for difference in document["differences"]:
        if difference["first"] == cells[0].architecture:
            page.print(difference["sentence"])
    for gap in document["predicted_less_measured"]:
        page.print(
            f"Predicted less measured, {gap['architecture']} at C = {gap['concurrency']}: at most "
            f"{abs(gap['worst_points']):.1f} points of share ({gap['worst']})."
        )
    for cell in document["cells"] if threads else ():
        for kind in ("threads", "streams"):
            for name, seconds in cell[f"{kind}_of_first_run"].items():
                page.print(_budget(cell, kind[:-1], name, seconds))
    page.print(
        f"Intervals: {document['interval']}, from {document['replications']} replications "
        f"(seed {document['seed']}); completed requests after the warm-up only."
    )


def _table(group: Sequence[Explained]) -> Table:
    """Cells beside each other, causes below each other."""
    from rich.table import Table

    from pdvsim.explain import CAUSES, MEMOS

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("cause", no_wrap=True)
    for cell in group:
        table.add_column(f"{cell.architecture}\n{cell.world}", justify="right", no_wrap=True)
    for cause in CAUSES:
        if any(cell.share(cause).value >= 5e-4 for cell in group):
            table.add_row(cause, *(_with_share(cell, cause) for cell in group))
    totals = (f"{output.number(cell.e2e_s.value)}   100 %" for cell in group)
    table.add_row("[bold]sum[/bold]", *totals)
    for memo in MEMOS:
        values = (output.number(cell.memo(memo).value) for cell in group)
        table.add_row(f"[dim]of it, {memo}[/dim]", *(f"{value}        " for value in values))
    return table


def _with_share(cell: Explained, cause: str) -> str:
    return f"{output.number(cell.seconds(cause).value)}  {100 * cell.share(cause).value:4.1f} %"


def _budget(cell: dict[str, Any], kind: str, name: str, seconds: dict[str, float]) -> str:
    total = sum(seconds.values())
    parts = [f"{what} {value / total:.1%}" for what, value in seconds.items() if value > 0]
    return f"{cell['architecture']}, {cell['world']}, {kind} {name}: {', '.join(parts)}"
