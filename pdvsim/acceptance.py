"""How many drafted tokens a verifier keeps.

Injected acceptance is a probability per draft position, given that all earlier ones were kept.
Outcomes are drawn before a run starts, so both worlds see the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pdvsim.errors import InputError

_BLOCK = 1 << 20  # draws at a time


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Injected acceptance: `per_position[i]` is P(draft i is kept | drafts before it were)."""

    per_position: tuple[float, ...]

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
        """P(accepted = 0..L), shape (L + 1,)."""
        survive = np.cumprod(np.concatenate(([1.0], self.per_position, [0.0])))
        return np.asarray(survive[:-1] - survive[1:], dtype=np.float64)

    def draw(self, rounds: Sequence[int], rng: np.random.Generator) -> list[bytes]:
        """Accepted drafts of every round, one `bytes` per request of length `rounds[i]`."""
        cumulative = np.cumsum(self.distribution())[:-1]
        data, left = bytearray(), sum(rounds)
        while left:  # in blocks, which take a hundredth of the memory of all at once
            some = rng.random(min(left, _BLOCK))
            data += np.searchsorted(cumulative, some, side="right").astype(np.uint8).tobytes()
            left -= len(some)
        outcomes, start = [], 0
        for count in rounds:
            outcomes.append(bytes(data[start : start + count]))
            start += count
        return outcomes
