"""Draws that are spread evenly: every number of every prefix, alone and in any order."""

from __future__ import annotations

import numpy as np
import pytest

from pdvsim.strata import BLOCK, ROWS, Strata


def draws(seed: int, indices: range, numbers: int, normal: bool = False) -> np.ndarray:
    found = []
    for index in indices:
        luck = Strata(np.random.SeedSequence(seed, spawn_key=(index, 1)))
        found.append([luck.normal() if normal else luck.uniform() for _ in range(numbers)])
    return np.array(found)


@pytest.mark.parametrize("count", [2, 4, 8, 16, 32, 64])
def test_so_many_draws_lie_in_as_many_strata(count: int) -> None:
    found = draws(3, range(count), 7)
    for block in range(0, count, BLOCK):
        part = found[block : block + BLOCK]
        strata = np.sort((part * len(part)).astype(int), axis=0)
        assert (strata == np.arange(len(part))[:, None]).all()


def test_a_draw_alone_is_the_draw_among_others() -> None:
    together = draws(5, range(40), 3)
    for index in (39, 0, 17):
        assert (draws(5, range(index, index + 1), 3) == together[index]).all()


def test_numbers_of_one_draw_know_nothing_of_each_other() -> None:
    found = np.concatenate([draws(seed, range(BLOCK), 3, normal=True) for seed in range(60)])
    assert np.abs(np.corrcoef(found.T) - np.eye(3)).max() < 0.06
    assert found.std(axis=0) == pytest.approx(1.0, abs=0.03)


def test_a_mean_needs_far_fewer_draws() -> None:
    def spread_of_means(numbers: np.ndarray) -> float:
        return float(np.exp(0.1 * numbers.sum(axis=-1)).mean(axis=-1).std())

    even = np.array([draws(seed, range(16), 4, normal=True) for seed in range(60)])
    plain = np.random.default_rng(1).normal(size=even.shape)
    assert spread_of_means(even) < 0.35 * spread_of_means(plain)


def test_without_a_family_or_beyond_the_rows_numbers_are_random() -> None:
    luck = Strata(np.random.SeedSequence(4))
    assert 0.0 < luck.uniform() < 1.0
    many = draws(1, range(4), ROWS + 5)
    assert ((many > 0.0) & (many < 1.0)).all()
    assert {luck.below(3) for _ in range(50)} == {0, 1, 2}
