"""`pdvsim explain`: every request's latency split into causes that sum to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pdvsim import cli, output
from pdvsim.acceptance import Acceptance
from pdvsim.errors import InputError
from pdvsim.options import cell_options
from pdvsim.workload import Lengths

if TYPE_CHECKING:
    from rich.table import Table

    from pdvsim.explain import Explained, Trace
    from pdvsim.profile import Profile
    from pdvsim.sweep import Cell

REPLICATIONS = 5
TABLE_WIDTH = 6  # cells beside each other


def loads(text: str) -> list[int]:
    """Parse `8` or `1,8,64`.

    Raises:
        InputError: something in it is not a whole number.
    """
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise InputError(
            f"concurrency is {text!r}; it must be numbers, as in 8 or 1,8,64"
        ) from None


@click.command()
@click.option("--concurrency", default=None, help="C, or several: 1,8,64. None: records only.")
@click.option("--architecture", default="pd,pdv", show_default=True, help="all, or NAME,NAME,...")
@cell_options
@click.option("--replications", type=int, default=REPLICATIONS, show_default=True)
@click.option(
    "--records",
    multiple=True,
    metavar="DIR/STEM",
    type=click.Path(path_type=Path),
    help="A run that bench --records has written; may be given several times.",
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
    concurrency: str | None,
    architecture: str,
    pair: str | None,
    executor: str | None,
    profile_name: str | None,
    seed: int,
    replications: int,
    records: tuple[Path, ...],
    benches: tuple[Path, ...],
    threads: bool,
    as_json: bool,
    **load: Any,
) -> None:
    """Split latency into its causes, simulated and real, and say what differences are made of."""
    from pdvsim.explain import benched, differences, gaps, largest_gaps, of_files
    from pdvsim.measured.benched import read_bench
    from pdvsim.profile import select_profile

    if concurrency is None and not records and not benches:
        raise InputError("nothing to explain; give --concurrency, --records or --bench")
    if benches and (concurrency is not None or records):
        raise InputError("--bench brings its own loads and records; leave the others out")
    if not 1 <= replications <= 10_000:
        raise InputError(f"replications is {replications}; it must be between 1 and 10000")
    cli.load("predict").names(architecture)  # a record may be of a file that is named here
    traces = [of_files(stem) for stem in records]
    if executor is None and traces:
        executor = traces[0].config.executor.name
    measured = [(path.parent, read_bench(path)) for path in benches]
    if executor is None and measured:
        executor = measured[0][1]["arguments"]["executor"]
    wanted = concurrency is not None or profile_name is not None or measured
    profile = select_profile(profile_name, pair, executor) if wanted else None
    cells: list[Explained] = []
    if concurrency is not None and profile is not None:
        chosen = cells_of(architecture, loads(concurrency), profile, **load)
        with output.progress("simulating", as_json) as update:
            cells += simulated(chosen, replications, seed, update)
    if measured and profile is not None:
        with output.progress("simulating", as_json) as update:
            cells += benched(measured, profile, replications, update)
    cells += recorded(traces, profile)
    held = gaps(cells)
    document = {
        "command": "explain",
        "seed": seed,
        "replications": replications,
        "interval": "95 % prediction interval for one run",
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


def cells_of(
    architectures: str,
    concurrencies: Sequence[int],
    profile: Profile,
    protocol: str,
    rate: float | None,
    prompt_tokens: int,
    output_tokens: int,
    acceptance: float,
    draft_tokens: int,
    admission_factor: float | None,
    prefill_batch: int | None,
) -> list[Cell]:
    """The cells to simulate, as `pdvsim predict` makes them."""
    from pdvsim.sweep import Load

    if not 1 <= draft_tokens <= 16:
        raise InputError(f"draft_tokens is {draft_tokens}; it must be between 1 and 16")
    predict = cli.load("predict")
    lengths = Lengths(prompt_tokens, output_tokens)
    kept = Acceptance.constant(acceptance, draft_tokens)
    return [
        cell
        for at in concurrencies
        for cell in predict.cells_of(
            predict.names(architectures),
            profile,
            Load(protocol, at, lengths, kept, rate_per_s=rate),
            admission_factor,
            prefill_batch,
        )
    ]


def simulated(cells: Sequence[Cell], replications: int, seed: int, update: Any) -> list[Explained]:
    """Every cell, explained over its replications."""
    from pdvsim.explain import Explained, explain_simulated
    from pdvsim.pool import run_all

    tasks = [(cell, seed, i) for cell in cells for i in range(replications)]
    runs = run_all(explain_simulated, tasks, on_run=update)
    return [
        Explained(
            cell.config.name,
            "simulated",
            cell.load.concurrency,
            runs[i * replications : (i + 1) * replications],
        )
        for i, cell in enumerate(cells)
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
