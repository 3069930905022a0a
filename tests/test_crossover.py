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
from pdvsim.crossover.curve import root
from pdvsim.crossover.space import AXES, DraftTimes, Place, Side
from pdvsim.errors import InputError
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


@pytest.mark.parametrize("chance", [0.0, 0.01, 0.04])
def test_the_interval_of_a_root_holds_the_crossing_of_a_further_machine(chance: float) -> None:
    """Machines cross at 0.43 +- 0.07, whatever the chance of a single run adds."""
    rng = np.random.default_rng(4)
    places = np.linspace(0.0, 1.0, 5)
    held, widths = [], []
    for _ in range(300):
        own = 0.43 + 0.07 * rng.normal(size=33)
        logs = 0.3 * (places - own[:-1, None]) + chance * rng.normal(size=(32, 5))
        pairs = [Pairs(np.ones(32), np.exp(logs[:, i])) for i in range(5)]
        found = root(places.tolist(), pairs, (0.0, 1.0))
        assert found is not None and found.rises
        held.append(found.low <= own[-1] <= found.high)
        widths.append(found.high - found.low)
    assert 0.92 <= np.mean(held) <= 0.99
    assert np.mean(widths) < 1.5 * 2 * 1.96 * 0.07


def test_more_machines_do_not_make_the_interval_of_a_root_narrower() -> None:
    rng = np.random.default_rng(5)
    places = np.linspace(0.0, 1.0, 5)

    def width(machines: int) -> float:
        own = 0.5 + 0.05 * rng.normal(size=(machines, 1))
        heights = np.exp(0.3 * (places - own))
        found = root(
            places.tolist(), [Pairs(np.ones(machines), heights[:, i]) for i in range(5)], (0, 1)
        )
        assert found is not None
        return found.high - found.low

    assert width(1000) == pytest.approx(2 * 1.96 * 0.05, rel=0.1)
    assert width(100) == pytest.approx(width(1000), rel=0.3)


def test_machines_that_never_cross_are_said() -> None:
    """Crossings are spread over 0.9 +- 0.2: a third of them lie beyond 1."""
    rng = np.random.default_rng(6)
    places = np.linspace(0.0, 1.0, 5)
    own = 0.9 + 0.2 * rng.normal(size=(200, 1))
    pairs = [Pairs(np.ones(200), np.exp(0.3 * (places - own))[:, i]) for i in range(5)]
    found = root(places.tolist(), pairs, (0.0, 1.0))
    assert found is not None
    assert found.high == 1.0
    assert found.beyond == pytest.approx(0.31, abs=0.08)
    assert found.before == 0.0 and found.low > 0.3


class Machines:
    """Samples two curves that cross at each machine's own place, with the chance of a run."""

    def __init__(self, at: float, spread: float, chance: float, slope: float = 0.2) -> None:
        self._at, self._spread, self._chance, self._slope = at, spread, chance, slope
        self.asked: Counter[float] = Counter()

    def own(self, machine: int) -> float:
        z = np.random.default_rng([7, machine]).normal()
        return float(self._at * np.exp(self._spread * z))

    def __call__(self, samples: Sequence[tuple[float, int]]) -> list[tuple[float, float] | None]:
        answers: list[tuple[float, float] | None] = []
        for load, machine in samples:
            self.asked[load] += 1
            chance = np.random.default_rng([8, machine, round(1000 * load)]).normal()
            ratio = (load / self.own(machine)) ** self._slope * np.exp(self._chance * chance)
            answers.append((1.0, float(ratio)))
        return answers


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("spread", [0.03, 0.25])
def test_a_search_holds_other_machines(spread: float, whole: bool) -> None:
    loads = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
    sampler = Machines(37.0, spread, 0.01)
    (found,) = compare(loads, sampler, lower_is_better=False, whole=whole).crossings
    own = [sampler.own(machine) for machine in range(10**7, 10**7 + 1000)]
    if whole:
        own = [float(math.ceil(place)) for place in own]
        assert all(end == round(end) for end in (found.value, found.low, found.high))
    held = np.mean([found.low <= place <= found.high for place in own])
    assert 0.88 <= held <= (1.0 if whole else 0.995)  # whole numbers are rounded outwards
    assert found.value == pytest.approx(37.0, rel=0.15)


def test_whole_numbers_are_answered_in_whole_numbers_through_a_saw_tooth() -> None:
    """Second is ahead from 5 on; a parabola would put it a little above 5."""
    heights = {3: 0.8, 4: 0.9, 5: 1.15, 6: 1.03, 7: 1.25, 8: 1.3}

    def sampler(samples: Sequence[tuple[float, int]]) -> list[tuple[float, float]]:
        return [(1.0, heights.get(int(load), 0.7 if load < 4 else 1.4)) for load, _ in samples]

    (found,) = compare((1, 2, 4, 8, 16), sampler, lower_is_better=False).crossings
    assert (found.value, found.low, found.high) == (5.0, 5.0, 5.0)
    assert found.rises


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
