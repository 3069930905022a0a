"""Injected acceptance against its formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdvsim.acceptance import Acceptance
from pdvsim.errors import InputError

probabilities = st.floats(0.0, 1.0)


@given(st.floats(0.0, 0.99), st.integers(1, 8))
def test_mean_accepted_is_leviathans(probability: float, drafts: int) -> None:
    expected = (1 - probability ** (drafts + 1)) / (1 - probability)
    distribution = Acceptance.constant(probability, drafts).distribution()
    assert 1 + distribution @ np.arange(drafts + 1) == pytest.approx(expected)


@given(st.lists(probabilities, min_size=1, max_size=8))
def test_the_distribution_is_one(per_position: list[float]) -> None:
    distribution = Acceptance(tuple(per_position)).distribution()
    assert distribution.shape == (len(per_position) + 1,)
    assert distribution.sum() == pytest.approx(1)
    assert (distribution >= 0).all()


def test_draws_follow_the_distribution() -> None:
    acceptance = Acceptance((0.9, 0.5, 0.7))
    flat = np.frombuffer(
        b"".join(acceptance.draw([100] * 1000, np.random.default_rng(0))), np.uint8
    )
    observed = np.bincount(flat, minlength=4) / len(flat)
    np.testing.assert_allclose(observed, acceptance.distribution(), atol=0.01)


@pytest.mark.parametrize(("probability", "accepted"), [(0.0, 0), (1.0, 4)])
def test_certain_outcomes(probability: float, accepted: int) -> None:
    rounds = Acceptance.constant(probability, 4).draw([3, 2], np.random.default_rng(0))
    assert [list(outcome) for outcome in rounds] == [[accepted] * 3, [accepted] * 2]


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_a_probability_is_between_0_and_1(probability: float) -> None:
    with pytest.raises(InputError, match="acceptance is"):
        Acceptance.constant(probability, 4)
