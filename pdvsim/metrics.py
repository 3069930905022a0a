"""What a run achieved: `RunRecord` -> `Summary`, under the names that serving benchmarks use.

Steady state is measured in a window. It opens with the last warm-up completion and closes with
the run; in an open loop it closes with the last arrival, unless fewer than half of the measured
requests were done by then (an overload: working off the queue is then the load). Without
warm-up the window is the whole run.

- Throughputs count what happened inside the window: a token when it was produced, a prompt when
  its prefill ended, a request when it completed.
- TTFT and E2E latency are Kaplan-Meier estimates. A request in flight at the end is
  right-censored; one that arrived before the window counts from the age at which the window
  found it (delayed entry). A percentile that the data cannot reach is None, with a reason.
- The mean batch is over the passes of rounds (verify, decode, mixed) that end inside the window.
- TPOT is over requests completed inside the window: (last - first token) / (tokens - 1).
- ITL is between tokens, not between chunks: k tokens that one round delivers after a gap g are
  k gaps of g / k. Tokens that come with the first one are gaps of 0, so that the mean ITL of a
  request is its TPOT. Gaps that end inside the window count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pdvsim.core import Request, Stage
from pdvsim.errors import InputError
from pdvsim.quantities import METRICS, OF_SLO, QUANTILES
from pdvsim.records import STAGE_CODE, STAGES, RunRecord
from pdvsim.spans import Spans
from pdvsim.speculation import Speculation
from pdvsim.statistics import Distribution

_ROUNDS = (Stage.DECODE, Stage.MIXED)  # beside an executor's own


@dataclass(frozen=True, slots=True)
class Slo:
    """What a request must keep to count as goodput, milliseconds; None asks for nothing."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2el_ms: float | None = None

    def __post_init__(self) -> None:
        for name in ("ttft_ms", "tpot_ms", "e2el_ms"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"the SLO {name} is {value}; it must be above 0")


@dataclass(frozen=True, eq=False)
class Summary:
    """The metrics of one run.

    Attributes:
        window_s: (start, end) of the steady state.
        metrics: by the names in `METRICS`; None where the run cannot say. Seconds, milliseconds
            (`_ms`), per second (throughputs) or shares of 1.
        acceptance_per_position: share of the rounds that drafted which kept draft i, for i = 0, 1,
            ...; empty without speculation or when the rounds are not known one by one.
        reasons: why a metric is None.
    """

    window_s: tuple[float, float]
    metrics: Mapping[str, float | None]
    acceptance_per_position: tuple[float, ...]
    reasons: Mapping[str, str]

    def __getitem__(self, name: str) -> float | None:
        return self.metrics[name]


class _Times:
    """Request times as arrays in the order of `record.requests`; NaN where not (yet) known."""

    def __init__(self, requests: list[Request]) -> None:
        self.arrival = _array(requests, "arrival_s")
        self.first = _array(requests, "first_token_s")
        self.completed = _array(requests, "completed_s")
        self.left = _array(requests, "left_s")
        self.produced = _array(requests, "produced_tokens")
        self.ids = np.array([request.id for request in requests], dtype=np.int64)


def _array(requests: list[Request], name: str) -> NDArray[np.float64]:
    return np.array([getattr(request, name) for request in requests], dtype=np.float64)


def summarize(record: RunRecord, slo: Slo | None = None, warmup: int | None = None) -> Summary:
    """The metrics of `record`.

    Args:
        warmup: completions to cut; None takes the workload's.
    """
    if warmup is None:
        warmup = record.workload.warmup
    times = _Times(record.requests)
    metrics: dict[str, float | None] = dict.fromkeys(METRICS)
    metrics["completed"] = 0.0
    metrics["in_flight_at_end"] = float(np.isnan(times.left).sum())
    reasons: dict[str, str] = {}
    window = _window(record, times, warmup)
    if window is None:
        done = int((~np.isnan(times.completed)).sum())
        why = f"the run ended in its warm-up, after {done} of more than {warmup} completions"
        reasons.update({name: why for name, value in metrics.items() if value is None})
        return Summary((0.0, record.end_s), metrics, (), reasons)
    last = _last_token(record, times)
    metrics.update(_throughputs(record, times, window))
    metrics["gpu_busy"] = busy_share(record, window)
    metrics["mean_batch"] = _mean_batch(record, window)
    if metrics["mean_batch"] is None:
        reasons["mean_batch"] = "no round ended inside the window"
    _latencies(record, times, last, window, metrics, reasons)
    if slo is None:
        reasons |= dict.fromkeys(OF_SLO, "no SLO was given")
    else:
        _keeping(slo, times, last, window, metrics, reasons)
    per_position = _speculation(record, metrics, reasons)
    return Summary(window, metrics, per_position, reasons)


def _window(record: RunRecord, times: _Times, warmup: int) -> tuple[float, float] | None:
    """Start and end of the steady state; None if the run never left its warm-up."""
    start, end = 0.0, record.end_s
    if warmup:
        completions = np.sort(times.completed[~np.isnan(times.completed)])
        if len(completions) <= warmup:
            return None
        start = float(completions[warmup - 1])
        if record.workload.in_flight is None:
            last = float(times.arrival.max())
            done = int(np.searchsorted(completions, last, side="right")) - warmup
            if 2 * done >= len(times.arrival) - warmup:
                end = last
    return (start, end) if end > start else None


def _inside(when: NDArray[np.float64], window: tuple[float, float]) -> NDArray[np.bool_]:
    start, end = window
    # Half open, as the completion that opens the window belongs to the warm-up.
    opened = when > start if start > 0.0 else when >= start
    return np.asarray(opened & (when <= end))


def _throughputs(
    record: RunRecord, times: _Times, window: tuple[float, float]
) -> dict[str, float | None]:
    seconds = window[1] - window[0]
    _, when, tokens = record.emissions
    output = float(tokens[_inside(when, window)].sum())
    prefilled = record.column("stage") == STAGE_CODE[Stage.PREFILL_VERIFIER]
    prefilled &= _inside(record.column("settled_s"), window)
    prompts = float(record.column("query_tokens")[prefilled].sum()) + _mixed_in(record, window)
    completed = float(_inside(times.completed, window).sum())
    return {
        "request_throughput": completed / seconds,
        "output_throughput": output / seconds,
        "total_token_throughput": (output + prompts) / seconds,
        "completed": completed,
        "duration_s": seconds,
    }


def _mean_batch(record: RunRecord, window: tuple[float, float]) -> float | None:
    """Requests in a pass of rounds."""
    rounds = [STAGE_CODE[s] for s in (record.config.executor.settles_round, *_ROUNDS)]
    passes = np.isin(record.column("stage"), rounds)
    passes &= _inside(record.column("settled_s"), window)
    return float(record.column("batch")[passes].mean()) if passes.any() else None


def _mixed_in(record: RunRecord, window: tuple[float, float]) -> float:
    """Prompt tokens of requests whose prompt ended in a mixed pass inside `window`."""
    stage = np.repeat(record.column("stage"), record.column("batch").astype(np.int64))
    mixed = set(record.member_ids[stage == STAGE_CODE[Stage.MIXED]].tolist())
    if not mixed:
        return 0.0
    ended = [r for r in record.requests if r.id in mixed and r.first_token_s is not None]
    times = np.array([r.first_token_s for r in ended], dtype=np.float64)
    tokens = np.array([r.prompt_tokens for r in ended], dtype=np.float64)
    return float(tokens[_inside(times, window)].sum())


def busy_share(record: RunRecord, window: tuple[float, float]) -> float:
    """Share of `window` in which some stage was on the device.

    A stage counts from its start, or earlier where its device time says so: a synchronous
    executor's kernels already run while the host launches the rest of them.
    """
    end = np.minimum(record.column("ended_s"), window[1])
    start = np.minimum(
        record.column("started_s"), record.column("ended_s") - record.column("device_alone_s")
    )
    start = np.maximum(np.maximum(start, record.column("launched_s")), window[0])
    return Spans(start, end).length_s / (window[1] - window[0])


def _last_token(record: RunRecord, times: _Times) -> NDArray[np.float64]:
    """Time of each request's last token so far, in the order of `times`; NaN without tokens."""
    ids, when, _ = record.emissions
    last = np.full(len(times.ids), np.nan)
    if len(ids) and len(last):
        index = np.searchsorted(ids, times.ids, side="right") - 1
        some = (index >= 0) & (ids[np.maximum(index, 0)] == times.ids)
        last[some] = when[index[some]]
    return last


def _tpot(times: _Times, last: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds per output token after the first; NaN for a request of one token."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(times.produced > 1, (last - times.first) / (times.produced - 1), np.nan)


def _latencies(
    record: RunRecord,
    times: _Times,
    last: NDArray[np.float64],
    window: tuple[float, float],
    metrics: dict[str, float | None],
    reasons: dict[str, str],
) -> None:
    done = _inside(times.completed, window)
    tpot = _tpot(times, last)
    e2el, censored = _duration(record, times, times.completed, window[0])
    metrics["censored"] = float(censored)
    found = {
        "ttft": _duration(record, times, times.first, window[0])[0],
        "tpot": Distribution.of(tpot[done & ~np.isnan(tpot)]),
        "itl": _gaps(record, window),
        "e2el": e2el,
    }
    for name, distribution in found.items():
        values = {
            "mean": distribution.mean(),
            "std": distribution.std(),
            **{stat: distribution.quantile(share) for stat, share in QUANTILES.items()},
        }
        for stat, value in values.items():
            metric = f"{stat}_{name}_ms"
            metrics[metric] = None if value is None else 1e3 * value
            if value is None:
                reasons[metric] = (
                    f"{distribution.tail:.0%} of the requests outlast the longest one seen to end"
                    if distribution.tail
                    else "no request got that far inside the window"
                )


def _duration(
    record: RunRecord, times: _Times, end: NDArray[np.float64], start_s: float
) -> tuple[Distribution, int]:
    """Kaplan-Meier estimate of the time from arrival to `end` as seen from `start_s` to the run's
    end, or to where a request failed, and the number of right-censored observations in it."""
    observed, begin = ~np.isnan(end), times.arrival
    seen_until = np.where(np.isnan(times.left), record.end_s, times.left)
    exits = np.where(observed, end, seen_until) - begin
    entries = np.where(begin >= start_s, -1.0, start_s - begin)
    seen = exits > entries
    exits, observed, entries = exits[seen], observed[seen], entries[seen]
    return Distribution.survival(exits, observed, entries), int((~observed).sum())


def _gaps(record: RunRecord, window: tuple[float, float]) -> Distribution:
    """Inter-token gaps that end inside `window`, weighted by their number."""
    ids, when, tokens = record.emissions
    if not len(ids):
        return Distribution.of(())
    first = np.concatenate(([True], ids[1:] != ids[:-1]))
    elapsed = np.concatenate(([0.0], np.diff(when)))
    gap = np.where(first, 0.0, elapsed / tokens)
    count = np.where(first, tokens - 1, tokens)
    inside = _inside(when, window)
    return Distribution.of(gap[inside], count[inside])


def _keeping(
    slo: Slo,
    times: _Times,
    last: NDArray[np.float64],
    window: tuple[float, float],
    metrics: dict[str, float | None],
    reasons: dict[str, str],
) -> None:
    """Requests per second that completed inside the window and kept `slo`, and their share."""
    done = _inside(times.completed, window)
    kept = done.copy()
    measured = (
        (times.first - times.arrival, slo.ttft_ms),
        (np.nan_to_num(_tpot(times, last)), slo.tpot_ms),
        (times.completed - times.arrival, slo.e2el_ms),
    )
    for seconds, limit_ms in measured:
        if limit_ms is not None:
            kept &= seconds * 1e3 <= limit_ms
    metrics["request_goodput"] = float(kept.sum()) / (window[1] - window[0])
    if done.any():
        metrics["slo_attainment"] = float(kept.sum() / done.sum())
    else:
        reasons["slo_attainment"] = "no request completed inside the window"


def _speculation(
    record: RunRecord, metrics: dict[str, float | None], reasons: dict[str, str]
) -> tuple[float, ...]:
    """Acceptance over the whole run (warm-up does not change it); returns it per position."""
    found = Speculation.of(record.config.executor, record.requests)
    if found is None:
        for name in ("spec_decode_acceptance_rate", "spec_decode_acceptance_length"):
            reasons[name] = "no token was drafted"
        return ()
    metrics["spec_decode_acceptance_rate"] = found.rate
    metrics["spec_decode_acceptance_length"] = found.length
    return found.unconditional


def stage_seconds(record: RunRecord) -> dict[str, dict[str, float]]:
    """Where the time of the stages went, per stage, summed over the run, seconds.

    Keys: `count`; `lock` (wanted to launch), `launch` (host, alone), `gil` (host, beyond alone),
    `device` (launched to ended), `wake` (ended until the lane knew).
    """
    queued, launched, launch_end = (
        record.column(name) for name in ("queued_s", "launched_s", "launch_end_s")
    )
    alone = record.column("launch_alone_s")
    ended, settled = record.column("ended_s"), record.column("settled_s")
    parts = {
        "lock": launched - queued,
        "launch": np.minimum(alone, launch_end - launched),
        "gil": np.maximum(launch_end - launched - alone, 0.0),
        "device": np.maximum(ended - launch_end, 0.0),
        "wake": np.maximum(settled - np.maximum(ended, launch_end), 0.0),
    }
    stage = record.column("stage").astype(np.int64)
    totals = {
        name: np.bincount(stage, seconds, minlength=len(STAGES)) for name, seconds in parts.items()
    }
    counts = np.bincount(stage, minlength=len(STAGES))
    return {
        str(kind): {
            "count": float(counts[i]),
            **{name: float(total[i]) for name, total in totals.items()},
        }
        for i, kind in enumerate(STAGES)
        if counts[i]
    }
