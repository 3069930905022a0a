"""`pdvsim validate`: bench and predict the same cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from pdvsim import output
from pdvsim.options import (
    SLO,
    Asked,
    architecture_option,
    cell_options,
    profile_option,
    refuse_given,
)
from realengine.commands.bench import run_options


@click.command()
@cell_options(architecture_option("all"), *SLO)
@run_options
@profile_option
@click.option(
    "--bench",
    "benches",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Measured before, by pdvsim bench -o; nothing is run then.",
)
@click.option("--predictions", type=int, default=8, show_default=True, help="Simulated runs.")
@click.pass_context
def command(
    ctx: click.Context,
    asked: Asked,
    device: str,
    replications: int,
    records: Path | None,
    out: Path | None,
    profile_name: str | None,
    benches: tuple[Path, ...],
    predictions: int,
    as_json: bool,
) -> None:
    """Measure cells, predict them from a profile, and print the errors."""
    from calibration.validate import validate
    from pdvsim.measured.benched import bench_of, check_predictable, profile_for, read_bench
    from pdvsim.store import Store
    from pdvsim.sweep import check_replications
    from realengine.commands.bench import bench_document, check_outputs

    check_outputs(out, records)
    check_replications(predictions, most=1000, option="--predictions")
    store = Store(None, {})
    if benches:
        asked.refuse_given("--bench brings its own cells")
        refuse_given(ctx, "--bench brings its own runs", ("device", "replications", "records"))
        measured = [read_bench(path) for path in benches]
        profile = profile_for(measured, profile_name)
    else:
        profile = asked.profile(profile_name)
        cells = asked.simulated(profile)
        for cell in cells:
            check_predictable(cell, profile)
        bench, store = bench_document(cells, device, replications, out, records, as_json)
        measured = [bench_of(bench, Path() if records is None else records)]
    first = measured[0].cells[0].cell
    with output.progress("predicting", as_json) as update:
        document = {
            "command": "validate",
            "seed": first.seed,
            "replications": predictions,
            "interval": "95 % prediction interval for one run",
            "acceptance": first.acceptance_text,
            "slo": None,
            **validate(measured, profile, predictions, update),
        }
    if out is not None:
        output.write_text(out, json.dumps(output.finite(document), indent=1) + "\n")
    store.remove()
    if as_json:
        output.print_json(document)
    else:
        show(document)


def show(document: dict[str, Any]) -> None:
    """One row per cell: measured, predicted and the error, by metric."""
    from rich.table import Table

    from calibration.validate import COMPARED

    page = output.console()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("C", "architecture", "host", *COMPARED):
        table.add_column(heading, justify="left" if heading == "architecture" else "right")
    for row in document["cells"]:
        factors = row["host_factors"]
        factor = f"{sum(factors) / len(factors):.2f}" if factors else "n/a"
        table.add_row(
            str(row["concurrency"]),
            row["architecture"],
            factor,
            *(_comparison(row, name) for name in COMPARED),
        )
    page.print(table)
    page.print("Each metric: measured, predicted, error. host: slower than calibrated by.")
    for kind, metrics in document["summary"].items():
        for name, entry in metrics.items():
            page.print(
                f"{kind.replace('_', ' ')}, {name}: median error "
                f"{100 * entry['median_abs']:.1f} %, largest {100 * entry['max_abs']:.1f} % "
                f"of {entry['cells']} cells"
            )


def _comparison(row: dict[str, Any], name: str) -> str:
    measured, predicted, error = row["measured"][name], row[name], row["errors"][name]
    values = [output.number(side["value"] if side else None) for side in (measured, predicted)]
    return f"{values[0]}  {values[1]}  " + ("n/a" if error is None else f"{100 * error:+.1f} %")
