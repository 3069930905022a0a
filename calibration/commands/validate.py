"""`pdvsim validate`: bench and predict the same cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from pdvsim import output
from pdvsim.errors import InputError
from realengine.commands.bench import command as bench_command


@click.command(params=list(bench_command.params))
@click.option("--profile", "profile_name", default=None, help="A shipped name, or a file.")
@click.option(
    "--bench",
    "benches",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Measured before, by pdvsim bench -o; nothing is run then.",
)
@click.option("--predictions", type=int, default=8, show_default=True, help="Simulated runs.")
def command(
    profile_name: str | None,
    benches: tuple[Path, ...],
    predictions: int,
    out: Path | None,
    records: Path | None,
    as_json: bool,
    **arguments: Any,
) -> None:
    """Measure cells, predict them from a profile, and print the errors.

    The options that describe cells are those of `bench`."""
    from calibration.validate import validate
    from pdvsim.measured.benched import read_bench
    from pdvsim.profile import select_profile
    from pdvsim.store import Store
    from realengine.commands.bench import bench_document

    output.check_writable(out)
    output.make_folder(records)
    if not 1 <= predictions <= 1000:
        raise InputError(f"predictions is {predictions}; it must be between 1 and 1000")
    store = Store(None, {})
    if benches:
        measured = [read_bench(path) for path in benches]
    else:
        bench, store = bench_document(arguments, out, records, as_json)
        measured = [bench]
    about = measured[0]["arguments"]
    profile = select_profile(profile_name, about["pair"], about["executor"])
    with output.progress("predicting", as_json) as update:
        document = {
            "command": "validate",
            "seed": measured[0]["seed"],
            "replications": predictions,
            "interval": "95 % prediction interval for one run",
            "arguments": about,
            "acceptance": measured[0]["acceptance"],
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
