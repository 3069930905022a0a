"""`pdvsim reproduce`: predict a published pdverify table from its own rows at C <= 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pdvsim import output
from pdvsim.cell import check_bounds
from pdvsim.cli import load
from pdvsim.pdverify import MECHANISMS

REPLICATIONS = 20
RATIOS = ("PDV/PD tokens/s", "PDV/PD latency")
SIDES = ("published", "predicted")


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
@click.option("--replications", type=int, default=REPLICATIONS, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--report", type=click.Path(path_type=Path), default=None, help="Write HTML here.")
@output.json_option
def command(
    summary: Path,
    detailed: Path,
    profile_name: str,
    replications: int,
    seed: int,
    report: Path | None,
    as_json: bool,
) -> None:
    """Calibrate on the rows at C <= 2 of a published table, predict all of it, and compare."""
    from pdvsim.pdverify.published import read_published
    from pdvsim.pdverify.reproduce import reproduce
    from pdvsim.profile import load_profile
    from pdvsim.sweep import check_replications

    output.check_writable(report)
    check_replications(replications, least=2)
    check_bounds("seed", seed)
    cells = read_published(summary, detailed)
    profile = load_profile(profile_name)
    with output.progress("simulating", as_json) as update:
        found = reproduce(cells, profile.host_costs(), replications, seed, on_run=update)
    document = {
        "command": "reproduce",
        "interval": "central 95 % of simulated runs",
        "arguments": {"summary": str(summary), "detailed": str(detailed)},
        **found,
        "profile": profile.provenance,
    }
    if report is not None:
        load("report").write(document, report)
    if as_json:
        output.print_json(document)
    else:
        show(document, report)


def seconds(milliseconds: float | None) -> str:
    return "n/a" if milliseconds is None else f"{milliseconds / 1e3:.2f}"


def show(document: dict[str, Any], report: Path | None) -> None:
    """Print predicted against published, cell by cell."""
    from rich.table import Table

    page = output.console()
    cells = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    headings = ("engine", "C", "published\ntokens/s", "predicted\ntokens/s", "95 % interval\n")
    for heading in (*headings, "error\n", "published\nlatency s", "predicted\nlatency s", "done\n"):
        cells.add_column(heading, justify="left" if heading == "engine" else "right")
    for cell in document["cells"]:
        low, high = cell["predicted_tps_low"], cell["predicted_tps_high"]
        error = cell["predicted_tps"] / cell["published_tps"] - 1.0
        cells.add_row(
            cell["engine"],
            str(cell["concurrency"]),
            f"{cell['published_tps']:.2f}",
            f"{cell['predicted_tps']:.2f}",
            f"{low:.2f} to {high:.2f}{'' if cell['inside_interval'] else ' (outside)'}",
            f"{100 * error:+.1f} %",
            seconds(cell["published_latency_ms"]),
            seconds(cell["predicted_latency_ms"]),
            f"{cell['published_completed']} / {cell['predicted_completed']:.0f}",
        )
    page.print(cells)
    gains = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("C\n", *(f"{what}\n{whose}" for what in RATIOS for whose in SIDES)):
        gains.add_column(heading, justify="right")
    for gain in document["gains"]:
        gains.add_row(
            str(gain["concurrency"]),
            *(
                output.number(gain[name])
                for name in (
                    "published",
                    "predicted",
                    "published_latency_ratio",
                    "predicted_latency_ratio",
                )
            ),
        )
    page.print(gains)
    source = document["calibrated_from"]
    rounds = ", ".join(f"{name} {ms:.1f} ms" for name, ms in source["round_ms"].items())
    page.print(
        f"Median error of throughput {100 * document['median_abs_error_tps']:.2f} %; "
        f"{document['inside_interval']} of {len(document['cells'])} published values inside their "
        f"interval. Calibrated from {len(source['rows'])} rows at C <= 2: round {rounds}; prefill "
        f"{source['prefill_ms']:.1f} ms; run-to-run spread {100 * source['run_spread']:.1f} %."
    )
    origin = document["profile"]
    page.print(f"GIL and locks: measured on {origin['gpu']}, profile {origin['name']}.")
    if report is not None:
        page.print(f"Report: {report}")
