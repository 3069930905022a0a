"""CSV files into `Table`: the pdverify results, and any CSV with a column map."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from pdvsim.audit.rows import Row, parse_row
from pdvsim.audit.table import Cell, Served, Table
from pdvsim.errors import InputError
from pdvsim.models import SHAPES, Pair
from pdvsim.tables import read_csv
from pdvsim.workload import PDVERIFY_RATE_PER_C, pdverify_arrivals

PDVERIFY_DRAFT_TOKENS = 4
PDVERIFY_PROMPT_TOKENS = 10
_PDVERIFY_COLUMNS = {
    "Engine": pl.String,
    "Concurrency": pl.Int64,
    "Throughput (TPS)": pl.String,
    "Acceptance Rate": pl.String,
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
    included. The percentiles of the summary are over tokens, not requests, and are left out.
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
    for row in rows.iter_rows(named=True):
        load, served = row["Concurrency"], tuple(requests[row["Engine"], row["Concurrency"]])
        tokens = sum(r.output_tokens or 0 for r in served) / len(served) if served else None
        throughput, step = number(row["Throughput (TPS)"], path)
        cells.append(
            Cell(
                system=row["Engine"],
                load=load,
                pair=models,
                concurrency=load,
                rate_per_s=PDVERIFY_RATE_PER_C * load,
                offered=len(pdverify_arrivals(load)),
                output_throughput=throughput,
                resolution=step,
                latency_s=row["Avg Request Latency (ms)"] / 1e3,
                acceptance_rate=number(row["Acceptance Rate"], path)[0],
                draft_tokens=PDVERIFY_DRAFT_TOKENS,
                tokens_per_request=PDVERIFY_PROMPT_TOKENS + tokens if tokens else None,
                memory_mib=row["GPU Mem (MB)"],
                requests=served,
            )
        )
    return Table(str(path), "pdverify", tuple(cells), same_requests=True, demand_memory=True)


def _pair_of_file(path: Path) -> Pair | None:
    """The pair that a file name like `TinyLlama-TinyLlama_summary.csv` claims, if it is known."""
    claim = path.stem.removesuffix("_summary").lower()
    for draft in SHAPES.values():
        for verifier in SHAPES.values():
            short = (draft.name.removesuffix("-1.1b"), verifier.name.removesuffix("-1.1b"))
            if claim == "-".join(short):
                return Pair(draft, verifier)
    return None


def number(text: str, path: Path) -> tuple[float, float]:
    """(value, printed step) of "12.48" or "40.38%"; a percentage becomes a share of 1.

    Raises:
        InputError: it is not a number.
    """
    digits = text.strip()
    scale = 0.01 if digits.endswith("%") else 1.0
    digits = digits.rstrip("%")
    try:
        value = float(digits)
    except ValueError:
        raise InputError(f"{path}: {text!r} is not a number") from None
    decimals = len(digits.partition(".")[2]) if "e" not in digits.lower() else 0
    return value * scale, scale * 10.0**-decimals


def read_plain_csv(path: Path, detail: Path | None, columns: Mapping[str, str]) -> Table:
    """A CSV whose columns bear the names of `Row`, or are mapped to them.

    The detail file has the columns system, load, id, e2el_ms and, if known, output_tokens,
    drafted_tokens, accepted_tokens; every other column that ends in `_ms` is a time too. The
    map applies to both files.

    Raises:
        InputError: an unknown name in the map, a missing column, or text for a number.
    """
    known = set(Row.model_fields) | set(_DETAIL_FIELDS)
    unknown = sorted(set(columns) - known)
    if unknown:
        raise InputError(
            f"unknown in the column map: {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    requests = _detail_rows(detail, columns) if detail is not None else {}
    cells = []
    for raw in _text_rows(path, columns, Row.model_fields):
        values: dict[str, Any] = dict(raw)
        step = 0.0
        for name, text in raw.items():
            if name not in ("system", "pair"):
                values[name], printed = number(text, path)
                step = printed if name == "output_throughput" else step
        cell = parse_row(values, path).cell()
        served = requests.get((cell.system, cell.load), ())
        cells.append(replace(cell, resolution=step, requests=served))
    return Table(str(path), "csv", tuple(cells))


_DETAIL_FIELDS = (
    "system",
    "load",
    "id",
    "e2el_ms",
    "output_tokens",
    "drafted_tokens",
    "accepted_tokens",
)


def _text_rows(
    path: Path, columns: Mapping[str, str], fields: Mapping[str, Any] | tuple[str, ...]
) -> list[dict[str, str]]:
    """Rows of a CSV as text under canonical names; empty fields are left out."""
    try:
        header = pl.read_csv(path, infer_schema=False, n_rows=0).columns
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError):
        raise InputError(f"{path}: not a readable CSV file") from None
    wanted = {name: columns.get(name, name) for name in fields}
    present = {name: column for name, column in wanted.items() if column in header}
    missing = [columns[name] for name in wanted if name in columns and name not in present]
    if missing or not present:
        raise InputError(
            f"{path}: missing column {', '.join(missing) or ' or '.join(wanted)}; it has "
            f"{', '.join(header)} (map them with --columns NAME=COLUMN,...)"
        )
    frame = pl.read_csv(path, infer_schema=False, columns=list(dict.fromkeys(present.values())))
    return [
        {name: row[column] for name, column in present.items() if row[column] not in (None, "")}
        for row in frame.iter_rows(named=True)
    ]


def _detail_rows(
    path: Path, columns: Mapping[str, str]
) -> dict[tuple[str, float | None], tuple[Served, ...]]:
    header = pl.read_csv(path, infer_schema=False, n_rows=0).columns if path.exists() else []
    fields = dict.fromkeys((*_DETAIL_FIELDS, *(name for name in header if name.endswith("_ms"))))
    mapped = {name: column for name, column in columns.items() if column in header}
    served: dict[tuple[str, float | None], list[Served]] = defaultdict(list)
    for i, row in enumerate(_text_rows(path, mapped, tuple(fields))):
        load = number(row["load"], path)[0] if "load" in row else None
        timings = [v for k, v in row.items() if k.endswith("_ms") and k != "e2el_ms"]
        served[row.get("system", "all"), load].append(
            Served(
                id=row.get("id", str(i)),
                latency_s=number(row["e2el_ms"], path)[0] / 1e3 if "e2el_ms" in row else None,
                timings=tuple(number(text, path)[0] / 1e3 for text in timings),
                output_tokens=_count(row.get("output_tokens"), path),
                drafted=_count(row.get("drafted_tokens"), path),
                accepted=_count(row.get("accepted_tokens"), path),
            )
        )
    return {key: tuple(rows) for key, rows in served.items()}


def _count(text: str | None, path: Path) -> int | None:
    return None if text is None else round(number(text, path)[0])
