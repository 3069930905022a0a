"""Metrics against hand-made records, scipy's estimator and theory."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pdvsim.core import EAGER, GRAPH, Request, Stage, Stream
from pdvsim.errors import InputError, InvariantError
from pdvsim.invariants import check
from pdvsim.metrics import Slo, stage_seconds, summarize
from pdvsim.pdverify.protocol import figures
from pdvsim.quantities import METRICS
from pdvsim.records import STAGE_COLUMNS, Recorder, RunRecord
from pdvsim.statistics import Distribution, prediction_interval, share_above
from pdvsim.workload import Workload
from tests.fakes import config_of

PLAN = Workload("poisson", [], [], [], [])
Round = tuple[float, int]  # (when it ended, tokens)


def record_of(
    rounds: dict[int, list[Round]],
    arrivals: dict[int, float],
    output_tokens: int,
    end_s: float,
    executor: Any = EAGER,
) -> RunRecord:
    """A record with one prefill (0.1 s) and the given decode rounds (0.1 s each) per request."""
    recorder = Recorder(["lane"])
    rows: list[tuple[float, Stage, Request, int]] = []
    requests = []
    for i, arrival in arrivals.items():
        request = Request(i, prompt_tokens=10, output_tokens=output_tokens, arrival_s=arrival)
        request.outcomes = bytes(min(tokens, 4) - 1 for _, tokens in rounds[i])
        requests.append(request)
        rows.append((arrival + 0.1, Stage.PREFILL_VERIFIER, request, 0))
        rows += [(when, executor.settles_round, request, tokens) for when, tokens in rounds[i]]
    for when, stage, request, tokens in sorted(rows, key=lambda row: row[0]):
        if tokens:
            request.rounds += 1
            request.drafted_tokens += 4
            request.accepted_tokens += tokens - 1
            request.emit(tokens, when)
            if request.finished:
                request.completed_s = when
        execution = SimpleNamespace(
            stage=stage,
            stream=Stream.MAIN,
            take=0,
            batch=[request],
            query_tokens=10,
            context_tokens=10,
            queued_s=when - 0.1,
            launched_s=when - 0.1,
            launch_end_s=when - 0.05,
            started_s=when - 0.05,
            ended_s=when,
            launch_alone_s=0.05,
            device_alone_s=0.1,
        )
        recorder.stage(execution, 0, when, [tokens] if tokens else [])
    plan = replace(PLAN, deadline_s=end_s)
    return recorder.finish(
        requests, end_s, {"device": 0.5 * end_s}, config_of("pd", executor), plan, "simulated"
    )


def two_requests() -> RunRecord:
    """Request 0 yields 4 + 4 tokens and completes at 2 s; request 1 yields 4 of 8 by 4 s."""
    rounds = {0: [(1.0, 4), (2.0, 4)], 1: [(3.0, 4)]}
    return record_of(rounds, {0: 0.0, 1: 2.0}, 8, 4.0)


def test_tokens_count_when_produced() -> None:
    summary = summarize(two_requests())
    assert summary["output_throughput"] == 12 / 4
    assert summary["request_throughput"] == 1 / 4
    assert summary["total_token_throughput"] == (12 + 20) / 4
    assert summary["completed"] == 1
    assert summary["in_flight_at_end"] == 1


def test_warm_up_opens_the_window_after_its_last_completion() -> None:
    summary = summarize(
        record_of({0: [(1.0, 4)], 1: [(3.0, 4)]}, {0: 0.0, 1: 1.0}, 4, 3.0), None, 1
    )
    assert summary.window_s == (1.0, 3.0)
    assert summary["output_throughput"] == 4 / 2
    assert summary["median_e2el_ms"] == pytest.approx(2000)


def test_an_open_window_closes_with_the_last_arrival() -> None:
    rounds = {0: [(1.0, 4)], 1: [(3.0, 4)], 2: [(9.0, 4)]}
    summary = summarize(record_of(rounds, {0: 0.0, 1: 1.0, 2: 5.0}, 4, 9.0), warmup=1)
    assert summary.window_s == (1.0, 5.0)
    assert summary["p99_e2el_ms"] == pytest.approx(4000)  # followed beyond the window


def test_a_run_inside_its_warm_up_says_so() -> None:
    summary = summarize(two_requests(), warmup=5)
    assert summary["output_throughput"] is None
    assert "warm-up" in summary.reasons["output_throughput"]


def test_mean_itl_of_a_request_is_its_tpot() -> None:
    summary = summarize(record_of({0: [(1.0, 3), (2.0, 4), (2.5, 1)]}, {0: 0.0}, 8, 3.0))
    assert summary["mean_tpot_ms"] == pytest.approx(1500 / 7)
    assert summary["mean_itl_ms"] == pytest.approx(1500 / 7)
    assert summary["median_itl_ms"] == pytest.approx(250)  # 4 tokens of one round, a gap of 1 s
    assert summary["p99_itl_ms"] == pytest.approx(500)


def test_a_percentile_beyond_the_data_is_none_with_a_reason() -> None:
    summary = summarize(two_requests())
    assert summary["median_e2el_ms"] == pytest.approx(2000)
    assert summary["censored"] == 1
    # Request 1 was still in flight at age 2 s, when request 0 had completed.
    assert summary["p99_e2el_ms"] is None
    assert "50%" in summary.reasons["p99_e2el_ms"]


def test_speculation_counts_the_bonus_token_where_there_is_one() -> None:
    eager = two_requests()
    graph = replace(eager, config=config_of("pd", GRAPH))
    assert summarize(eager)["spec_decode_acceptance_length"] == 4
    assert summarize(graph)["spec_decode_acceptance_length"] == 1 + 9 / 3
    assert summarize(eager)["spec_decode_acceptance_rate"] == 9 / 12
    assert summarize(eager).acceptance_per_position == (1.0, 1.0, 1.0, 0.0)


def test_goodput_counts_what_keeps_the_slo() -> None:
    record = record_of({0: [(1.0, 4)], 1: [(3.0, 4)]}, {0: 0.0, 1: 1.0}, 4, 4.0)
    assert summarize(record, Slo(ttft_ms=1500))["request_goodput"] == 1 / 4
    assert summarize(record, Slo(e2el_ms=3000, tpot_ms=1))["request_goodput"] == 2 / 4
    assert summarize(record, Slo(ttft_ms=1500))["slo_attainment"] == 1 / 2
    assert summarize(record)["request_goodput"] is None
    with pytest.raises(InputError, match="ttft_ms is 0"):
        Slo(ttft_ms=0)


def test_percentiles_between_the_median_and_the_99th() -> None:
    rounds = {i: [(i + 0.001 * (i + 1), 4)] for i in range(100)}
    summary = summarize(record_of(rounds, {i: float(i) for i in range(100)}, 4, 100.0))
    for share in (90, 95, 99):
        assert summary[f"p{share}_e2el_ms"] == pytest.approx(share)
    assert summary["median_e2el_ms"] == pytest.approx(50)


def test_busy_is_the_union_of_what_ran() -> None:
    # Rounds and prefills of 0.1 s each, disjoint; device time begins at the launch.
    assert summarize(two_requests())["gpu_busy"] == pytest.approx(5 * 0.1 / 4)


def test_pdverify_counts_completed_requests_only() -> None:
    assert figures(two_requests()) == {
        "pdverify_tps": 8 / 4,
        "pdverify_latency_ms": 2000.0,
        "pdverify_completed": 1.0,
    }


def test_stage_seconds_add_up_to_the_time_of_the_stages() -> None:
    record = two_requests()
    for stage, parts in stage_seconds(record).items():
        seconds = sum(parts[cause] for cause in parts if cause != "count")
        assert seconds == pytest.approx(0.1 * parts["count"]), stage


def test_an_empty_run_has_no_latencies() -> None:
    summary = summarize(Recorder(["lane"]).finish([], 1.0, {}, config_of("pd"), PLAN, "simulated"))
    assert set(summary.metrics) == set(METRICS)
    assert summary["output_throughput"] == 0
    assert summary["median_ttft_ms"] is None


durations = st.lists(
    st.tuples(st.integers(1, 50).map(float), st.booleans()), min_size=1, max_size=40
).filter(lambda sample: any(observed for _, observed in sample))


@given(durations)
def test_survival_is_scipys_kaplan_meier(sample: list[tuple[float, bool]]) -> None:
    exits, observed = np.array([d for d, _ in sample]), np.array([o for _, o in sample])
    ours = Distribution.survival(exits, observed)
    theirs = stats.ecdf(stats.CensoredData.right_censored(exits, ~observed)).sf
    np.testing.assert_allclose(1 - np.cumsum(ours.mass), theirs.evaluate(ours.points), atol=1e-12)
    assert ours.mass.sum() + ours.tail == pytest.approx(1)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.sampled_from([0.5, 0.9, 0.99]))
def test_quantiles_of_complete_data(values: list[float], share: float) -> None:
    expected = np.quantile(values, share, method="inverted_cdf")
    assert Distribution.of(values).quantile(share) == expected
    assert Distribution.of(values).mean() == pytest.approx(np.mean(values))
    assert Distribution.of(values).std() == pytest.approx(np.std(values), abs=1e-6)


def test_delayed_entry_recovers_the_distribution() -> None:
    rng = np.random.default_rng(1)
    age, entry, horizon = rng.exponential(1.0, 40_000), rng.uniform(-1, 2, 40_000), 3.0
    seen = age > entry
    exits = np.minimum(age, entry + horizon)[seen]
    found = Distribution.survival(exits, (age <= entry + horizon)[seen], entry[seen])
    assert found.quantile(0.5) == pytest.approx(np.log(2), rel=0.03)
    assert found.quantile(0.9) == pytest.approx(np.log(10), rel=0.03)


def test_a_prediction_interval_holds_the_next_run_95_times_in_100() -> None:
    rng = np.random.default_rng(2)
    runs = rng.normal(10.0, 2.0, (4000, 6))
    intervals = [prediction_interval(run[:5].tolist()) for run in runs]
    hits = np.mean([i.low <= run[5] <= i.high for i, run in zip(intervals, runs, strict=True)])
    assert hits == pytest.approx(0.95, abs=0.015)
    assert prediction_interval([1.0]).low is None


def damaged(**changes: Any) -> RunRecord:
    return replace(two_requests(), **changes)


def with_column(record: RunRecord, column: str, row: int, value: float) -> RunRecord:
    rows = record.stage_rows.copy()
    rows[row, STAGE_COLUMNS.index(column)] = value
    return replace(record, stage_rows=rows)


def test_a_sound_record_passes() -> None:
    check(two_requests())


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (damaged(member_tokens=np.array([0, 4, 4, 0, 3], np.int32)), "its members 3"),
        (damaged(busy_s={"device": 9.0}), "busy for 9 s in a run of 4"),
        (damaged(requests=[two_requests().requests[0]] * 2), "listed 2 times"),
        (damaged(requests=two_requests().requests[:1]), "never arrived"),
        (damaged(end_s=1.5), "end of run"),
        (with_column(two_requests(), "tokens", 1, 5.0), "yielded 5"),
        (with_column(two_requests(), "started_s", 1, 0.05), "began a stage"),
        (with_column(two_requests(), "launched_s", 1, 3.0), "launched_s = 3"),
        (with_column(two_requests(), "stage", 1, 1.0), "prefill_verifier 2 times"),
    ],
)
def test_a_damaged_record_is_refused_with_the_numbers(record: RunRecord, message: str) -> None:
    with pytest.raises(InvariantError, match=message):
        check(record)


def test_a_request_that_leaves_early_breaks_littles_law() -> None:
    record = two_requests()
    record.requests[0].arrival_s = 2.5
    record.requests[0].admitted_s = None
    with pytest.raises(InvariantError):
        check(record)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=12), st.integers(0, 3))
def test_any_sound_record_passes(tokens: list[int], cut: int) -> None:
    rounds = [(0.5 + 0.5 * i, n) for i, n in enumerate(tokens)][: len(tokens) - cut]
    record = record_of({0: rounds}, {0: 0.0}, sum(tokens), 0.5 * len(tokens) + 1)
    check(record)
    assert summarize(record)["censored"] == (0 if sum(n for _, n in rounds) == sum(tokens) else 1)


def test_an_interval_of_a_wait_stays_above_zero_and_holds_the_next_wait() -> None:
    rng = np.random.default_rng(4)
    runs = rng.lognormal(0.0, 1.2, (4000, 9))
    intervals = [prediction_interval(run[:8].tolist(), least=0.0) for run in runs]
    assert all(0.0 < i.low <= i.value <= i.high for i in intervals)
    hits = np.mean([i.low <= run[8] <= i.high for i, run in zip(intervals, runs, strict=True)])
    assert hits == pytest.approx(0.95, abs=0.015)
    # Where some run had none, there is no logarithm.
    assert prediction_interval([0.0, 1.0, 2.0], least=0.0).low == 0.0


def test_the_share_of_further_runs_above_zero_is_what_a_prediction_interval_says() -> None:
    samples = np.array([0.4, 1.0, 1.9, 2.5, -0.2])
    share = float(share_above(samples))
    found = prediction_interval(samples.tolist(), level=2.0 * share - 1.0)
    assert found.low == pytest.approx(0.0, abs=1e-9)
    assert share_above(-samples) == pytest.approx(1.0 - share)
    assert [float(share_above(np.full(3, x))) for x in (-1.0, 0.0, 1.0)] == [0.0, 0.5, 1.0]
