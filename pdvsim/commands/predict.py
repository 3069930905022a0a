"""`pdvsim predict`: every architecture at a load, from a profile, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pdvsim import cli, output
from pdvsim.errors import InputError
from pdvsim.options import SLO, Asked, architecture_option, cell_options, profile_option

if TYPE_CHECKING:
    from rich.console import Console

    from pdvsim.cell import Cell

# Five architectures at 256 requests, eager: about 3 s a run, 40 s on two cores.
REPLICATIONS = 5


@click.command()
@cell_options(architecture_option("all"), *SLO)
@profile_option
@click.option("--replications", type=int, default=REPLICATIONS, show_default=True)
@click.option("--formulas", is_flag=True, help="Closed forms beside the simulation, and why off.")
@click.option("--report", type=click.Path(path_type=Path), default=None, help="Write HTML here.")
@output.json_option
def command(
    asked: Asked,
    profile_name: str | None,
    replications: int,
    formulas: bool,
    report: Path | None,
    as_json: bool,
) -> None:
    """Predict every architecture at a load; metrics carry 95 % intervals for one run."""
    from pdvsim.crossover.ties import ties
    from pdvsim.machine import plan_of
    from pdvsim.sweep import sweep

    output.check_writable(report)
    profile = asked.profile(profile_name)
    cells = asked.simulated(profile)
    first = cells[0]
    if formulas and first.injected is not None and len(set(first.injected.per_position)) > 1:
        raise InputError("--formulas knows one acceptance for all positions; give one number")
    with output.progress("simulating", as_json) as update:
        results = sweep(cells, profile, replications, on_run=update)
    document = {
        "command": "predict",
        "seed": first.seed,
        "replications": replications,
        "interval": "95 % prediction interval for one run",
        "acceptance": first.acceptance_text,
        "slo": None if first.slo is None else asdict(first.slo),
        "prefilled_one_by_one": one_by_one(cells),
        "notes": list(plan_of(first, 0).notes) if first.trace is not None else [],
        "cells": [result.to_dict() for result in results],
        "too_close_to_call": [
            {"first": tie.first, "second": tie.second, "ratio": tie.ratio.to_dict()}
            for load in dict.fromkeys(cell.concurrency for cell in cells)
            for tie in ties([result for result in results if result.cell.concurrency == load])
        ],
        "profile": profile.provenance,
    }
    if formulas:
        from pdvsim.theory.closed_forms import closed_forms

        document["formulas"] = [line.to_dict() for line in closed_forms(results, profile)]
    if report is not None:
        cli.load("report").write(document, report)
    if as_json:
        output.print_json(document)
    else:
        show(document, report)


def one_by_one(cells: Sequence[Cell]) -> list[str]:
    """The architectures that prefill prompts in stages of one."""
    from pdvsim.cell import labels

    named = zip(cells, labels(cells), strict=True)
    alone = (label for cell, label in named if cell.config().parameters.get("prefill_batch") == 1)
    return list(dict.fromkeys(alone))


COLUMNS = (
    # heading, metric, scale
    ("output\ntokens/s", "output_throughput", 1.0),
    ("requests/s\n", "request_throughput", 1.0),
    ("pdverify\ntokens/s", "pdverify_tps", 1.0),
    ("pdverify\nlatency s", "pdverify_latency_ms", 1e-3),
    ("goodput\nrequests/s", "request_goodput", 1.0),
    ("TTFT p50\ns", "median_ttft_ms", 1e-3),
    ("TPOT p50\nms", "median_tpot_ms", 1.0),
    ("E2E p50\ns", "median_e2el_ms", 1e-3),
    ("E2E p99\ns", "p99_e2el_ms", 1e-3),
    ("GPU busy\n%", "gpu_busy", 100.0),
)

REPLACED = ("output_throughput", "request_throughput")  # by those of pdverify, where it is asked


def show(document: dict[str, Any], report: Path | None) -> None:
    """Print the table and what stands behind it."""
    from rich.table import Table

    cells = document["cells"]
    page = output.console()
    first = cells[0]
    loads = list(dict.fromkeys(cell["concurrency"] for cell in cells))
    page.print(
        f"[bold]{first['pair']}[/bold], {first['executor']} executor, {first['protocol']}, "
        f"C = {', '.join(map(str, loads))}"
    )
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    if len(loads) > 1:
        table.add_column("C\n", justify="right")
    table.add_column("architecture\n", no_wrap=True)
    published = first["protocol"] == "pdverify"
    columns = [
        column
        for column in COLUMNS
        if any(cell.get(column[1]) for cell in cells) and not (published and column[1] in REPLACED)
    ]
    for heading, *_ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for cell in cells:
        values = [output.interval(cell.get(name), scale) for _, name, scale in columns]
        load = [f"{cell['concurrency']}\n"] if len(loads) > 1 else []
        table.add_row(*load, f"[bold]{cell['architecture']}[/bold]\n", *values)
    page.print(table)
    page.print(
        f"Below each value: {document['interval']}, from {document['replications']} replications "
        f"(seed {document['seed']}). Acceptance: {document['acceptance']}."
    )
    if document["prefilled_one_by_one"]:
        names = ", ".join(document["prefilled_one_by_one"])
        page.print(f"Prompts are prefilled one at a time in {names}: see --prefill-batch.")
    origin = document["profile"]
    page.print(
        f"Calibrated: {origin['name']}, on {origin['gpu']} (driver {origin['driver']}, "
        f"torch {origin['torch']}), {origin['created']}: {origin['measurements']}"
    )
    for line in (*document["notes"], *notes(cells)):
        page.print(line)
    for tie in document["too_close_to_call"]:
        first, second = tie["first"], tie["second"]
        page.print(
            f"{first} and {second} are too close to call at this load: "
            f"pdvsim crossover {first} {second} finds where they cross."
        )
    if "formulas" in document:
        show_formulas(document["formulas"], page)
    if report is not None:
        page.print(f"Report: {report}")


def show_formulas(lines: Sequence[dict[str, Any]], page: Console) -> None:
    """Each closed form beside the simulated value, and a sentence on what lies between."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("formula", "of"):
        table.add_column(heading, no_wrap=True)
    for heading in ("formula", "simulated", "off"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("because")
    for line in lines:
        simulated, error = line["simulated"], line["error"]
        table.add_row(
            f"{line['formula']}\n[dim]{line['quantity']}[/dim]",
            line["architecture"],
            output.number(line["value"]),
            output.number(simulated and simulated["value"]),
            "n/a" if error is None else f"{error:+.0%}",
            line["why"],
        )
    page.print(table)


def notes(cells: Sequence[dict[str, Any]]) -> list[str]:
    """What is extrapolated, censored or unknown, one sentence each."""
    lines = [
        f"Extrapolated, {cell['architecture']}: {'; '.join(cell['extrapolated'])}."
        for cell in cells
        if cell["extrapolated"]
    ]
    if not lines:
        lines.append("Extrapolated: nothing; every stage stayed inside its measured range.")
    in_flight = [
        f"{cell['architecture']} {output.number(cell['censored']['value'])}"
        for cell in cells
        if cell["censored"] and cell["censored"]["value"] >= 0.5
    ]
    if in_flight:
        lines.append(
            f"Censored: requests in flight at the end ({', '.join(in_flight)}); TTFT and E2E are "
            f"Kaplan-Meier estimates."
        )
    shown = {name for _, name, _ in COLUMNS} - {"request_goodput"}
    for cell in cells:
        unknown = [name for name in shown if cell.get(name, {}) is None]
        why = {cell["reasons"][name] for name in unknown}
        lines.extend(f"Incomplete, {cell['architecture']}: {reason}." for reason in sorted(why))
    return lines
