"""The pdverify result files as a `Table`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import polars as pl

from pdvsim.audit.fields import NotANumber, Number, number
from pdvsim.audit.table import Cell, Distribution, Served, Table
from pdvsim.errors import InputError
from pdvsim.models import Pair, shapes
from pdvsim.tables import read_csv
from pdvsim.workload import PDVERIFY_RATE_PER_C, pdverify_arrivals

PDVERIFY_DRAFT_TOKENS = 4
PDVERIFY_PROMPT_TOKENS = 10
_PDVERIFY_COLUMNS = {
    "Engine": pl.String,
    "Concurrency": pl.Int64,
    "Throughput (TPS)": pl.String,
    "Latency P50 (ms)": pl.Float64,
    "Latency P99 (ms)": pl.Float64,
    "Acceptance Rate": pl.String,
    "GPU Util %": pl.Float64,
    "GPU Mem (MB)": pl.Float64,
    "Avg Request Latency (ms)": pl.Float64,
}
_PDVERIFY_DETAIL = {
    "Engine": pl.String,
    "Concurrency": pl.Int64,
    "RequestID": pl.String,
    "TotalLatency": pl.Float64,
    "PrefillDuration": pl.Float64,
    "DecodeDuration": pl.Float64,
    "TokensGenerated": pl.Int64,
    "TokensAccepted": pl.Int64,
}


def read_pdverify(path: Path, detail: Path | None, models: Pair | None = None) -> Table:
    """The result files of the pdverify benchmark, as its protocol (see `workload`) makes them.

    "Concurrency" sets the rate, 0.05 C requests/s; the arrivals of each C are known exactly.
    "TokensGenerated" are drafted tokens and "TokensAccepted" output tokens, the verifier's own
    included. The percentiles of the summary are over tokens, not requests.
    Without `models`, the file name says which pair is claimed.

    Raises:
        InputError: a file is absent or lacks a column.
    """
    rows = read_csv(path, _PDVERIFY_COLUMNS)
    requests: dict[tuple[str, int], list[Served]] = defaultdict(list)
    if detail is not None:
        for row in read_csv(detail, _PDVERIFY_DETAIL).iter_rows(named=True):
            requests[row["Engine"], row["Concurrency"]].append(
                Served(
                    id=row["RequestID"],
                    latency_s=row["TotalLatency"] / 1e3,
                    timings=(row["PrefillDuration"] / 1e3, row["DecodeDuration"] / 1e3),
                    output_tokens=row["TokensAccepted"],
                    drafted=row["TokensGenerated"],
                    accepted=row["TokensAccepted"],
                )
            )
    models = models or _pair_of_file(path)
    cells = []
    for i, row in enumerate(rows.iter_rows(named=True)):
        load, served = row["Concurrency"], tuple(requests[row["Engine"], row["Concurrency"]])
        tokens = sum(r.output_tokens or 0 for r in served) / len(served) if served else None
        throughput = _printed(row, "Throughput (TPS)", path, i)
        cells.append(
            Cell(
                system=row["Engine"],
                load=load,
                pair=models,
                concurrency=load,
                rate_per_s=PDVERIFY_RATE_PER_C * load,
                offered=_arrivals(load),
                output_throughput=throughput.value,
                resolution=throughput.step,
                latency_s=row["Avg Request Latency (ms)"] / 1e3,
                acceptance_rate=_printed(row, "Acceptance Rate", path, i).value,
                draft_tokens=PDVERIFY_DRAFT_TOKENS,
                tokens_per_request=PDVERIFY_PROMPT_TOKENS + tokens if tokens else None,
                memory_mib=row["GPU Mem (MB)"],
                utilization=row["GPU Util %"] / 100,
                distributions=(
                    Distribution(
                        "latency of a token",
                        percentiles=(
                            (50.0, row["Latency P50 (ms)"] / 1e3),
                            (99.0, row["Latency P99 (ms)"] / 1e3),
                        ),
                    ),
                ),
                requests=served,
            )
        )
    return Table(str(path), "pdverify", tuple(cells), same_requests=True, demand_memory=True)


def is_pdverify(path: Path) -> bool:
    """Whether the header is that of a pdverify summary."""
    with path.open(encoding="utf-8") as file:
        return "Engine,Concurrency,Throughput (TPS)" in file.readline(65536)


@lru_cache(maxsize=4096)
def _arrivals(load: int) -> int:
    """Requests that arrive at one C."""
    return len(pdverify_arrivals(load))


def _printed(row: Mapping[str, str], column: str, path: Path, index: int) -> Number:
    """The number in a column of text, with the step to which it was printed.

    Raises:
        InputError: it holds none.
    """
    try:
        found = number(row[column])
    except NotANumber:
        found = None
    if not isinstance(found, Number):
        where = f"{path}: row {index + 2}, column {column}"
        raise InputError(f"{where}: {row[column]!r} is not a number")
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
