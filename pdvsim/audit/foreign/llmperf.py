"""LLMPerf's `*_summary.json`: names flattened, seconds, completions per minute."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pdvsim.audit.foreign.items import Foreign, Item, distribution, total
from pdvsim.audit.table import LATENCY, Cell, Distribution

_QUANTITIES = {
    "ttft": "TTFT",
    "inter_token_latency": "ITL",
    "end_to_end_latency": LATENCY,
}
_STATISTIC = re.compile(r"results_(\w+?)_s_(?:quantiles_)?(mean|min|max|stddev|p\d+)")


class Summary(Foreign):
    model: str | None = None
    num_concurrent_requests: float
    results_num_requests_started: int | None = None
    results_number_errors: int | None = None
    results_num_completed_requests: int
    results_num_completed_requests_per_min: float
    results_mean_output_throughput_token_per_s: float | None = None
    results_number_input_tokens_mean: float | None = None
    results_number_output_tokens_mean: float | None = None


def read_llmperf(items: Sequence[Item]) -> list[Cell]:
    """LLMPerf summaries.

    Raises:
        InputError: one is not such a summary.
    """
    return [_cell(item) for item in items]


def _cell(item: Item) -> Cell:
    run = item.parse(Summary)
    spreads = {one.of: one for one in _distributions(item)}
    latency = spreads.get(LATENCY, Distribution(LATENCY))
    return Cell(
        system="llmperf",
        load=run.num_concurrent_requests,
        model_id=run.model,
        concurrency=run.num_concurrent_requests,
        offered=run.results_num_requests_started,
        completed=run.results_num_completed_requests,
        failed=run.results_number_errors,
        output_throughput=run.results_mean_output_throughput_token_per_s,
        request_throughput=run.results_num_completed_requests_per_min / 60,
        latency_s=latency.mean,
        latency_std_s=latency.std,
        latency_p50_s=latency.at(50),
        latency_p99_s=latency.at(99),
        ttft_s=spreads["TTFT"].mean if "TTFT" in spreads else None,
        tokens_per_request=total(
            [run.results_number_input_tokens_mean, run.results_number_output_tokens_mean]
        ),
        distributions=tuple(spreads.values()),
    )


def _distributions(item: Item) -> list[Distribution]:
    found: dict[str, dict[str, float]] = {}
    for key, value in item.content.items():
        match = _STATISTIC.fullmatch(key)
        if match and match[1] in _QUANTITIES and isinstance(value, int | float):
            name = "std" if match[2] == "stddev" else match[2]
            found.setdefault(_QUANTITIES[match[1]], {})[name] = value
    return [distribution(of, statistics) for of, statistics in found.items()]
