"""The row of canonical names that plain CSVs and our own results share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pdvsim.audit.foreign.items import distributions, seconds
from pdvsim.audit.table import LATENCY, Cell
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
