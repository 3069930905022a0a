"""The published benchmark's result files as a `Table` to audit."""

from __future__ import annotations

from pathlib import Path

from pdvsim.audit.fields import NotANumber, Number, number
from pdvsim.audit.table import Cell, Distribution, Served, Table
from pdvsim.cell import FIELDS
from pdvsim.errors import InputError
from pdvsim.models import Pair, shapes
from pdvsim.pdverify.protocol import DRAFT_TOKENS, PROMPT_TOKENS, RATE_PER_C, arrived
from pdvsim.pdverify.tables import RequestRow, SummaryRow, read_detailed, read_summary


def read_pdverify(path: Path, detail: Path | None, models: Pair | None = None) -> Table:
    """The result files, with what the protocol tells of them: the rate, and who arrived.

    Without `models`, the file name says which pair is claimed.

    Raises:
        InputError: a file is absent or lacks a column.
    """
    rows = read_summary(path)
    requests = read_detailed(detail) if detail is not None else {}
    models = models or _pair_of_file(path)
    cells = [
        _cell(path, i, row, tuple(requests.get((row.engine, row.concurrency), ())), models)
        for i, row in enumerate(rows)
    ]
    return Table(str(path), "pdverify", tuple(cells), same_requests=True, demand_memory=True)


def _cell(
    path: Path, index: int, row: SummaryRow, requests: tuple[RequestRow, ...], models: Pair | None
) -> Cell:
    throughput = _printed(row.throughput, "Throughput (TPS)", path, index)
    tokens = sum(r.tokens for r in requests) / len(requests) if requests else None
    return Cell(
        system=row.engine,
        load=row.concurrency,
        pair=models,
        concurrency=row.concurrency,
        rate_per_s=RATE_PER_C * row.concurrency,
        offered=_offered(row.concurrency, path, index),
        output_throughput=throughput.value,
        resolution=throughput.step,
        latency_s=row.latency_s,
        acceptance_rate=_printed(row.acceptance_rate, "Acceptance Rate", path, index).value,
        draft_tokens=DRAFT_TOKENS,
        tokens_per_request=PROMPT_TOKENS + tokens if tokens else None,
        memory_mib=row.memory_mib,
        utilization=row.utilisation,
        distributions=(
            Distribution(
                "latency of a token",
                percentiles=tuple(zip((50.0, 99.0), row.token_latency_s, strict=True)),
            ),
        ),
        requests=tuple(
            Served(
                id=request.id,
                latency_s=request.latency_s,
                timings=(request.prefill_s, request.decode_s),
                output_tokens=request.tokens,
                drafted=request.drafted,
                accepted=request.tokens,
            )
            for request in requests
        ),
    )


def _offered(load: int, path: Path, index: int) -> int:
    """Raises InputError, naming the row, for a C that the benchmark cannot have."""
    low, high = (FIELDS["concurrency"].metadata[end] for end in ("low", "high"))
    if not low <= load <= high:
        raise InputError(
            f"{path}: row {index + 2}, column Concurrency: {load} is not between {low} and {high}"
        )
    return arrived(load)


def _printed(text: str, column: str, path: Path, index: int) -> Number:
    """The number that a column of text holds, with the step to which it was printed.

    Raises:
        InputError: it holds none.
    """
    try:
        found = number(text)
    except NotANumber:
        found = None
    if not isinstance(found, Number):
        raise InputError(f"{path}: row {index + 2}, column {column}: {text!r} is not a number")
    return found


def _pair_of_file(path: Path) -> Pair | None:
    """The pair that a file name like `TinyLlama-TinyLlama_summary.csv` claims, if it is known."""
    claim = path.stem.removesuffix("_summary").lower()
    for draft in shapes().values():
        for verifier in shapes().values():
            short = (draft.name.removesuffix("-1.1b"), verifier.name.removesuffix("-1.1b"))
            if claim == "-".join(short):
                return Pair(draft, verifier)
    return None
