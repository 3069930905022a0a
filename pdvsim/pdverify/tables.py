"""The result files of the published benchmark, row by row: the one place that knows their columns.

The summary has a row for each engine and C, the detailed file one for each completed request.
"TokensGenerated" are drafted tokens, "TokensAccepted" output tokens, the verifier's own included.
The percentiles of the summary are over tokens, not requests.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdvsim.tables import read_csv

# Engines, and the architectures that they are.
ARCHITECTURE_OF = {"PD": "pd", "PDV": "pdv", "Baseline": "baseline", "3Lane": "three_lane"}

_TEXT = ("Engine", "Throughput (TPS)", "Acceptance Rate")
_NUMBERS = (
    *("Latency P50 (ms)", "Latency P99 (ms)", "GPU Util %", "GPU Mem (MB)"),
    "Avg Request Latency (ms)",
)

Place = tuple[str, int]  # engine and C


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One engine at one C.

    Attributes:
        throughput, acceptance_rate: as printed, which says how far they were rounded.
        token_latency_s: 50th and 99th percentile, over tokens.
        latency_s: mean over the completed requests.
    """

    engine: str
    concurrency: int
    throughput: str
    acceptance_rate: str
    token_latency_s: tuple[float, float]
    latency_s: float
    utilisation: float
    memory_mib: float


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One completed request; durations in seconds."""

    id: str
    latency_s: float
    prefill_s: float
    decode_s: float
    drafted: int
    tokens: int


def read_summary(path: Path) -> list[SummaryRow]:
    """The rows of `*_summary.csv`.

    Raises:
        InputError: the file is absent, lacks a column, or a value is not a number.
    """
    import polars as pl

    kinds: dict[str, Any] = {"Concurrency": pl.Int64}
    kinds |= dict.fromkeys(_TEXT, pl.String) | dict.fromkeys(_NUMBERS, pl.Float64)
    return [
        SummaryRow(
            row["Engine"],
            row["Concurrency"],
            row["Throughput (TPS)"],
            row["Acceptance Rate"],
            (row["Latency P50 (ms)"] / 1e3, row["Latency P99 (ms)"] / 1e3),
            row["Avg Request Latency (ms)"] / 1e3,
            row["GPU Util %"] / 100.0,
            row["GPU Mem (MB)"],
        )
        for row in read_csv(path, kinds).iter_rows(named=True)
    ]


def read_detailed(path: Path) -> dict[Place, list[RequestRow]]:
    """The rows of `*_detailed.csv`, by engine and C.

    Raises:
        InputError: as `read_summary`.
    """
    import polars as pl

    kinds: dict[str, Any] = dict.fromkeys(("Engine", "RequestID"), pl.String)
    kinds |= dict.fromkeys(("TotalLatency", "PrefillDuration", "DecodeDuration"), pl.Float64)
    kinds |= dict.fromkeys(("Concurrency", "TokensGenerated", "TokensAccepted"), pl.Int64)
    requests: dict[Place, list[RequestRow]] = defaultdict(list)
    for row in read_csv(path, kinds).iter_rows(named=True):
        requests[row["Engine"], row["Concurrency"]].append(
            RequestRow(
                row["RequestID"],
                row["TotalLatency"] / 1e3,
                row["PrefillDuration"] / 1e3,
                row["DecodeDuration"] / 1e3,
                row["TokensGenerated"],
                row["TokensAccepted"],
            )
        )
    return requests


def is_summary(path: Path) -> bool:
    """Whether the header is that of a summary."""
    with path.open(encoding="utf-8") as file:
        return "Engine,Concurrency,Throughput (TPS)" in file.readline(65536)
