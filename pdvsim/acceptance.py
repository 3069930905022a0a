"""How many drafted tokens a verifier keeps.

Injected acceptance is a probability per draft position, given that all earlier ones were kept; it
may differ between requests and along each. Or it is replayed from measured rounds. Outcomes are
drawn before a run starts, so both worlds see the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pdvsim.errors import InputError

_BLOCK = 1 << 20  # draws at a time


class Outcomes(Protocol):
    """Where accepted drafts come from."""

    def draw(self, rounds: Sequence[int], rng: np.random.Generator) -> list[bytes]:
        """Accepted drafts of every round, one `bytes` per request of length `rounds[i]`."""
        ...


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Injected acceptance: `per_position[i]` is P(draft i is kept | drafts before it were).

    Attributes:
        per_position: the mean over requests, where it differs between them.
        spread: standard deviation between requests: Beta distributions, all positions of a
            request at the same quantile. Positions with a mean of 0 or 1 do not vary.
        lasts: rounds after which a request goes over to another quantile, on average (geometric);
            None: it keeps one.
    """

    per_position: tuple[float, ...]
    spread: float = 0.0
    lasts: int | None = None

    def __post_init__(self) -> None:
        for probability in self.per_position:
            if not 0.0 <= probability <= 1.0:
                raise InputError(f"--acceptance is {probability}; it must be between 0 and 1")

    @classmethod
    def constant(cls, probability: float, draft_tokens: int) -> Acceptance:
        return cls((probability,) * draft_tokens)

    @property
    def draft_tokens(self) -> int:
        return len(self.per_position)

    def distribution(self) -> NDArray[np.float64]:
        """P(accepted = 0..L), shape (L + 1,), of a request at the mean."""
        survive = np.cumprod(np.concatenate(([1.0], self.per_position, [0.0])))
        return np.asarray(survive[:-1] - survive[1:], dtype=np.float64)

    def levels(self, quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
        """P(kept 1..i) of requests at these quantiles, shape (n, L)."""
        from scipy.special import betaincinv

        kept = np.empty((len(quantiles), self.draft_tokens))
        for i, mean in enumerate(self.per_position):
            if i and mean == self.per_position[i - 1]:
                kept[:, i] = kept[:, i - 1]
            elif self.spread and 0.0 < mean < 1.0:
                weight = mean * (1.0 - mean) / self.spread**2 - 1.0
                kept[:, i] = betaincinv(mean * weight, (1.0 - mean) * weight, quantiles)
            else:
                kept[:, i] = mean
        return np.asarray(np.cumprod(kept, axis=1), dtype=np.float64)

    def draw(self, rounds: Sequence[int], rng: np.random.Generator) -> list[bytes]:
        """As `Outcomes`."""
        if self.spread:
            return self._varied(rounds, rng)
        cumulative = np.cumsum(self.distribution())[:-1]
        data, left = bytearray(), sum(rounds)
        while left:  # in blocks, which take a hundredth of the memory of all at once
            some = rng.random(min(left, _BLOCK))
            data += np.searchsorted(cumulative, some, side="right").astype(np.uint8).tobytes()
            left -= len(some)
        return _parted(data, rounds)

    def _varied(self, rounds: Sequence[int], rng: np.random.Generator) -> list[bytes]:
        of_levels, of_changes, of_rounds = rng.spawn(3)
        outcomes: list[bytes] = []
        for some in _blocks(rounds):
            starts = np.zeros(sum(some), dtype=bool)
            starts[np.cumsum([0, *some])[:-1][np.array(some) > 0]] = True
            if self.lasts is not None:
                starts |= of_changes.random(len(starts)) < 1.0 / self.lasts
            levels = self.levels(of_levels.random(int(starts.sum())))
            survive = levels[np.cumsum(starts) - 1]
            kept = (of_rounds.random(len(starts))[:, None] < survive).sum(axis=1)
            outcomes += _parted(kept.astype(np.uint8).tobytes(), some)
        return outcomes


@dataclass(frozen=True, slots=True)
class Replayed:
    """Acceptance as it was measured: each request has the rounds of one at random, over again
    where it has more of them.

    Attributes:
        rounds: accepted drafts of each round, of each measured request.
        draft_tokens: no more are kept of a round, as of shorter drafts.
    """

    rounds: tuple[bytes, ...]
    draft_tokens: int

    def draw(self, rounds: Sequence[int], rng: np.random.Generator) -> list[bytes]:
        """As `Outcomes`."""
        most = bytes(min(kept, self.draft_tokens) for kept in range(256))
        chosen = rng.integers(0, len(self.rounds), len(rounds)).tolist()
        found = []
        for i, count in zip(chosen, rounds, strict=True):
            measured = self.rounds[i]
            over = -(-count // len(measured))
            found.append((measured * over)[:count].translate(most))
        return found


def _blocks(rounds: Sequence[int]) -> Iterator[list[int]]:
    """Requests with about `_BLOCK` rounds at a time."""
    some: list[int] = []
    total = 0
    for count in rounds:
        some.append(count)
        total += count
        if total >= _BLOCK:
            yield some
            some, total = [], 0
    if some:
        yield some


def _parted(data: bytes | bytearray, rounds: Sequence[int]) -> list[bytes]:
    outcomes, start = [], 0
    for count in rounds:
        outcomes.append(bytes(data[start : start + count]))
        start += count
    return outcomes
