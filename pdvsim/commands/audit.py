"""`pdvsim audit`: any benchmark table against arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from pdvsim import output
from pdvsim.destination import Destination, destination_options

_FORMATS = ("auto", "pdverify", "vllm", "sglang", "aiperf", "guidellm", "llmperf", "csv", "pdvsim")


@click.command("audit")
@click.argument("table", type=click.Path(path_type=Path))
@click.argument("detail", type=click.Path(path_type=Path), required=False)
@click.option(
    "--format",
    "format_",
    type=click.Choice(_FORMATS),
    default="auto",
    show_default=True,
    help="Who wrote TABLE; auto looks at it.",
)
@click.option("--columns", metavar="MAP", help="Of a csv: NAME=COLUMN,NAME=COLUMN,...")
@click.option("--pair", "pair_name", metavar="DRAFT:VERIFIER", help="Models that were measured.")
@click.option(
    "--gpu-memory-mib",
    type=click.FloatRange(min=0, min_open=True),
    help="Memory of all GPUs together; none can hold more.",
)
@click.option(
    "--bandwidth-tb-s",
    type=click.FloatRange(min=0, min_open=True),
    help="Memory bandwidth of all GPUs together; default: the fastest single GPU there is.",
)
@destination_options
def command(
    table: Path,
    detail: Path | None,
    format_: str,
    columns: str | None,
    pair_name: str | None,
    gpu_memory_mib: float | None,
    bandwidth_tb_s: float | None,
    to: Destination,
) -> None:
    """Hold TABLE (and its requests, DETAIL) against arithmetic; - reads standard input.

    Exit code 1 if a claim of the table fails.
    """
    from pdvsim.audit import Limits, audit, read
    from pdvsim.audit.document import document
    from pdvsim.documents.head import command_line
    from pdvsim.models import pair
    from pdvsim.tables import parse_columns

    read_table = read(
        table,
        detail,
        format_,
        parse_columns(columns) if columns else None,
        pair(pair_name) if pair_name else None,
    )
    limits = Limits(gpu_memory_mib)
    if bandwidth_tb_s is not None:
        limits = replace(limits, bytes_per_s=bandwidth_tb_s * 1e12)
    report = audit(read_table, limits)
    found = document(report, command_line())
    to.save(found)
    if to.as_json:
        to.show(found)
    else:
        click.echo(f"{found.verdict.badge}.\n{report.to_text(output.console().width)}")
    click.get_current_context().exit(1 if report.failed else 0)
