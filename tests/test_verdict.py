"""Who is best, by what, and whether that is certain: decided once, as the protocol asks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pdvsim.documents.cells import Rank, Row
from pdvsim.results import ranked, row
from pdvsim.statistics import Interval, prediction_interval
from pdvsim.sweep import sweep
from pdvsim.verdict import Contender, cell_notes, rank, ranking_metric
from tests.documents import CALIBRATION, made
from tests.fakes import FakeModel, cell

SPEED = "output_throughput"


def contender(label: str, *runs: float) -> Contender:
    return Contender(label, prediction_interval(runs), runs)


def told(contenders: Sequence[Contender], metric: str = SPEED) -> str:
    return rank(contenders, metric, 8, "C = 8").sentence


@pytest.mark.parametrize(
    ("protocol", "slo", "metric"),
    [
        ("closed-loop", False, SPEED),
        ("pdverify", False, "pdverify_tps"),
        # In an open loop throughput is the offered rate, whoever serves it.
        ("poisson", False, "median_e2el_ms"),
        ("trace", False, "median_e2el_ms"),
        ("poisson", True, "request_goodput"),
        ("closed-loop", True, "request_goodput"),
    ],
)
def test_what_ranks_depends_on_what_was_asked(protocol: str, slo: bool, metric: str) -> None:
    assert ranking_metric(protocol, slo) == metric


def test_paired_runs_tell_apart_what_intervals_would_not() -> None:
    # Both vary by as much as they differ, but always together.
    fast, slow = contender("fast", 100, 80, 120, 90), contender("slow", 98, 78, 118, 88)
    found = rank([slow, fast], SPEED, 8, "C = 8")
    assert found.order == ("fast", "slow")
    assert found.first_place == "certain"
    assert found.ties == ()
    assert found.sentence.endswith("2.09 % more than slow, beyond chance.")


def test_a_difference_within_its_interval_is_too_close_to_call() -> None:
    found = rank([contender("a", 100, 90, 95), contender("b", 92, 97, 93)], SPEED, 8, "C = 8")
    assert found.first_place == "open"
    assert found.sentence.endswith("b may be as good: too close to call.")
    (tie,) = found.ties
    assert tie.ratio is not None and tie.ratio.low is not None and tie.ratio.high is not None
    assert tie.ratio.low < 1.0 < tie.ratio.high


@pytest.mark.parametrize("other", [(3, 4, 5), (3.001, 4.001, 5.001)])
def test_what_differs_by_less_than_matters_is_alike(other: tuple[float, ...]) -> None:
    found = rank([contender("a", *other), contender("b", 3, 4, 5)], SPEED, 8, "C = 8")
    assert found.first_place == "alike"
    assert found.ties[0].alike
    assert found.sentence.endswith("b is alike: less than 1 % apart.")


def test_what_differs_between_machines_is_said_as_a_share_of_them() -> None:
    ours = [100.0, 103.0, 96.0, 101.0, 105.0, 99.0, 102.0, 98.0]
    theirs = [98.0, 99.0, 98.0, 97.0, 99.0, 100.0, 98.0, 99.0]

    def found(machines: bool) -> Rank:
        pair = [
            Contender(label, prediction_interval(runs), runs, machines)
            for label, runs in (("a", ours), ("b", theirs))
        ]
        return rank(pair, SPEED, 8, "C = 8")

    assert found(machines=False).ties[0].share is None
    (tie,) = found(machines=True).ties
    assert tie.share is not None and 0.6 < tie.share < 0.9
    shown = f"{100 * tie.share:.0f} % of machines"
    assert found(True).sentence.endswith(f"too close to call (a is better on {shown}).")


def test_more_runs_do_not_make_machines_agree() -> None:
    rng = np.random.default_rng(1)
    for count in (8, 32, 128):
        ours = np.full(count, 100.0)
        theirs = ours * np.exp(rng.normal(-0.01, 0.02, count))
        pair = [
            Contender(label, prediction_interval(runs.tolist()), runs.tolist(), machines=True)
            for label, runs in (("a", ours), ("b", theirs))
        ]
        assert rank(pair, SPEED, 8, "C = 8").first_place == "open"


def test_single_runs_decide_nothing() -> None:
    found = rank([contender("pd", 137), contender("pdv", 100)], SPEED, 8, "C = 8", "delivered")
    assert found.first_place == "unknown"
    assert found.sentence == (
        "At C = 8, pd delivered 137 output tokens/s, 37.0 % more than pdv, from single runs, "
        "which cannot say how certain that is."
    )
    assert "beyond" not in found.sentence


def test_without_single_runs_intervals_are_compared() -> None:
    apart = [Contender("a", Interval(10, 9, 11)), Contender("b", Interval(5, 4, 6))]
    near = [Contender("a", Interval(10, 5, 15)), Contender("b", Interval(9, 8, 10))]
    assert rank(apart, SPEED, 8, "C = 8").first_place == "certain"
    assert rank(near, SPEED, 8, "C = 8").first_place == "open"


def test_less_latency_is_better() -> None:
    pair = [contender("slow", 1000, 1001, 999), contender("fast", 500, 501, 499)]
    assert told(pair, "median_e2el_ms").startswith("At C = 8, fast answers in 0.500 (")
    assert "50.0 % less than slow" in told(pair, "median_e2el_ms")


def test_an_slo_that_nobody_keeps_is_said() -> None:
    pair = [contender("a", 0, 0), contender("b", 0, 0)]
    assert told(pair, "request_goodput") == (
        "At C = 8 no request of any architecture keeps the SLO."
    )


def test_each_load_gets_its_verdict() -> None:
    cells = [cell(name, concurrency=load) for load in (2, 6) for name in ("plain", "pdv")]
    results = sweep(cells, FakeModel(), 3, workers=1)
    rows = [Row(**row(result)) for result in results]
    answer = ranked(results, rows, [], "delivers")
    assert [one.concurrency for one in answer["ranks"]] == [2, 6]
    document = made("predict", **answer, formulas=[], profile=CALIBRATION)
    sentence = document.verdict.sentence
    assert sentence.startswith("At C = 2, ")
    assert "At C = 6, " in sentence


def test_an_open_loop_is_ranked_by_latency_and_under_an_slo_by_goodput() -> None:
    def metric(**changes: float) -> str:
        cells = [
            cell(name, protocol="poisson", rate_per_s=20.0, requests=24, **changes)
            for name in ("plain", "pd")
        ]
        results = sweep(cells, FakeModel(), 2, workers=1)
        (found,) = ranked(results, [Row(**row(one)) for one in results], [], "delivers")["ranks"]
        assert found.better == ("higher" if changes else "lower")
        assert isinstance(found.metric, str)
        return found.metric

    assert metric() == "median_e2el_ms"
    assert metric(slo_ttft_ms=100.0) == "request_goodput"


def test_a_p99_of_few_requests_is_marked() -> None:
    few, many = (
        cell_notes([Row(**row(sweep([cell(requests=count)], FakeModel(), 2, workers=1)[0]))])
        for count in (24, 160)
    )
    assert any(line.startswith("Few requests: a p99") and "pdv 24" in line for line in few)
    assert not any(line.startswith("Few requests") for line in many)
