"""`pdvsim bench`: the cells of `predict`, on the real engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pdvsim import output
from pdvsim.asked import Asked
from pdvsim.cell import REAL
from pdvsim.destination import Destination, destination_options
from pdvsim.errors import InputError
from pdvsim.models import Pair, pair
from pdvsim.options import ENGINE, SLO, architecture_option, cell_options

if TYPE_CHECKING:
    from pdvsim.cell import Cell
    from pdvsim.documents.benchmark import Benchmark
    from pdvsim.store import Store
    from realengine.tokenizer import Tokenized

MOST_S = 86_400.0  # of arrivals in a real run

RUN_OPTIONS = (
    click.option("--device", default="cuda", show_default=True, help="cuda, cuda:N or cpu."),
    click.option(
        "--replications", type=int, default=1, show_default=True, help="Runs of each cell."
    ),
    click.option(
        "--records",
        type=click.Path(path_type=Path),
        default=None,
        help="Folder for each run's requests and stages, as Parquet files.",
    ),
)


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say how cells are run for real."""
    for option in reversed(RUN_OPTIONS):
        command = option(command)
    return command


@click.command()
@cell_options(architecture_option("all"), *SLO, *ENGINE)
@run_options
@destination_options
def command(
    asked: Asked, device: str, replications: int, records: Path | None, to: Destination
) -> None:
    """Run the cells of predict on the real engine.

    Finished runs are kept beside the output file; call again to go on after a kill."""
    output.make_folder(records)
    cells = asked.cells(pair(asked.pair), asked.executor)
    document, store = measured(cells, asked.pair, device, replications, records, to)
    to.save(document)
    store.remove()
    to.show(document)


def measured(
    cells: Sequence[Cell],
    reference: str,
    device: str,
    replications: int,
    records: Path | None,
    to: Destination,
) -> tuple[Benchmark, Store]:
    """Run `cells`, all on one pair and the executor of the first.

    Args:
        reference: says where the pair is, whose name the cells have.

    Returns:
        The document, and the finished runs on disk: to be removed once the result is written.
    """
    from pdvsim.core import EXECUTORS
    from pdvsim.documents.head import command_line
    from pdvsim.store import Store, partial_path
    from pdvsim.sweep import check_replications
    from realengine.bench import bench, warm_up
    from realengine.build import Demand, open_engine
    from realengine.device import physical_index, torch_device
    from realengine.document import benchmark
    from realengine.provenance import identity, provenance

    check_replications(replications, most=1000)
    cells, given = counted(cells, reference)
    first, requests = cells[0], max(cell.concurrency for cell in cells)
    longest = check_runnable(cells, pair(reference), replications, given)
    lengths = sorted({cell.draft_tokens for cell in cells})
    demand = Demand(
        lengths[-1],
        requests,
        longest + 2 * lengths[-1],
        seed=first.seed,
        temperature=first.temperature,
        draft_lengths=tuple(lengths[:-1]),
    )
    about = provenance(torch_device(device), first.seed, first.acceptance_text)
    # What would make finished runs wrong for this call; each run's key knows its whole cell.
    same = {
        "device": device,
        "engine": asdict(demand),
        "records": None if records is None else str(records.resolve()),
        **identity(about, reference),
    }
    store = Store(partial_path(to.out), same)
    try:  # opened behind the store: another run with this output is refused before minutes of it
        opened = open_engine(reference, EXECUTORS[first.executor], device, demand, given)
        if first.acceptance == REAL:
            about["acceptance"] += f", of {opened.prompts.kind}"
        warm_up(first, opened.engine)
        with to.progress("running") as update:
            results = bench(
                cells,
                replications,
                opened.engine,
                store,
                records,
                physical_index(opened.device),
                update,
            )
    except BaseException:
        store.abandon()
        raise
    return benchmark(results, about, opened.pair, command_line(), opened.kv_cache), store


def counted(cells: Sequence[Cell], reference: str) -> tuple[Sequence[Cell], Tokenized | None]:
    """`cells` that know how many tokens the prompts of their file have, and these prompts.

    Raises:
        InputError: prompts that the tokenizer of the pair's verifier cannot read, or none.
    """
    file = cells[0].prompts
    if file is None:
        return cells, None
    from pdvsim.cell import with_prompts
    from realengine.checkpoint import runnable_draft
    from realengine.tokenizer import tokenized

    given = tokenized(file, runnable_draft(reference)[1])
    return [with_prompts(cell, given.file) for cell in cells], given


def check_runnable(
    cells: Sequence[Cell], models: Pair, replications: int, given: Tokenized | None = None
) -> int:
    """Refuse what no engine can run, before one is opened.

    Args:
        given: prompts of the requests.

    Returns:
        Tokens of the longest request, prompt and output.

    Raises:
        InputError: requests that do not fit the models.
    """
    from pdvsim.architectures import architecture
    from pdvsim.extrapolation import too_long
    from pdvsim.machine import plan_of

    longest = 0
    for cell in cells:
        drafts = architecture(cell.architecture).speculative
        # Lengths without a spread are the same in every run.
        for index in range(1 if cell.same_lengths else replications):
            plan = plan_of(cell, index)
            if plan.arrival_s is not None and plan.arrival_s[-1] > MOST_S:
                raise InputError(
                    f"requests arrive for {plan.arrival_s[-1]:.3g} s, and a run lasts a day at "
                    "most; take fewer --requests, a higher --rate, or --trace-speed"
                )
            requests = plan.requests()
            needed = models.decoders if drafts else (models.verifier,)
            if given is not None:
                given.check_fits(requests, needed)
            for reason in too_long(requests, needed):
                raise InputError(reason)
            longest = max(longest, *(one.prompt_tokens + one.output_tokens for one in requests))
    return longest
