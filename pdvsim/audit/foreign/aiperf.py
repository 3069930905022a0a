"""AIPerf's `profile_export_aiperf.json`, schema 1.0 to 1.5.

Each metric names its unit; `inter_token_latency` leaves the first token out. Settings stand under
`input_config`: in `loadgen`, or (newer) in a list of `phases`, of which the profiling one counts.
`request_throughput` is over the whole phase, `benchmark_duration` ends at the last completion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from pydantic import Field

from pdvsim.audit.foreign.items import Foreign, Item, distribution, model_of, total
from pdvsim.audit.table import LATENCY, Cell, Distribution

_UNIT_S = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0}
_STATISTICS = {"avg": "mean", "std": "std", "min": "min", "max": "max"}
# Settings of a replay in which a session pauses between its requests: `concurrency` then counts
# sessions, most of them idle at any moment.
_PAUSES = (
    "trace_idle_gap_cap_seconds",
    "session_turn_delay_mean",
    "turn_delay_mean",
    "inter_turn_delay_cap_seconds",
)


class Metric(Foreign):
    unit: str
    avg: float | None = None

    def seconds(self, value: float | None) -> float | None:
        """`value` in seconds; None for a unit that is no time."""
        scale = _UNIT_S.get(self.unit.lower())
        return None if value is None or scale is None else value * scale


class Export(Foreign):
    request_latency: Metric
    request_throughput: Metric | None = None
    request_count: Metric | None = None
    goodput: Metric | None = None
    error_request_count: Metric | None = None
    benchmark_duration: Metric | None = None
    effective_concurrency: Metric | None = None
    output_token_throughput: Metric | None = None
    time_to_first_token: Metric | None = None
    inter_token_latency: Metric | None = None
    output_sequence_length: Metric | None = None
    input_sequence_length: Metric | None = None
    input_config: dict[str, Any] = Field(default_factory=dict)
    run_info: dict[str, Any] = Field(default_factory=dict)


def read_aiperf(items: Sequence[Item]) -> list[Cell]:
    """AIPerf summary exports.

    Raises:
        InputError: one is not such an export.
    """
    return [_cell(item) for item in items]


def _cell(item: Item) -> Cell:
    run = item.parse(Export)
    settings = _settings(run)
    concurrency, rate = settings.get("concurrency"), settings.get("request_rate")
    counted = run.request_count is not None
    completed, failed = _count(run.request_count), _count(run.error_request_count)
    latency = _spread(LATENCY, item.content.get("request_latency"), run.request_latency)
    duration = run.benchmark_duration
    duration_s = duration.seconds(duration.avg) if duration else None
    limit_s = settings.get("duration", settings.get("benchmark_duration"))
    cut = _cut(settings, limit_s, concurrency)
    lost = int(concurrency or 0) if cut else 0
    ttft, itl = run.time_to_first_token, run.inter_token_latency
    lengths = [_average(run.input_sequence_length), _average(run.output_sequence_length)]
    pauses = [name for name in _PAUSES if settings.get(name)]
    return Cell(
        system=str(run.run_info.get("run_label") or "aiperf"),
        model_id=model_of(run.input_config),
        load=concurrency if concurrency is not None else rate,
        concurrency=concurrency,
        client_cap=True,
        sessions=f"replayed sessions pause between requests ({pauses[0]})" if pauses else None,
        in_flight_stated=_average(run.effective_concurrency),
        rate_per_s=rate,
        duration_s=None if cut else duration_s,
        time_limit_s=limit_s if cut else None,
        cut=cut,
        completed_span_s=duration_s if cut else None,
        offered=completed + failed + lost if counted else None,
        completed=completed if counted else None,
        failed=failed,
        output_throughput=_average(run.output_token_throughput),
        request_throughput=_average(run.request_throughput),
        request_goodput=_average(run.goodput),
        latency_s=latency.mean,
        latency_std_s=latency.std,
        latency_p50_s=latency.at(50),
        latency_p99_s=latency.at(99),
        ttft_s=ttft.seconds(ttft.avg) if ttft else None,
        tpot_s=itl.seconds(itl.avg) if itl else None,
        tokens_per_request=total(lengths),
        distributions=(
            latency,
            _spread("TTFT", item.content.get("time_to_first_token"), ttft),
            _spread("TPOT", item.content.get("inter_token_latency"), itl),
        ),
    )


def _average(metric: Metric | None) -> float | None:
    return metric.avg if metric else None


def _count(metric: Metric | None) -> int:
    value = _average(metric) or 0.0
    # What is no count stays as it is, for the rule that names it.
    return round(value) if isfinite(value) else value  # type: ignore[return-value]


def _spread(of: str, statistics: Any, metric: Metric | None) -> Distribution:
    """All statistics of a metric of time."""
    if metric is None or not isinstance(statistics, Mapping):
        return Distribution(of)
    known = {
        _STATISTICS.get(str(name), str(name)): metric.seconds(float(value))
        for name, value in statistics.items()
        if isinstance(value, int | float)
    }
    return distribution(of, {name: value for name, value in known.items() if value is not None})


def _settings(run: Export) -> dict[str, float]:
    """The numbers of the configuration by their last name; what was varied comes first, then the
    phase that was measured."""
    phases = run.input_config.get("phases")
    listed = phases if isinstance(phases, list) else []
    measured = [p for p in listed if isinstance(p, Mapping) and not _warms_up(p)][:1]
    found: dict[str, float] = {}
    for source in (run.run_info.get("variation_values"), measured, run.input_config):
        _collect({**source, "phases": None} if source is run.input_config else source, found)
    for phase in measured:
        rate = phase.get("rate")
        if isinstance(rate, int | float):
            found.setdefault("request_rate", float(rate))
    return found


def _warms_up(phase: Mapping[str, Any]) -> bool:
    named = f"{phase.get('kind', '')} {phase.get('name', '')}".lower()
    return "warm" in named or phase.get("exclude_from_results") is True


def _collect(source: Any, found: dict[str, float]) -> None:
    if isinstance(source, list):
        for value in source:
            _collect(value, found)
    elif isinstance(source, Mapping):
        for key, value in source.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                found.setdefault(str(key).rpartition(".")[2], float(value))
            _collect(value, found)


def _cut(
    settings: Mapping[str, float], limit_s: float | None, concurrency: float | None
) -> str | None:
    """What was done to the requests in flight at the end of a timed phase, if they were cut."""
    grace = settings.get("grace_period", settings.get("benchmark_grace_period"))
    if limit_s is None or grace != 0 or concurrency is None or not isfinite(concurrency):
        return None
    return (
        f"the phase ended at {limit_s:g} s without grace, which cut the {concurrency:g} requests "
        f"in flight"
    )
