"""Fits recover what generated the data, and keep what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.contention import fit_contention
from calibration.fit import Corrected, Point, estimate, fit_cost
from calibration.stage_fits import gil_speeds, run_spread
from pdvsim.core import Stage
from pdvsim.cost_fit import TERMS, CostFit, Load
from pdvsim.errors import InputError
from pdvsim.profile_file import Range, StageFit
from pdvsim.work import Work

pytest.importorskip("torch")

WORK = Work(4, 2, 1, 0, 0, 8, 0, 0.0)
PHYSICAL = ["fixed", "per_query_token", "per_context_token"]


def points(rng: np.random.Generator, noise: float) -> list[Point]:
    """5 ms fixed, 20 us a new token, 0.1 us a cached token."""
    return [
        Point(
            load,
            (5e-3 + 20e-6 * load.rows + 0.1e-6 * load.context) * np.exp(rng.normal(0, noise, 8)),
        )
        for load in (
            Load(1, batch, 5 * batch, context * batch, 0.0, 0, 5)
            for batch in (1, 2, 4, 8, 16, 32)
            for context in (64, 256, 512)
        )
    ]


def test_known_weights_are_recovered() -> None:
    rng = np.random.default_rng(1)
    fit = fit_cost(points(rng, 0.02), PHYSICAL, rng)
    assert fit.weights == pytest.approx([5e-3, 20e-6, 0.1e-6], rel=0.05)
    low, high = np.quantile(np.array(fit.draws), [0.0, 1.0], axis=0)
    assert (low <= np.array([5e-3, 20e-6, 0.1e-6]) * 1.02).all()
    assert (high >= np.array([5e-3, 20e-6, 0.1e-6]) * 0.98).all()
    assert np.mean(fit.noise) == pytest.approx(1.0, abs=0.02)
    assert fit.left_out_rms is not None and fit.left_out_rms < 0.03


def test_a_correction_says_what_the_terms_miss_and_leaves_context_to_them() -> None:
    """A kernel with steps: half as long again from 16 requests on, at every context."""
    rng = np.random.default_rng(1)
    steps = [
        Point(one.load, one.seconds * (1.5 if one.load.requests >= 16 else 1.0))
        for one in points(rng, 0.002)
    ]
    plain, corrected = (
        fit_cost(steps, PHYSICAL, rng, corrected=each) for each in (None, Corrected.BY_SHAPE)
    )
    assert plain.residual_rms > 0.05 > 0.02 > corrected.residual_rms
    for one in steps:
        assert corrected.seconds(one.load) == pytest.approx(one.median_s, rel=0.05)
    between = corrected.seconds(Load(1, 22, 110, 22 * 64, 0.0, 0, 5))
    assert steps[12].median_s < between < steps[15].median_s


def test_points_that_the_fit_did_not_know_say_how_far_it_is_off() -> None:
    rng = np.random.default_rng(1)
    measured = points(rng, 0.002)
    odd = [Point(measured[7].load, 1.3 * measured[7].seconds)]
    good, bad = (
        fit_cost(each, PHYSICAL, rng, corrected=Corrected.BY_SHAPE)
        for each in (measured, [*measured[:7], *odd, *measured[8:]])
    )
    assert good.left_out_rms is not None and bad.left_out_rms is not None
    assert bad.left_out_rms > 3 * good.left_out_rms
    assert good.left_out_median is not None and good.left_out_median < 0.01


def test_one_interrupted_launch_does_not_become_noise() -> None:
    rng = np.random.default_rng(2)
    data = points(rng, 0.02)
    data[0].seconds[3] *= 100
    fit = fit_cost(data, PHYSICAL, rng)
    assert fit.outliers == 1 and max(fit.noise) < 2.0


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(1e-4, 1.0), min_size=6, max_size=6),
    st.integers(1, 200),
    st.integers(1, 200),
)
def test_a_cost_never_decreases_in_work(seconds: list[float], small: int, more: int) -> None:
    rng = np.random.default_rng(0)
    data = [
        Point(load(b), np.array([s])) for b, s in zip((1, 2, 4, 8, 64, 128), seconds, strict=True)
    ]
    fit = fit_cost(data, [*TERMS, "rows_above_64"], rng)
    assert cost(fit, small) <= cost(fit, small + more) + 1e-12


def cost(fit: CostFit, batch: int) -> float:
    return fit.seconds(load(batch))


def load(batch: int) -> Load:
    return Load(1, batch, 5 * batch, 100 * batch, 7 * batch, 5, 5)


def test_nothing_measured_is_refused() -> None:
    with pytest.raises(InputError, match="nothing was measured"):
        fit_cost([], ["fixed"], np.random.default_rng(0))


def test_what_takes_no_time_is_not_off_by_anything() -> None:
    idle = [Point(load(batch), np.zeros(3)) for batch in (1, 2, 4)]
    fit = fit_cost(idle, PHYSICAL, np.random.default_rng(0), corrected=Corrected.BY_SHAPE)
    assert fit.seconds(load(8)) == 0.0 and fit.residual_rms == 0.0


def test_an_estimate_holds_its_median() -> None:
    found = estimate([1.0, 2.0, 3.0, 4.0, 100.0], np.random.default_rng(0))
    assert found.low <= found.value == 3.0 <= found.high


def test_speeds_under_the_gil_are_ratios_within_a_round() -> None:
    """The machine is twice as fast in the second round; the ratio is the same."""
    rounds = [
        {"alone": [10.0, 20.0], "together": [6.0, 12.0]},
        {"alone": [20.0, 40.0], "together": [12.0, 24.0]},
    ]
    speeds = gil_speeds([rounds], np.random.default_rng(0))
    assert [speed.value for speed in speeds] == pytest.approx([1.0, 0.6])


def test_contention_is_fitted_cost_over_time_taken() -> None:
    """5 launches of 2 requests, padded to 4, of 1 ms a request: 20 ms alone, but they took 40."""
    cost = CostFit(
        terms=["per_request"],
        weights=[1e-3],
        draws=[[1e-3]],
        noise=[1.0],
        outliers=0,
        residual_rms=0,
    )
    measured = Range(batch=(1, 8), passes=(4, 4), new_tokens=(1, 1), context_tokens=(1, 8))
    fit = StageFit(host=cost, device=cost, measured=measured, buckets=[1, 4, 8])
    row = {
        "stage": "draft",
        "other": "verify",
        "beside": 2,
        "draft_tokens": 4,
        "prompt_tokens": 300,
        **WORK._asdict(),
    }
    rows = [row | {"launches": 5, "together_s": 0.04}] * 3
    nothing = row | {"launches": 0, "together_s": 0.0}
    (entry,) = fit_contention([*rows, nothing], {Stage.DRAFT: fit}, np.random.default_rng(0))
    assert (entry.stage, entry.other) == (Stage.DRAFT, Stage.VERIFY)
    assert (entry.rows, entry.prompt_tokens) == (10, 0)
    assert entry.speed.value == pytest.approx(0.5)


def test_the_spread_between_passes_is_relative() -> None:
    passes = [[{"stage": "draft", "launch_s": s, "hidden": False}] * 3 for s in (0.01, 0.0121)]
    assert run_spread(passes) == pytest.approx(np.log(1.21) / np.sqrt(2))
