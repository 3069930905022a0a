"""Ratios, crossings and valleys: right on known curves, honest about noise, frugal with runs."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from pdvsim import cli
from pdvsim.core import GRAPH, Model, Stage
from pdvsim.crossover import Budget, Pairs, compare
from pdvsim.crossover.contour import contour
from pdvsim.crossover.curve import root, skewed_t
from pdvsim.crossover.space import AXES, DraftTimes, Place, Side
from pdvsim.errors import InputError
from pdvsim.statistics import student
from pdvsim.work import uniform_work
from tests.fakes import FakeModel, cell

LOADS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
Curve = Callable[[float], float]


class Noisy:
    """Samples two curves with noise that a run shares between both sides and between loads."""

    def __init__(self, first: Curve, second: Curve, noise: float, seed: int = 0) -> None:
        self._curves = first, second
        self._noise = noise
        self._seed = seed
        self.asked: Counter[float] = Counter()

    def __call__(self, samples: Sequence[tuple[float, int]]) -> list[tuple[float, float] | None]:
        answers: list[tuple[float, float] | None] = []
        for load, run in samples:
            self.asked[load] += 1
            own = np.random.default_rng([self._seed, run, round(1000 * load)])
            shared = np.random.default_rng([self._seed, run]).normal()
            factors = np.exp(self._noise * (shared + own.normal(size=2)))
            first, second = (
                curve(load) * f for curve, f in zip(self._curves, factors, strict=True)
            )
            answers.append((first, second))
        return answers


def rising(load: float) -> float:
    return load**0.9


def falling_behind(load: float) -> float:
    """Better than `rising` below 10, worse above."""
    return load**0.9 * (10.0 / load) ** 0.2


def test_t_without_skewness_is_students() -> None:
    samples = np.array([[-1.0], [0.0], [1.0], [2.0], [-2.0]]) + 0.5
    expected = 0.5 / math.sqrt(2.5 / 5)
    assert skewed_t(samples) == pytest.approx([expected])
    assert skewed_t(np.full((4, 3), [-1.0, 0.0, 2.0])).tolist() == [-math.inf, 0.0, math.inf]


def test_the_correction_mends_the_coverage_of_skewed_means() -> None:
    """Means of 12 exponential samples: Student's t misses far more than 5 %, on one side."""
    samples = np.random.default_rng(3).exponential(size=(12, 20_000)) - 1.0
    plain = samples.mean(axis=0) / samples.std(axis=0, ddof=1) * math.sqrt(12)
    missed = [float((np.abs(t) > student(0.95, 11)).mean()) for t in (plain, skewed_t(samples))]
    assert missed[0] > 0.08
    assert missed[1] < 0.8 * missed[0]


def test_the_crossing_lies_where_the_curves_cross() -> None:
    result = compare(LOADS, Noisy(rising, falling_behind, 0.01), lower_is_better=False)
    (crossing,) = result.crossings
    assert crossing.low <= 10.0 <= crossing.high
    assert crossing.high - crossing.low < 2.0
    assert not crossing.rises


def test_whole_loads_alone_are_run() -> None:
    sampler = Noisy(rising, falling_behind, 0.01)
    compare(LOADS, sampler, lower_is_better=False, whole=True)
    assert all(load == round(load) for load in sampler.asked)


def test_runs_go_where_the_answer_is_open() -> None:
    sampler = Noisy(rising, falling_behind, 0.05)
    result = compare((1.0, 9.0, 64.0), sampler, lower_is_better=False)
    spent = {point.load: point.runs for point in result.points}
    assert spent == {1.0: 4, 9.0: 16, 64.0: 4}


def test_valleys_are_runs_of_certain_loads() -> None:
    def valley(load: float) -> float:
        return load * (0.8 if 4.0 <= load <= 16.0 else 1.2)

    result = compare(LOADS, Noisy(lambda x: x, valley, 0.01), lower_is_better=False)
    assert [(v.start, v.end) for v in result.valleys if v.worse == 1] == [(4.0, 16.0)]
    assert [(v.start, v.end) for v in result.valleys if v.worse == 0] == [(1.0, 2.0), (32.0, 64.0)]
    assert [crossing.rises for crossing in result.crossings] == [False, True]


def test_worse_is_greater_where_lower_is_better() -> None:
    sampler = Noisy(lambda load: 1.0, lambda load: 1.3, 0.01)
    result = compare(LOADS, sampler, lower_is_better=True)
    assert [(v.worse, v.start, v.end) for v in result.valleys] == [(1, 1.0, 64.0)]
    assert result.crossings == []


def test_the_same_is_never_called_different() -> None:
    claims = 0
    for seed in range(40):
        sampler = Noisy(rising, rising, 0.05, seed)
        result = compare(LOADS, sampler, lower_is_better=False)
        claims += bool(result.valleys) or bool(result.crossings)
    assert claims <= 6  # 5 % of 40 searches expected at most


def test_identical_runs_are_alike_at_once() -> None:
    def sampler(samples: Sequence[tuple[float, int]]) -> list[tuple[float, float]]:
        return [(5.0, 5.0)] * len(samples)

    result = compare(LOADS, sampler, lower_is_better=False)
    assert result.alike == list(LOADS)
    assert all(point.runs == 4 for point in result.points)


def test_what_runs_cannot_say_stays_open() -> None:
    def sampler(samples: Sequence[tuple[float, int]]) -> list[tuple[float, float] | None]:
        return [None if load > 8.0 else (1.0, 2.0) for load, _ in samples]

    result = compare(LOADS, sampler, lower_is_better=False)
    assert result.undecided == [16.0, 32.0, 64.0]
    assert result.valleys[0].end == 8.0


def test_fieller_covers_the_ratio_of_means() -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(1000):
        shared = rng.normal(size=6)
        first = 10.0 + shared + 0.5 * rng.normal(size=6)
        second = 12.0 + shared + 0.5 * rng.normal(size=6)
        ratio = Pairs(first, second).ratio()
        assert ratio.low is not None
        assert ratio.high is not None
        inside += ratio.low <= 1.2 <= ratio.high
    assert 0.93 <= inside / 1000 <= 0.97


@pytest.mark.slow
def test_the_interval_of_a_root_holds_it_95_times_in_100() -> None:
    """Runs whose noise is shared between places, as common random numbers make it."""
    rng = np.random.default_rng(4)
    places = np.linspace(0.0, 1.0, 5)
    truth = 0.43
    inside = 0
    for _ in range(1000):
        shared, own = rng.normal(size=(8, 1)), rng.normal(size=(8, 5))
        second = 1.0 + 0.3 * (places - truth) + 0.02 * shared + 0.02 * own
        pairs = [Pairs(np.ones(8), second[:, i]) for i in range(5)]
        found = root(places.tolist(), pairs, (0.0, 1.0))
        inside += found is not None and found.low <= truth <= found.high
    assert 0.93 <= inside / 1000 <= 0.97


def test_the_contour_follows_the_break_even() -> None:
    """Second / first = value / (0.5 + load / 100): break-even where they are equal."""

    def sampler_at(load: float) -> Noisy:
        return Noisy(lambda _: 1.0, lambda value: value / (0.5 + load / 100.0), 0.01)

    rows = contour((8.0, 32.0), (0.3, 0.5, 0.7, 0.9), sampler_at, logarithmic=False, runs=6)
    for row, truth in zip(rows, (0.58, 0.82), strict=True):
        (even,) = row.break_even
        assert even.low <= truth <= even.high
        assert even.value == pytest.approx(truth, abs=0.03)


PLACE = Place(
    (Side("pd", cell("pd")), Side("pdv@draft_tokens=2", cell(), frozenset({"draft_tokens"})))
)


def test_an_axis_moves_one_thing_of_both_sides() -> None:
    assert AXES["concurrency"].grid(1, 16, 5) == [1.0, 2.0, 4.0, 8.0, 16.0]
    first, second = AXES["acceptance"].place(PLACE, 0.5).sides
    assert first.cell == replace(PLACE.sides[0].cell, acceptance=(0.5,) * 4)
    assert second.cell == replace(PLACE.sides[1].cell, acceptance=(0.5,) * 4)


def test_a_side_keeps_what_was_given_to_it_alone() -> None:
    first, second = AXES["draft-tokens"].place(PLACE, 7.0).sides
    assert (first.cell.draft_tokens, second.cell.draft_tokens) == (7, 4)
    assert first.cell.acceptance == (0.7,) * 7


def test_an_axis_goes_only_where_a_cell_can_be() -> None:
    with pytest.raises(InputError, match="must grow"):
        AXES["rate"].grid(4, 2, 3)
    with pytest.raises(InputError, match="must be finite"):
        AXES["rate"].grid(1, math.inf, 3)
    with pytest.raises(InputError, match="--draft-tokens is 40; it must be between 1 and 16"):
        AXES["draft-tokens"].place(PLACE, 40)


def test_the_model_ratio_slows_the_draft_model_only() -> None:
    assert AXES["model-ratio"].place(PLACE, 3.0) == replace(PLACE, model_ratio=3.0)
    costs = DraftTimes(FakeModel(0.0), 3.0).draw(np.random.SeedSequence(0)).costs
    for stage in Stage:
        factor = 3.0 if stage.model is Model.DRAFT else 1.0
        assert costs.cost(stage, uniform_work(GRAPH, stage, 1, 1, 1)) == pytest.approx(
            (0.001 * factor, 0.002 * factor)
        )


def test_the_command_prints_one_document(
    graph_profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = ["plain", "pdv", "--profile", graph_profile, "--to", "4", "--points", "3"]
    lengths = ["--prompt-tokens", "8", "--output-tokens", "8", "--replications", "4"]
    assert cli.run(["crossover", *sides, *lengths, "--map", "acceptance", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [point["at"] for point in document["points"]] == [1, 2, 4]
    assert {point["answer"] for point in document["points"]} <= {"first", "second", "alike", "open"}
    assert len(document["map"]["rows"]) == 3
    ratio = document["points"][0]["ratio"]
    assert ratio["low"] <= ratio["value"] <= ratio["high"]
    assert math.isclose(
        ratio["value"], document["points"][0]["second"] / document["points"][0]["first"]
    )


def test_a_budget_needs_growing_looks() -> None:
    with pytest.raises(InputError, match="must grow"):
        Budget(looks=(8, 4))


def test_a_certain_difference_too_small_to_matter_is_neither_valley_nor_crossing() -> None:
    def hardly(load: float) -> float:
        return rising(load) * (1.001 if load < 8.0 else 0.999)

    result = compare(LOADS, Noisy(rising, hardly, 0.0), lower_is_better=False)
    assert result.alike == list(LOADS)
    assert not result.crossings and not result.valleys and not result.undecided
