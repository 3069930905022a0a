"""Other benchmarks' JSON into `Table`: vLLM `bench serve`, AIPerf, GuideLLM.

They own these formats and add fields at will, so unknown keys are ignored here. Units differ:

- vLLM (fields as of 0.9 to 0.20): `*_ms` are milliseconds, `ttfts`, `itls`, `latencies` seconds,
  `spec_decode_acceptance_rate` percent. TPOT leaves the first token out. Latency starts when a
  request is sent, so with `max_concurrency` the client's own queue is not in it.
- AIPerf (`profile_export_aiperf.json`, schema 1.0 to 1.5): each metric names its unit;
  `inter_token_latency` leaves the first token out.
- GuideLLM (reports of 0.2 to 0.6): `request_latency` is seconds, `*_ms` milliseconds;
  `time_per_output_token_ms` includes the first token, so `inter_token_latency_ms` is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pdvsim.audit.table import Cell, Served, Table
from pdvsim.errors import InputError
from pdvsim.json_file import parse_json, parse_json_lines, read_text

_UNIT_S = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0}

Parsed = TypeVar("Parsed", bound=BaseModel)


def seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1e3


def load(path: Path) -> list[Any]:
    """The objects of a JSON file (one, or a list), of a JSON Lines file, or of a folder of them.

    Raises:
        InputError: not JSON, or nothing in it.
    """
    if path.is_dir():
        files = sorted((*path.glob("*.json"), *path.glob("*.jsonl")))
        found = [item for file in files for item in load(file)]
    else:
        found = _parse(path)
    if not found:
        raise InputError(f"{path}: the file is empty")
    if not all(isinstance(item, dict) for item in found):
        raise InputError(f"{path}: a JSON object, or a list of them, is needed")
    return found


def _parse(path: Path) -> list[Any]:
    what = "a benchmark's JSON or JSON Lines"
    text = read_text(path, what)
    try:
        whole = parse_json(text, f"{path}", what, finite=False)
    except InputError:
        if text.strip().count("\n") == 0:
            raise
        return parse_json_lines(text, f"{path}", what, finite=False)
    return whole if isinstance(whole, list) else [whole]


def detect(path: Path) -> str:
    """Which benchmark wrote `path`, by the fields that only it has."""
    first = load(path)[0]
    if "benchmarks" in first:
        return "guidellm"
    if isinstance(first.get("request_latency"), dict):
        return "aiperf"
    if "total_output_tokens" in first and "duration" in first:
        return "vllm"
    return "pdvsim"


def _validate(model: type[Parsed], data: Any, path: Path) -> Parsed:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where}: {first['msg']}") from None


class _Foreign(BaseModel):
    model_config = ConfigDict(extra="ignore")


class VllmResult(_Foreign):
    """What `vllm bench serve --save-result` writes; the lists need `--save-detailed`."""

    label: str | None = None
    backend: str | None = None
    num_prompts: int | None = None
    request_rate: float | None = None
    max_concurrency: int | None = None
    duration: float
    completed: int
    total_input_tokens: int | None = None
    total_output_tokens: int
    request_throughput: float
    output_throughput: float
    mean_ttft_ms: float | None = None
    mean_tpot_ms: float | None = None
    mean_e2el_ms: float | None = None
    median_e2el_ms: float | None = None
    std_e2el_ms: float | None = None
    p99_e2el_ms: float | None = None
    spec_decode_acceptance_rate: float | None = None
    spec_decode_acceptance_length: float | None = None
    spec_decode_num_drafts: int | None = None
    spec_decode_draft_tokens: int | None = None
    output_lens: list[int] | None = None
    ttfts: list[float] | None = None
    itls: list[list[float]] | None = None
    latencies: list[float] | None = None
    errors: list[str | None] | None = None

    def requests(self) -> Iterator[Served]:
        """The requests one by one, if the file has them; failed ones without a latency."""
        if self.ttfts is None or self.output_lens is None:
            return
        for i, (ttft, tokens) in enumerate(zip(self.ttfts, self.output_lens, strict=True)):
            failed = bool(self.errors and self.errors[i]) or not tokens
            latency = None
            if not failed and self.latencies is not None:
                latency = self.latencies[i]
            elif not failed and self.itls is not None:
                latency = ttft + sum(self.itls[i])
            yield Served(str(i), latency, timings=(ttft,), output_tokens=tokens)


def read_vllm(path: Path) -> Table:
    """vLLM `bench serve` results: a file, JSON Lines (`--append-result`), or a folder.

    Raises:
        InputError: not such a file.
    """
    cells = []
    for item in load(path):
        run = _validate(VllmResult, item, path)
        rate = run.request_rate if run.request_rate not in (None, float("inf")) else None
        load_label = run.max_concurrency if run.max_concurrency is not None else rate
        tokens = run.total_output_tokens + (run.total_input_tokens or 0)
        drafts, rate_percent = run.spec_decode_num_drafts, run.spec_decode_acceptance_rate
        cells.append(
            Cell(
                system=run.label or run.backend or "vllm",
                load=load_label,
                concurrency=run.max_concurrency,
                rate_per_s=rate,
                duration_s=run.duration,
                offered=run.num_prompts,
                completed=run.completed,
                output_tokens=run.total_output_tokens,
                output_throughput=run.output_throughput,
                request_throughput=run.request_throughput,
                latency_s=seconds(run.mean_e2el_ms),
                latency_std_s=seconds(run.std_e2el_ms),
                latency_p50_s=seconds(run.median_e2el_ms),
                latency_p99_s=seconds(run.p99_e2el_ms),
                ttft_s=seconds(run.mean_ttft_ms),
                tpot_s=seconds(run.mean_tpot_ms),
                acceptance_rate=None if rate_percent is None else rate_percent / 100,
                accepted_length=run.spec_decode_acceptance_length,
                draft_tokens=(
                    round((run.spec_decode_draft_tokens or 0) / drafts) if drafts else None
                ),
                tokens_per_request=(
                    tokens / run.completed if run.completed and run.total_input_tokens else None
                ),
                requests=tuple(run.requests()),
            )
        )
    return Table(str(path), "vllm", tuple(cells))


class AiperfMetric(_Foreign):
    unit: str
    avg: float | None = None
    p50: float | None = None
    p99: float | None = None
    std: float | None = None

    def seconds(self, value: float | None) -> float | None:
        """`value` in seconds; None for a unit that is no time."""
        scale = _UNIT_S.get(self.unit.lower())
        return None if value is None or scale is None else value * scale


class AiperfExport(_Foreign):
    """AIPerf's `profile_export_aiperf.json`."""

    request_latency: AiperfMetric
    request_throughput: AiperfMetric
    request_count: AiperfMetric
    error_request_count: AiperfMetric | None = None
    benchmark_duration: AiperfMetric | None = None
    output_token_throughput: AiperfMetric | None = None
    time_to_first_token: AiperfMetric | None = None
    inter_token_latency: AiperfMetric | None = None
    output_sequence_length: AiperfMetric | None = None
    input_sequence_length: AiperfMetric | None = None
    input_config: dict[str, Any] = Field(default_factory=dict)
    run_info: dict[str, Any] = Field(default_factory=dict)


def read_aiperf(path: Path) -> Table:
    """AIPerf summary exports: one file, or a folder of them.

    Raises:
        InputError: not such a file.
    """
    cells = []
    for item in load(path):
        run = _validate(AiperfExport, item, path)
        values = run.run_info.get("variation_values") or {}
        concurrency = _setting("concurrency", values, run.input_config)
        rate = _setting("request_rate", values, run.input_config)
        completed = round(run.request_count.avg or 0)
        failed = round(run.error_request_count.avg or 0) if run.error_request_count else 0
        ttft, itl = run.time_to_first_token, run.inter_token_latency
        lengths = [m.avg for m in (run.input_sequence_length, run.output_sequence_length) if m]
        throughput, duration = run.output_token_throughput, run.benchmark_duration
        cells.append(
            Cell(
                system=str(run.run_info.get("run_label") or "aiperf"),
                load=concurrency if concurrency is not None else rate,
                concurrency=concurrency,
                rate_per_s=rate,
                duration_s=duration.seconds(duration.avg) if duration else None,
                offered=completed + failed,
                completed=completed,
                output_throughput=throughput.avg if throughput else None,
                request_throughput=run.request_throughput.avg,
                latency_s=run.request_latency.seconds(run.request_latency.avg),
                latency_std_s=run.request_latency.seconds(run.request_latency.std),
                latency_p50_s=run.request_latency.seconds(run.request_latency.p50),
                latency_p99_s=run.request_latency.seconds(run.request_latency.p99),
                ttft_s=ttft.seconds(ttft.avg) if ttft else None,
                tpot_s=itl.seconds(itl.avg) if itl else None,
                tokens_per_request=sum(n or 0 for n in lengths) if len(lengths) == 2 else None,
            )
        )
    return Table(str(path), "aiperf", tuple(cells))


def _setting(name: str, *sources: Mapping[str, Any]) -> float | None:
    """The first number called `name` (or ending in `.name`), at any depth."""
    for source in sources:
        for key, value in source.items():
            if isinstance(value, Mapping):
                found = _setting(name, value)
                if found is not None:
                    return found
            elif key.rpartition(".")[2] == name and isinstance(value, int | float):
                return float(value)
    return None


class GuidellmDistribution(_Foreign):
    mean: float | None = None
    median: float | None = None
    std_dev: float | None = None
    percentiles: dict[str, float] = Field(default_factory=dict)


class GuidellmByStatus(_Foreign):
    successful: GuidellmDistribution | None = None


class GuidellmTotals(_Foreign):
    successful: int
    errored: int = 0
    incomplete: int = 0


class GuidellmMetrics(_Foreign):
    request_totals: GuidellmTotals
    requests_per_second: GuidellmByStatus
    request_latency: GuidellmByStatus
    output_tokens_per_second: GuidellmByStatus
    output_token_count: GuidellmByStatus | None = None
    prompt_token_count: GuidellmByStatus | None = None
    time_to_first_token_ms: GuidellmByStatus | None = None
    inter_token_latency_ms: GuidellmByStatus | None = None


class GuidellmConfig(_Foreign):
    strategy: dict[str, Any] = Field(default_factory=dict)


class GuidellmBenchmark(_Foreign):
    config: GuidellmConfig | None = None  # since 0.4
    args: GuidellmConfig | None = None  # before 0.4
    metrics: GuidellmMetrics


class GuidellmArgs(_Foreign):
    max_seconds: float | None = None


class GuidellmReport(_Foreign):
    """GuideLLM's JSON report: one benchmark per load."""

    args: GuidellmArgs | None = None
    benchmarks: list[GuidellmBenchmark]


def read_guidellm(path: Path) -> Table:
    """GuideLLM reports: one file, or a folder of them.

    Raises:
        InputError: not such a file.
    """
    cells = []
    for item in load(path):
        report = _validate(GuidellmReport, item, path)
        limit_s = report.args.max_seconds if report.args else None
        cells += [_guidellm_cell(benchmark, limit_s) for benchmark in report.benchmarks]
    return Table(str(path), "guidellm", tuple(cells))


def _guidellm_cell(benchmark: GuidellmBenchmark, limit_s: float | None) -> Cell:
    settings = benchmark.config or benchmark.args or GuidellmConfig()
    strategy, metrics = settings.strategy, benchmark.metrics
    kind = str(strategy.get("type_", "guidellm"))
    streams = 1.0 if kind == "synchronous" else strategy.get("streams")
    rate = strategy.get("rate") if kind in ("constant", "poisson", "async") else None
    totals = metrics.request_totals
    latency = metrics.request_latency.successful or GuidellmDistribution()
    lengths = [_mean(metrics.prompt_token_count), _mean(metrics.output_token_count)]
    return Cell(
        system=kind,
        load=streams if streams is not None else rate,
        concurrency=streams,
        rate_per_s=rate,
        time_limit_s=limit_s,
        offered=totals.successful + totals.errored + totals.incomplete,
        completed=totals.successful,
        output_throughput=_mean(metrics.output_tokens_per_second),
        request_throughput=_mean(metrics.requests_per_second),
        latency_s=latency.mean,
        latency_std_s=latency.std_dev,
        latency_p50_s=latency.median,
        latency_p99_s=latency.percentiles.get("p99"),
        ttft_s=seconds(_mean(metrics.time_to_first_token_ms)),
        tpot_s=seconds(_mean(metrics.inter_token_latency_ms)),
        tokens_per_request=sum(n for n in lengths if n) if all(lengths) else None,
    )


def _mean(metric: GuidellmByStatus | None) -> float | None:
    return metric.successful.mean if metric and metric.successful else None
