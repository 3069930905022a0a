"""Grids of runs: reproducible, paired by seed, with intervals for one run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pdvsim.api import closed_loop
from pdvsim.cell import TraceFile, Value, Values
from pdvsim.errors import InputError
from pdvsim.profile import Profile
from pdvsim.quantities import METRICS
from pdvsim.results import row
from pdvsim.sweep import replications_for, sweep
from tests.fakes import FakeModel, cell, profile_file

FAKE = FakeModel()


def test_the_result_does_not_depend_on_the_number_of_processes() -> None:
    cells = [cell("pd", seed=5), cell("pdv", seed=5), cell("plain", "graph", seed=5)]
    found = [[row(result) for result in sweep(cells, FAKE, 3, workers)] for workers in (1, 2)]
    assert found[0] == found[1]


def test_evenly_spread_machines_do_not_depend_on_the_number_of_processes() -> None:
    profile = Profile(profile_file(executor="graph"))
    cells = [cell("pd", "graph", seed=5), cell("plain", "graph", seed=5)]
    found = [[row(result) for result in sweep(cells, profile, 5, workers)] for workers in (1, 2)]
    assert found[0] == found[1]


def test_seeds_matter_and_replications_differ() -> None:
    a, b = (sweep([cell(seed=seed)], FAKE, 2, workers=1)[0] for seed in (1, 2))
    assert a.metrics["output_throughput"] != b.metrics["output_throughput"]
    assert a.runs[0].metrics != a.runs[1].metrics


def test_cells_are_paired_by_common_random_numbers() -> None:
    first, second = sweep([cell(seed=3), cell(seed=3)], FAKE, 2, workers=1)
    assert row(first) == row(second)


def test_a_metric_carries_the_prediction_interval_of_its_runs() -> None:
    result = sweep([cell(seed=3, slo_ttft_ms=1e9)], FAKE, 5, workers=1)[0]
    runs = np.array([run.metrics["output_throughput"] for run in result.runs], dtype=float)
    interval = result.metrics["output_throughput"]
    assert interval is not None
    half = 2.776445 * np.log(runs).std(ddof=1) * np.sqrt(1 + 1 / 5)
    assert interval.value == pytest.approx(runs.mean())
    assert interval.high == pytest.approx(np.exp(np.log(runs).mean() + half), rel=1e-6)
    assert set(METRICS) == set(result.metrics)
    goodput, throughput = (
        result.metrics[name] for name in ("request_goodput", "request_throughput")
    )
    assert goodput == throughput
    busy = result.metrics["gpu_busy"]
    assert busy is not None
    assert busy.high is not None
    assert busy.high <= 1.0


def test_uncertain_parameters_widen_the_interval() -> None:
    def width(spread: float) -> float:
        interval = sweep([cell(seed=3)], FakeModel(spread), 6, workers=1)[0].metrics["mean_tpot_ms"]
        assert interval is not None
        assert interval.low is not None
        assert interval.high is not None
        return interval.high - interval.low

    assert width(0.2) > 2 * width(0.0)


def test_extrapolations_are_told_once() -> None:
    result = sweep([cell("plain", "graph", concurrency=12)], FAKE, 3, workers=1)[0]
    assert len(result.extrapolated) == 1
    assert "outside the measured 1 to 8" in result.extrapolated[0]
    assert sweep([cell()], FAKE, 1, workers=1)[0].extrapolated == []


def test_one_replication_has_no_interval() -> None:
    interval = sweep([cell()], FAKE, 1, workers=1)[0].metrics["output_throughput"]
    assert interval is not None
    assert (interval.low, interval.high) == (None, None)


def test_what_no_run_can_say_is_none_with_a_reason() -> None:
    result = sweep([cell("plain")], FAKE, 2, workers=1)[0]
    assert result.metrics["spec_decode_acceptance_rate"] is None
    assert result.reasons["spec_decode_acceptance_rate"] == "no token was drafted"
    assert result.acceptance_per_position == []


def test_every_protocol_runs(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    rows = [f"2023-11-16 18:15:{i:02d}.5000000,{10 + i},{5 + i}" for i in range(20)]
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows) + "\n")
    cells = [
        cell(protocol="pdverify"),
        cell(protocol="poisson", rate_per_s=5.0),
        cell(protocol="trace", trace=TraceFile.of(path)),
    ]
    for result in sweep(cells, FAKE, 1, workers=1):
        throughput = result.metrics["output_throughput"]
        assert throughput is not None
        assert throughput.value > 0
    assert "pdverify_tps" in sweep(cells[:1], FAKE, 1, workers=1)[0].metrics


def test_the_timeline_holds_stages_after_the_warm_up() -> None:
    spans = sweep([cell("three_lane")], FAKE, 1, workers=1)[0].timeline
    assert spans
    assert all(span["launched_s"] <= span["settled_s"] for span in spans)
    assert {span["lane"] for span in spans} <= {"prefill", "decode", "verify"}


def test_results_are_called_by_what_differs() -> None:
    parameters: list[dict[str, Value]] = [{}, {"prefill_batch": 4}, {"prefill_batch": 8}]
    cells = [cell("pd", parameters=Values(own)) for own in parameters]
    names = [result.label for result in sweep(cells, FAKE, 1, workers=1)]
    assert names == ["pd", "pd@prefill_batch=4", "pd@prefill_batch=8"]


def test_bad_sweeps() -> None:
    with pytest.raises(InputError, match="--replications is 0"):
        sweep([cell()], FAKE, 0)
    with pytest.raises(InputError, match="unknown architecture 'nope'"):
        sweep([cell("nope")], FAKE, 1)


def test_a_prediction_has_as_many_runs_as_its_executor_needs() -> None:
    small, large = (replications_for([cell("pd", "graph", concurrency=c)]) for c in (8, 256))
    assert small > large > replications_for([cell("pd", "eager")]) >= 5


def test_runs_of_hundreds_of_requests_are_a_cycle_long_unless_asked_otherwise() -> None:
    profile = Profile(profile_file(executor="graph"))

    def cycles(**given: int) -> list[int]:
        asked = closed_loop([32, 256], **given).asked("pd,baseline")
        return [one.cycles for one in asked.predicted(profile)]

    assert cycles() == [2, 2, 1, 1]
    assert cycles(cycles=2) == [2, 2, 2, 2]
    assert cycles(cycles=5) == [5, 5, 5, 5]
