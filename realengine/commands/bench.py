"""`pdvsim bench`: the cells of `predict`, on the real engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pdvsim import output
from pdvsim.commands.predict import COLUMNS, names
from pdvsim.core import EXECUTORS
from pdvsim.errors import InputError
from pdvsim.workload import PROTOCOLS

if TYPE_CHECKING:
    from pdvsim.store import Store
    from pdvsim.sweep import Cell


def probability(text: str) -> float | None:
    """Parse an injected acceptance; None for `real`.

    Raises:
        InputError: neither `real` nor a number.
    """
    if text == "real":
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(f"acceptance is {text!r}; write a number from 0 to 1, or real") from None


def numbers(text: str) -> list[int]:
    """Parse `1,4,8`.

    Raises:
        InputError: not a comma-separated list of whole numbers.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"concurrency is {text!r}; write whole numbers separated by commas, such as 1,4,8"
        ) from None


@click.command()
@click.option("--concurrency", default="1,4,8", show_default=True, help="C, or a list: 1,4,8.")
@click.option("--architecture", default="all", show_default=True, help="all, or NAME,NAME,...")
@click.option("--pair", default="tiny:tiny", show_default=True, help="DRAFT:VERIFIER.")
@click.option("--executor", type=click.Choice(list(EXECUTORS)), default="eager", show_default=True)
@click.option("--device", default="cuda", show_default=True, help="cuda, cuda:N or cpu.")
@click.option("--protocol", type=click.Choice(PROTOCOLS), default="closed-loop", show_default=True)
@click.option("--rate", type=float, default=None, help="Requests/s of the poisson protocol.")
@click.option("--trace", type=click.Path(path_type=Path), default=None, help="CSV to replay.")
@click.option("--prompt-tokens", type=int, default=32, show_default=True)
@click.option("--output-tokens", type=int, default=16, show_default=True)
@click.option("--acceptance", default="0.7", show_default=True, help="Per position, or 'real'.")
@click.option("--draft-tokens", type=int, default=4, show_default=True)
@click.option("--prefill-batch", type=int, default=1, show_default=True, help="Prompts at a time.")
@click.option(
    "--cycles", type=int, default=2, show_default=True, help="Of a closed loop: measured, x C."
)
@click.option(
    "--requests",
    type=int,
    default=None,
    help="Measured, instead of --cycles; of a trace, the first.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--replications", type=int, default=1, show_default=True)
@click.option("--records", type=click.Path(path_type=Path), default=None, help="Raw tables here.")
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), default=None)
@output.json_option
def command(out: Path | None, records: Path | None, as_json: bool, **arguments: Any) -> None:
    """Run cells on the real engine.

    Finished runs are kept beside the output file; call again to go on after a kill."""
    output.check_writable(out)
    output.make_folder(records)
    document, store = bench_document(_plain(arguments), out, records, as_json)
    if out is not None:
        output.write_text(out, json.dumps(output.finite(document), indent=1) + "\n")
    store.remove()
    if as_json:
        output.print_json(document)
    else:
        show(document)


def bench_document(
    arguments: dict[str, Any], out: Path | None, records: Path | None, as_json: bool
) -> tuple[dict[str, Any], Store]:
    """Run the cells that `arguments` (the command's options) describe.

    Returns:
        The document, and the finished runs on disk: to be removed once the result is written.
    """
    from pdvsim.store import Store, partial_path
    from realengine.bench import bench, warm_up
    from realengine.build import Demand, open_engine
    from realengine.device import physical_index
    from realengine.provenance import identity, provenance

    if not 1 <= arguments["replications"] <= 1000:
        raise InputError(
            f"replications is {arguments['replications']}; it must be between 1 and 1000"
        )
    cells = cells_of(arguments)
    most = max(cells, key=lambda cell: cell.load.concurrency)
    draft_tokens, seed = most.config.draft_tokens, arguments["seed"]
    demand = Demand(
        draft_tokens, most.load.concurrency, most.load.longest + 2 * draft_tokens, seed=seed
    )
    opened = open_engine(arguments["pair"], most.config.executor, arguments["device"], demand)
    injected = probability(arguments["acceptance"])
    kind = (
        f"real tokens, of {opened.prompts.kind}"
        if injected is None
        else f"injected, {injected:g} at each draft position"
    )
    about = provenance(opened.device, seed, kind)
    warm_up(cells[0], opened.engine, seed)
    # What would make finished runs wrong for this call; C and architecture are in each key.
    same = {k: v for k, v in arguments.items() if k not in ("concurrency", "architecture")}
    about_here = identity(about, arguments["pair"], arguments["trace"])
    store = Store(partial_path(out), {**same, **about_here})
    with output.progress("running", as_json) as update:
        results = bench(
            cells,
            arguments["replications"],
            seed,
            opened.engine,
            store,
            records,
            physical_index(opened.device),
            update,
        )
    document = {
        "command": "bench",
        "seed": seed,
        "replications": arguments["replications"],
        "interval": "95 % prediction interval for one run; none from a single replication",
        "arguments": arguments,
        "acceptance": kind,
        "slo": None,
        "cells": results,
        "profile": about,
    }
    return document, store


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    """The options as JSON can hold them."""
    return {name: str(v) if isinstance(v, Path) else v for name, v in arguments.items()}


def cells_of(arguments: dict[str, Any]) -> list[Cell]:
    """The cells that the command's options describe."""
    from pdvsim.acceptance import Acceptance
    from pdvsim.architectures import Config, architecture
    from pdvsim.sweep import Cell, Load
    from pdvsim.workload import Lengths

    executor, draft_tokens = EXECUTORS[arguments["executor"]], arguments["draft_tokens"]
    injected = probability(arguments["acceptance"])
    trace = arguments["trace"]
    return [
        Cell(
            Config(
                name,
                executor,
                batch_cap=concurrency,
                draft_tokens=draft_tokens,
                parameters=architecture(name).own({"prefill_batch": arguments["prefill_batch"]}),
            ),
            arguments["pair"],
            Load(
                arguments["protocol"],
                concurrency,
                Lengths(arguments["prompt_tokens"], arguments["output_tokens"]),
                None if injected is None else Acceptance.constant(injected, draft_tokens),
                rate_per_s=arguments["rate"],
                requests=arguments["requests"],
                trace=None if trace is None else Path(trace),
                cycles=arguments["cycles"],
            ),
        )
        for concurrency in numbers(arguments["concurrency"])
        for name in names(arguments["architecture"])
    ]


def show(document: dict[str, Any]) -> None:
    """One row per cell, and the acceptance that was measured."""
    from rich.table import Table

    page, about = output.console(), document["profile"]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("C\n", justify="right")
    table.add_column("architecture\n")
    columns = [c for c in COLUMNS if any(cell.get(c[1]) for cell in document["cells"])]
    for heading, *_ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for cell in document["cells"]:
        values = [output.interval(cell.get(name), scale) for _, name, scale in columns]
        table.add_row(f"{cell['concurrency']}\n", f"{cell['architecture']}\n", *values)
    page.print(table)
    page.print(
        f"Measured on {about['gpu']} (driver {about['driver']}, torch {about['torch']}), "
        f"{about['created']}. Acceptance: {document['acceptance']}."
    )
    for cell in document["cells"]:
        rates = cell["spec_decode_per_position_acceptance_rates"]
        if rates:
            kept = ", ".join(f"{rate['value']:.2f}" for rate in rates)
            page.print(
                f"Kept by draft position, {cell['architecture']} at C = {cell['concurrency']}: "
                f"{kept}; mean accepted length {output.number(_length(cell))}."
            )


def _length(cell: dict[str, Any]) -> float | None:
    found = cell.get("spec_decode_acceptance_length")
    return found["value"] if found else None
