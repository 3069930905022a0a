"""`pdvsim predict`: every architecture at a load, from a profile, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pdvsim import cli, output
from pdvsim.acceptance import Acceptance
from pdvsim.architectures import ARCHITECTURES, Config, architecture, shared
from pdvsim.errors import InputError
from pdvsim.options import cell_options
from pdvsim.workload import Lengths

if TYPE_CHECKING:
    from rich.console import Console

    from pdvsim.metrics import Slo
    from pdvsim.profile import Profile
    from pdvsim.sweep import Cell, Load

# Five architectures at 256 requests, eager: about 3 s a run, 40 s on two cores.
REPLICATIONS = 5


def names(architectures: str) -> list[str]:
    """Parse `all` or `NAME,NAME,...`.

    Raises:
        InputError: an unknown name, or none.
    """
    if architectures == "all":
        return list(ARCHITECTURES)
    chosen = list(dict.fromkeys(name.strip() for name in architectures.split(",")))
    return [found.reference or found.name for found in map(architecture, chosen)]


def cells_of(
    chosen: Sequence[str],
    profile: Profile,
    load: Load,
    admission_factor: float | None,
    prefill_batch: int | None,
) -> list[Cell]:
    """One cell per architecture; C is the batch cap of each, and parameters go to those that
    have them.

    Raises:
        InputError: a parameter that none has.
    """
    from pdvsim.sweep import Cell

    assert load.acceptance is not None  # a simulation has no tokens to compare
    given = {"admission_factor": admission_factor, "prefill_batch": prefill_batch}
    parameters = shared([architecture(name) for name in chosen], given)
    return [
        Cell(
            Config(
                name,
                executor=profile.executor,
                batch_cap=load.concurrency,
                draft_tokens=load.acceptance.draft_tokens,
                parameters=own,
            ),
            profile.pair.name,
            load,
            profile,
        )
        for name, own in zip(chosen, parameters, strict=True)
    ]


@click.command()
@click.option("--concurrency", type=int, required=True, help="C: requests in flight, batch cap.")
@click.option("--architecture", default="all", show_default=True, help="all, or NAME,NAME,...")
@cell_options
@click.option("--trace", type=click.Path(path_type=Path), default=None, help="CSV to replay.")
@click.option("--requests", type=int, default=None, help="Of poisson; of a trace, the first.")
@click.option("--replications", type=int, default=REPLICATIONS, show_default=True)
@click.option("--slo-ttft-ms", type=float, default=None, help="Counts as goodput below this.")
@click.option("--slo-tpot-ms", type=float, default=None, help="Counts as goodput below this.")
@click.option("--formulas", is_flag=True, help="Closed forms beside the simulation, and why off.")
@click.option("--report", type=click.Path(path_type=Path), default=None, help="Write HTML here.")
@output.json_option
@click.pass_context
def command(
    ctx: click.Context,
    concurrency: int,
    architecture: str,
    pair: str | None,
    executor: str | None,
    profile_name: str | None,
    protocol: str,
    rate: float | None,
    trace: Path | None,
    requests: int | None,
    prompt_tokens: int,
    output_tokens: int,
    acceptance: float,
    draft_tokens: int,
    admission_factor: float | None,
    prefill_batch: int | None,
    seed: int,
    replications: int,
    slo_ttft_ms: float | None,
    slo_tpot_ms: float | None,
    formulas: bool,
    report: Path | None,
    as_json: bool,
) -> None:
    """Predict every architecture at one load; metrics carry 95 % intervals for one run."""
    from pdvsim.crossover.ties import ties
    from pdvsim.metrics import Slo
    from pdvsim.profile import select_profile
    from pdvsim.sweep import Load, sweep
    from pdvsim.traces import read_trace

    output.check_writable(report)
    if not 1 <= draft_tokens <= 16:
        raise InputError(f"draft_tokens is {draft_tokens}; it must be between 1 and 16")
    asked = slo_ttft_ms is not None or slo_tpot_ms is not None
    slo = Slo(slo_ttft_ms, slo_tpot_ms) if asked else None
    profile = select_profile(profile_name, pair, executor)
    load = Load(
        protocol,
        concurrency,
        Lengths(prompt_tokens, output_tokens),
        Acceptance.constant(acceptance, draft_tokens),
        rate_per_s=rate,
        requests=requests,
        trace=trace,
    )
    cells = cells_of(names(architecture), profile, load, admission_factor, prefill_batch)
    with output.progress("simulating", as_json) as update:
        results = sweep(cells, replications, seed, slo, on_run=update)
    document = {
        "command": "predict",
        "seed": seed,
        "replications": replications,
        "interval": "95 % prediction interval for one run",
        "arguments": {
            name: _plain(value)
            for name, value in ctx.params.items()
            if name not in ("as_json", "report")
        },
        "acceptance": f"injected, {acceptance:g} at each of {draft_tokens} draft positions",
        "slo": _slo(slo),
        "prefill_batch": 1 if prefill_batch is None else prefill_batch,
        "notes": list(read_trace(trace, limit=requests).notes) if trace else [],
        "cells": [result.to_dict() for result in results],
        "too_close_to_call": [
            {"first": tie.first, "second": tie.second, "ratio": tie.ratio.to_dict()}
            for tie in ties(results)
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


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _slo(slo: Slo | None) -> dict[str, float | None] | None:
    return None if slo is None else {"ttft_ms": slo.ttft_ms, "tpot_ms": slo.tpot_ms}


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
    page.print(
        f"[bold]{first['pair']}[/bold], {first['executor']} executor, {first['protocol']}, "
        f"C = {first['concurrency']}"
    )
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
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
        table.add_row(f"[bold]{cell['architecture']}[/bold]\n", *values)
    page.print(table)
    page.print(
        f"Below each value: {document['interval']}, from {document['replications']} replications "
        f"(seed {document['seed']}). Acceptance: {document['acceptance']}."
    )
    if document["prefill_batch"] == 1:
        page.print("Prompts are prefilled one at a time, as in the published systems.")
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
