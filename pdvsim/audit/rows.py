"""Our own results, and the row of canonical names that they share with plain CSVs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from pdvsim.audit.foreign.items import Item, distributions, seconds
from pdvsim.audit.table import LATENCY, Cell, Served, Table
from pdvsim.errors import InputError
from pdvsim.models import pair


class Row(BaseModel):
    """One row of a plain CSV or of our own results, by canonical names; all but one optional.

    Times in ms, throughputs per second, rates as shares of 1 (or "40.4%").
    """

    model_config = ConfigDict(extra="forbid")

    system: str = "all"
    load: float | None = None
    pair: str | None = None
    concurrency: float | None = None
    rate_per_s: float | None = None
    duration_s: float | None = None
    time_limit_s: float | None = None
    offered: int | None = None
    completed: int | None = None
    failed: int | None = None
    output_tokens: int | None = None
    output_throughput: float | None = None
    request_throughput: float | None = None
    request_goodput: float | None = None
    mean_e2el_ms: float | None = None
    std_e2el_ms: float | None = None
    median_e2el_ms: float | None = None
    p99_e2el_ms: float | None = None
    mean_ttft_ms: float | None = None
    mean_tpot_ms: float | None = None
    spec_decode_acceptance_rate: float | None = None
    spec_decode_acceptance_length: float | None = None
    draft_tokens: float | None = None
    tokens_per_request: float | None = None
    gpu_memory_mib: float | None = None
    gpu_utilization: float | None = None


_QUANTITIES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2el": LATENCY}
_STATISTICS = ("mean", "median", "std", "min", "max", "p50", "p75", "p90", "p95", "p99")
_SPREADS = {f"{name}_{quantity}_ms" for name in _STATISTICS for quantity in _QUANTITIES}
NAMES = frozenset({*Row.model_fields, *_SPREADS})
SETTINGS = frozenset(
    {
        *("system", "load", "pair", "concurrency", "rate_per_s"),
        *("time_limit_s", "offered", "draft_tokens", "tokens_per_request"),
    }
)


def to_cell(values: Mapping[str, Any], path: Path) -> Cell:
    """A row under the names of `NAMES` as a cell.

    Raises:
        InputError: a value is of the wrong kind.
    """
    own = {name: value for name, value in values.items() if name in Row.model_fields}
    try:
        row = Row.model_validate(own)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where}: {first['msg']}") from None
    load = row.load if row.load is not None else row.concurrency
    return Cell(
        system=row.system,
        load=load if load is not None else row.rate_per_s,
        pair=pair(row.pair) if row.pair else None,
        concurrency=row.concurrency,
        rate_per_s=row.rate_per_s,
        duration_s=row.duration_s,
        time_limit_s=row.time_limit_s,
        offered=row.offered,
        completed=row.completed,
        failed=row.failed,
        output_tokens=row.output_tokens,
        output_throughput=row.output_throughput,
        request_throughput=row.request_throughput,
        request_goodput=row.request_goodput,
        latency_s=seconds(row.mean_e2el_ms),
        latency_std_s=seconds(row.std_e2el_ms),
        latency_p50_s=seconds(row.median_e2el_ms),
        latency_p99_s=seconds(row.p99_e2el_ms),
        ttft_s=seconds(row.mean_ttft_ms),
        tpot_s=seconds(row.mean_tpot_ms),
        acceptance_rate=row.spec_decode_acceptance_rate,
        accepted_length=row.spec_decode_acceptance_length,
        draft_tokens=row.draft_tokens,
        tokens_per_request=row.tokens_per_request,
        memory_mib=row.gpu_memory_mib,
        utilization=row.gpu_utilization,
        distributions=distributions(values, _QUANTITIES),
    )


def read_objects(path: Path, items: Sequence[Item]) -> Table:
    """Our own results: documents of `pdvsim bench`, or rows of metrics.

    Their throughput counts tokens when produced and their latency treats requests in flight as
    censored.

    Raises:
        InputError: a row is damaged, or there is none.
    """
    cells = tuple(to_cell(_canonical(row), item.path) for item in items for row in _rows(item))
    if not cells:
        raise InputError(
            f"{path}: holds no measured cells; give what pdvsim bench -o wrote, or rows of metrics"
        )
    return Table(str(path), "pdvsim", cells, counts_unfinished=True, windowed=True)


def read_parquet(path: Path) -> Table:
    """Rows of metrics, or the requests of one run, as Parquet.

    Raises:
        InputError: the file is damaged or holds neither.
    """
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError):
        raise InputError(f"{path}: not a readable Parquet file") from None
    if "arrival_s" in frame.columns:
        return Table(str(path), "pdvsim", (_run_cell(path, frame),), counts_unfinished=True)
    cells = tuple(to_cell(_canonical(row), path) for row in frame.iter_rows(named=True))
    return Table(str(path), "pdvsim", cells, counts_unfinished=True, windowed=True)


def _rows(item: Item) -> list[Mapping[str, Any]]:
    """The measured rows of one JSON object: predictions make no claim to audit."""
    content = item.content
    if content.get("command", "bench") != "bench":
        return []
    if "cells" in content:
        found = content["cells"]
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            raise InputError(f"{item.path}: cells must be a list of objects")
        return found
    return [content] if set(content) & set(Row.model_fields) else []


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


def _run_cell(path: Path, frame: pl.DataFrame) -> Cell:
    """The requests of one run; it makes no claims, so only its rows can be checked."""
    try:
        served = tuple(
            Served(
                id=str(row["id"]),
                latency_s=(
                    None if row["completed_s"] is None else row["completed_s"] - row["arrival_s"]
                ),
                timings=(row["arrival_s"],),
                output_tokens=row["produced_tokens"],
                drafted=row["drafted_tokens"],
                accepted=row["accepted_tokens"],
            )
            for row in frame.iter_rows(named=True)
        )
    except KeyError as error:
        raise InputError(f"{path}: missing column {error.args[0]}") from None
    return Cell(system=path.stem.removesuffix("_requests"), requests=served)
