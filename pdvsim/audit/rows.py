"""Our own results, and the row of canonical names that they share with plain CSVs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from pdvsim.audit import exports
from pdvsim.audit.table import Cell, Served, Table
from pdvsim.errors import InputError
from pdvsim.models import pair


class Row(BaseModel):
    """One row of a plain CSV or of our own results, by canonical names; all but one optional.

    Times in ms, throughputs per second, rates as shares of 1 (or "40.4%").
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    system: str = "all"
    load: float | None = None
    pair: str | None = None
    concurrency: float | None = None
    rate_per_s: float | None = None
    duration_s: float | None = None
    time_limit_s: float | None = None
    offered: int | None = None
    completed: int | None = None
    output_tokens: int | None = None
    output_throughput: float | None = None
    request_throughput: float | None = None
    mean_e2el_ms: float | None = None
    std_e2el_ms: float | None = None
    median_e2el_ms: float | None = None
    p99_e2el_ms: float | None = None
    mean_ttft_ms: float | None = None
    mean_tpot_ms: float | None = None
    spec_decode_acceptance_rate: float | None = None
    spec_decode_acceptance_length: float | None = None
    draft_tokens: int | None = None
    tokens_per_request: float | None = None
    gpu_memory_mib: float | None = None

    def cell(self) -> Cell:
        load = self.load if self.load is not None else self.concurrency
        return Cell(
            system=self.system,
            load=load if load is not None else self.rate_per_s,
            pair=pair(self.pair) if self.pair else None,
            concurrency=self.concurrency,
            rate_per_s=self.rate_per_s,
            duration_s=self.duration_s,
            time_limit_s=self.time_limit_s,
            offered=self.offered,
            completed=self.completed,
            output_tokens=self.output_tokens,
            output_throughput=self.output_throughput,
            request_throughput=self.request_throughput,
            latency_s=exports.seconds(self.mean_e2el_ms),
            latency_std_s=exports.seconds(self.std_e2el_ms),
            latency_p50_s=exports.seconds(self.median_e2el_ms),
            latency_p99_s=exports.seconds(self.p99_e2el_ms),
            ttft_s=exports.seconds(self.mean_ttft_ms),
            tpot_s=exports.seconds(self.mean_tpot_ms),
            acceptance_rate=self.spec_decode_acceptance_rate,
            accepted_length=self.spec_decode_acceptance_length,
            draft_tokens=self.draft_tokens,
            tokens_per_request=self.tokens_per_request,
            memory_mib=self.gpu_memory_mib,
        )


def parse_row(values: Mapping[str, Any], path: Path) -> Row:
    try:
        return Row.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where}: {first['msg']}") from None


def read_pdvsim(path: Path) -> Table:
    """Our own results: rows of metrics (JSON or Parquet), or one run's request Parquet.

    Their throughput counts tokens when produced and their latency treats requests in flight as
    censored.

    Raises:
        InputError: the file is damaged or holds neither.
    """
    if path.suffix != ".parquet":
        rows = [row for item in exports.load(path) for row in _rows(item)]
        if not rows:
            raise InputError(
                f"{path}: holds no measured cells; give what pdvsim bench -o wrote, or rows of "
                "metrics"
            )
    else:
        try:
            frame = pl.read_parquet(path)
        except (pl.exceptions.PolarsError, OSError):
            raise InputError(f"{path}: not a readable Parquet file") from None
        if "arrival_s" in frame.columns:
            cells = (_run_cell(path, frame),)
            return Table(str(path), "pdvsim", cells, counts_unfinished=True)
        rows = frame.to_dicts()
    cells_of_rows = tuple(parse_row(_canonical(row), path).cell() for row in rows)
    return Table(str(path), "pdvsim", cells_of_rows, counts_unfinished=True, windowed=True)


def _rows(item: Mapping[str, Any]) -> list[Any]:
    """The measured rows of one JSON object: predictions make no claim to audit."""
    if item.get("command", "bench") != "bench":
        return []
    if "cells" in item:
        return list(item["cells"])
    return [item] if set(item) & set(Row.model_fields) else []


def _canonical(row: Mapping[str, Any]) -> dict[str, Any]:
    """Our row under the names of `Row`; a metric with an interval gives its value.

    Only a closed loop keeps `concurrency` in flight; elsewhere it is a label of the load.
    """
    flat: dict[str, Any] = {
        key: v.get("value") if isinstance(v, Mapping) else v for key, v in row.items()
    }
    values: dict[str, Any] = {
        name: flat[name] for name in Row.model_fields if flat.get(name) is not None
    }
    if flat.get("architecture") is not None:
        values.setdefault("system", flat["architecture"])
    if flat.get("protocol", "closed-loop") != "closed-loop" and "concurrency" in values:
        values.setdefault("load", values.pop("concurrency"))
    replications = flat.get("replications") or 1
    if replications > 1:
        # Means over runs: completions are pooled, and a mean of rates is no rate of sums.
        values.pop("duration_s", None)
        if "completed" in values:
            values["completed"] *= replications
    for count in ("completed", "offered", "output_tokens", "draft_tokens"):
        if count in values:
            values[count] = round(values[count])
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
