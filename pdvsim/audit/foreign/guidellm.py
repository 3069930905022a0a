"""GuideLLM's JSON reports, 0.2 to 0.6: one benchmark for each load.

`request_latency` is in seconds, `*_ms` in milliseconds; `time_per_output_token_ms` includes the
first token, so `inter_token_latency_ms` is read. Up to 0.3 `request_totals` stands beside
`metrics`, and settings under `args`; since 0.4 in `metrics` and under `config`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from pdvsim.audit.foreign.items import Foreign, Item, distribution, model_of, seconds, total
from pdvsim.audit.table import LATENCY, Cell, Distribution
from pdvsim.errors import InputError


class Spread(Foreign):
    mean: float | None = None
    median: float | None = None
    std_dev: float | None = None
    min: float | None = None
    max: float | None = None
    percentiles: dict[str, float] = Field(default_factory=dict)

    def as_distribution(self, of: str, unit_s: float) -> Distribution:
        named = {"mean": self.mean, "median": self.median, "std": self.std_dev}
        named |= {"min": self.min, "max": self.max}
        named |= {_percentile(name): value for name, value in self.percentiles.items()}
        return distribution(of, {n: v * unit_s for n, v in named.items() if v is not None})


def _percentile(name: str) -> str:
    """Theirs as everybody's: p001 is p0.1, p05 is p5, p999 is p99.9."""
    digits = name.removeprefix("p")
    if not digits.isdigit() or len(digits) > 3:
        return name
    return f"p{float(digits) / 10 if len(digits) == 3 else float(digits):g}"


class ByStatus(Foreign):
    successful: Spread | None = None


class Totals(Foreign):
    successful: int
    errored: int = 0
    incomplete: int = 0


class Metrics(Foreign):
    request_totals: Totals | None = None
    requests_per_second: ByStatus
    request_latency: ByStatus
    output_tokens_per_second: ByStatus
    output_token_count: ByStatus | None = None
    prompt_token_count: ByStatus | None = None
    time_to_first_token_ms: ByStatus | None = None
    inter_token_latency_ms: ByStatus | None = None


class Strategy(Foreign):
    type_: str = "guidellm"
    streams: float | None = None
    max_concurrency: float | None = None
    rate: float | None = None


class Settings(Foreign):
    backend: Any = None
    strategy: Strategy = Field(default_factory=Strategy)


class Benchmark(Foreign):
    config: Settings | None = None
    args: Settings | None = None
    metrics: Metrics
    request_totals: Totals | None = None


class Arguments(Foreign):
    max_seconds: float | None = None


class Report(Foreign):
    args: Arguments | None = None
    benchmarks: list[Benchmark]


def read_guidellm(items: Sequence[Item]) -> list[Cell]:
    """GuideLLM reports.

    Raises:
        InputError: one is not such a report.
    """
    cells = []
    for item in items:
        report = item.parse(Report)
        limit_s = report.args.max_seconds if report.args else None
        cells += [_cell(benchmark, limit_s, item) for benchmark in report.benchmarks]
    return cells


def _cell(benchmark: Benchmark, limit_s: float | None, item: Item) -> Cell:
    settings = benchmark.config or benchmark.args or Settings()
    strategy, metrics = settings.strategy, benchmark.metrics
    kind = strategy.type_
    streams = 1.0 if kind == "synchronous" else strategy.streams
    cap = streams if streams is not None else strategy.max_concurrency
    rate = strategy.rate if kind in ("constant", "poisson", "async") else None
    totals = metrics.request_totals or benchmark.request_totals
    if totals is None:
        raise InputError(f"{item.path}: a benchmark without request_totals, which all reports hold")
    latency = _spread(metrics.request_latency, LATENCY, 1.0)
    return Cell(
        system=kind,
        model_id=model_of(settings.backend),
        load=streams if streams is not None else rate,
        concurrency=cap,
        client_cap=True,
        rate_per_s=rate,
        time_limit_s=limit_s,
        offered=totals.successful + totals.errored + totals.incomplete,
        completed=totals.successful,
        failed=totals.errored,
        output_throughput=_mean(metrics.output_tokens_per_second),
        request_throughput=_mean(metrics.requests_per_second),
        latency_s=latency.mean,
        latency_std_s=latency.std,
        latency_p50_s=latency.at(50),
        latency_p99_s=latency.at(99),
        ttft_s=seconds(_mean(metrics.time_to_first_token_ms)),
        tpot_s=seconds(_mean(metrics.inter_token_latency_ms)),
        tokens_per_request=total(
            [_mean(metrics.prompt_token_count), _mean(metrics.output_token_count)]
        ),
        distributions=(
            latency,
            _spread(metrics.time_to_first_token_ms, "TTFT", 1e-3),
            _spread(metrics.inter_token_latency_ms, "ITL", 1e-3),
        ),
    )


def _mean(metric: ByStatus | None) -> float | None:
    return metric.successful.mean if metric and metric.successful else None


def _spread(metric: ByStatus | None, of: str, unit_s: float) -> Distribution:
    if metric is None or metric.successful is None:
        return Distribution(of)
    return metric.successful.as_distribution(of, unit_s)
