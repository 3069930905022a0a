"""Draws of machines that are spread evenly instead of at random.

What a prediction is uncertain about is a smooth function of a few dozen drawn numbers. Draws that
cover each of them evenly (Latin hypercube) give the same distribution from fewer runs. Draw i must
also be drawable alone, in any process, so a block of `BLOCK` draws shares one table that depends
on the seed alone: by rows, in which of its `BLOCK` equal strata each draw takes a number. Of each
row the first 2, 4, 8, ... draws lie in as many different halves, quarters, eighths, ..., so that
fewer draws are even too, and more begin the next block.

McKay, Beckman, Conover, "A comparison of three methods for selecting values of input variables",
Technometrics 1979; Qian, "Nested Latin hypercube designs", Biometrika 2009.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 32
ROWS = 96  # numbers that are spread evenly; what a machine needs beyond them is drawn at random
_NORMAL = NormalDist()


class Strata:
    """The numbers of one draw, asked for one after the other, in the same order in every draw.

    Args:
        seed: spawned; the first number of its spawn key is the index of the draw, all else is
            common to the draws that are spread among each other. Without a spawn key there are
            no others, and the numbers are just random.
    """

    def __init__(self, seed: np.random.SeedSequence) -> None:
        self.rng = np.random.default_rng(seed)
        self._rows: Iterator[np.int64] = iter(())
        if seed.spawn_key:
            index, *rest = seed.spawn_key
            block, place = divmod(index, BLOCK)
            self._rows = iter(_table(_hashable(seed.entropy), block, tuple(rest))[:, place])

    def uniform(self) -> float:
        """Between 0 and 1, neither included."""
        jitter = float(self.rng.uniform(1e-9, 1.0 - 1e-9))
        stratum = next(self._rows, None)
        return jitter if stratum is None else (float(stratum) + jitter) / BLOCK

    def normal(self, spread: float = 1.0) -> float:
        """With mean 0 and standard deviation `spread`."""
        return spread * _NORMAL.inv_cdf(self.uniform())

    def below(self, count: int) -> int:
        """A whole number from 0 to `count` - 1."""
        return int(count * self.uniform())


def _hashable(entropy: Any) -> Any:
    return tuple(entropy) if isinstance(entropy, list | np.ndarray) else entropy


@lru_cache(maxsize=64)
def _table(entropy: Any, block: int, rest: tuple[int, ...]) -> NDArray[np.int64]:
    """The strata of a block's draws, shape (ROWS, BLOCK); each row holds each stratum once."""
    rng = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(block, *rest, BLOCK)))
    strata = np.zeros((ROWS, 1), dtype=np.int64)
    while (size := strata.shape[1]) < BLOCK:
        # Every stratum is cut in two: who is there stays in one half, a later draw gets the other.
        half = rng.integers(0, 2, (ROWS, size))
        later = rng.permuted(np.tile(np.arange(size), (ROWS, 1)), axis=1)
        strata = np.hstack(
            (
                2 * strata + np.take_along_axis(half, strata, axis=1),
                2 * later + 1 - np.take_along_axis(half, later, axis=1),
            )
        )
    return strata
