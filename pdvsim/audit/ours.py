"""Our own results: documents of `pdvsim bench`, rows of metrics, and the Parquet files of runs.

Their throughput counts tokens when they are produced, and their latency treats requests in flight
as censored. What ran is read from the cell that a document carries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import polars as pl

from pdvsim import record_files
from pdvsim.architectures import ARCHITECTURES
from pdvsim.audit.foreign.items import Item
from pdvsim.audit.rows import NAMES, to_cell
from pdvsim.audit.table import Cell, Served, Table
from pdvsim.cell import Cell as Specification
from pdvsim.core import EXECUTORS, Drafter
from pdvsim.documents.benchmark import Benchmark, BenchRow
from pdvsim.documents.reading import parse
from pdvsim.errors import InputError
from pdvsim.models import pair as pair_of
from pdvsim.parquet_file import read_metadata, read_table

MIB = 2**20


def read_objects(path: Path, items: Sequence[Item]) -> Table:
    """Documents of `pdvsim bench`, or rows of metrics.

    Raises:
        InputError: a document or row is damaged, or there is none.
    """
    cells = tuple(cell for item in items for cell in _cells(item))
    if not cells:
        raise InputError(
            f"{path}: holds no measured cells; give what pdvsim bench -o wrote, or rows of metrics"
        )
    return _table(path, cells)


def _table(path: Path, cells: tuple[Cell, ...]) -> Table:
    return Table(
        str(path),
        "pdvsim",
        cells,
        counts_unfinished=True,
        windowed=True,
        demand_memory=False,  # the cache is one pool, taken before the run
    )


def _cells(item: Item) -> Iterator[Cell]:
    kind = item.content.get("kind", item.content.get("command"))
    if kind is None:
        for row in _rows(item):
            yield to_cell(_canonical(row), item.path)
        return
    if kind != "bench":
        return  # a prediction makes no claim to audit
    document = parse(item.content, str(item.path))
    assert isinstance(document, Benchmark)
    for measured in document.cells:
        cell = _measured(measured, item.path)
        yield cell if document.models is None else replace(cell, pair=document.models)


def _rows(item: Item) -> list[Mapping[str, Any]]:
    """The rows of metrics that an object is, or has."""
    if "cells" not in item.content:
        return [item.content]
    found = item.content["cells"]
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise InputError(f"{item.path}: cells must be a list of objects")
    return found


def _measured(row: BenchRow, path: Path) -> Cell:
    """A measured cell of a document, under the names of the audit."""
    values = {name: found.value for name, found in row.metrics.items() if found and name in NAMES}
    values.pop("completed", None)
    if row.length.runs > 1:
        values.pop("duration_s", None)  # a mean of rates is no rate of sums
    busy, completed = row.metric("gpu_busy"), row.length.requests
    memory = max((run.telemetry.memory_bytes_max or 0.0 for run in row.runs), default=0.0)
    cell = replace(
        to_cell(values, path),
        system=row.label,
        load=float(row.concurrency),
        completed=None if completed is None else round(completed * row.length.runs),
        utilization=None if busy is None else busy.value,
        memory_mib=memory / MIB or None,
    )
    return cell if row.cell is None else _specified(cell, row.cell)


def _specified(cell: Cell, specification: Specification) -> Cell:
    """With what the specification of what ran says."""
    closed = specification.protocol == "closed-loop"
    try:
        pair = pair_of(specification.pair)
    except InputError:  # a checkpoint that is not on this machine
        pair = None
    drafts: float | None = None
    known = ARCHITECTURES.get(specification.architecture)
    if known is not None:  # code that a document names is not run to audit it
        drafting = known.speculative and specification.drafter != Drafter.NONE
        drafts = specification.draft_tokens if drafting else 0
    return replace(
        cell,
        pair=pair,
        concurrency=float(specification.concurrency) if closed else None,
        rate_per_s=specification.rate_per_s,
        draft_tokens=drafts,
        bonus_token=EXECUTORS[specification.executor].bonus_token,
        tokens_per_request=(
            float(specification.prompt_tokens + specification.output_tokens)
            if specification.trace is None
            else None
        ),
    )


def _canonical(row: Mapping[str, Any]) -> dict[str, Any]:
    """Our row under the names of `Row`; a metric with an interval gives its value.

    Only a closed loop keeps `concurrency` in flight; elsewhere it is a label of the load.
    """
    flat: dict[str, Any] = {
        key: v.get("value") if isinstance(v, Mapping) else v for key, v in row.items()
    }
    values: dict[str, Any] = {name: flat[name] for name in NAMES if flat.get(name) is not None}
    if flat.get("architecture") is not None:
        values.setdefault("system", flat["architecture"])
    if flat.get("protocol", "closed-loop") != "closed-loop" and "concurrency" in values:
        values.setdefault("load", values.pop("concurrency"))
    replications = flat.get("replications")
    pooled = replications if isinstance(replications, int) and replications > 1 else 1
    if pooled > 1:
        # Means over runs: completions are pooled, and a mean of rates is no rate of sums.
        values.pop("duration_s", None)
    for count in ("completed", "failed", "offered", "output_tokens"):
        value = values.get(count)
        if isinstance(value, int | float) and isfinite(value):
            values[count] = round(value * (pooled if count == "completed" else 1))
    return values


def read_parquet(path: Path) -> Table:
    """Rows of metrics, or one run: either file of its record, or its requests alone.

    Raises:
        InputError: the file is damaged, holds none of these, or a record that no run leaves.
    """
    stem = _record_of(path)
    if stem is not None:
        return Table(str(path), "pdvsim", (_recorded(stem),), counts_unfinished=True)
    frame = read_table(path, "a table that pdvsim wrote")
    if "arrival_s" in frame.columns:
        return Table(str(path), "pdvsim", (_run_cell(path, frame),), counts_unfinished=True)
    rows = frame.iter_rows(named=True)
    return _table(path, tuple(to_cell(_canonical(row), path) for row in rows))


def _record_of(path: Path) -> Path | None:
    """The stem of the record that a file is half of, if the other half is there and it says so."""
    for ending in ("_requests", "_stages"):
        stem = path.with_name(path.stem.removesuffix(ending))
        if path.stem.endswith(ending) and all(half.is_file() for half in record_files.paths(stem)):
            says = read_metadata(path, "a table that pdvsim wrote")
            return stem if record_files.KEY in says else None
    return None


def _recorded(stem: Path) -> Cell:
    """One run by its record, which is held against the invariants."""
    record, about = record_files.read(stem)
    served = tuple(
        Served(
            str(request.id),
            None if request.completed_s is None else request.completed_s - request.arrival_s,
            (request.arrival_s,),
            request.produced_tokens,
            request.drafted_tokens,
            request.accepted_tokens,
        )
        for request in record.requests
    )
    cell = Cell(system=stem.name, requests=served)
    return cell if about["cell"] is None else _specified(cell, Specification.read(about["cell"]))


_RUN = ("arrival_s", "completed_s", "produced_tokens", "drafted_tokens", "accepted_tokens")


def _run_cell(path: Path, frame: pl.DataFrame) -> Cell:
    """The requests of one run; it makes no claims, so only its rows can be checked."""
    for name in (*_RUN, "id"):
        if name not in frame.columns:
            raise InputError(f"{path}: missing column {name}")
        kind = frame.schema[name]
        if name != "id" and not kind.is_numeric() and kind != pl.Null:
            raise InputError(f"{path}: column {name} holds no numbers")
    served = tuple(
        Served(str(id), None if ended is None else ended - came, (came,), *counts)
        for id, came, ended, *counts in frame.select("id", *_RUN)
        .drop_nulls("arrival_s")
        .iter_rows()
    )
    return Cell(system=path.stem.removesuffix("_requests"), requests=served)
