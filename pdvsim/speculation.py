"""What the rounds of a run drafted and kept: acceptance by position, and request by request.

Three ways to say it, over the same counts. *Conditional*: of the rounds that drafted position i and
kept all before it, the share that kept it too; what `--acceptance` takes. *Unconditional*: of the
rounds that drafted anything, the share that kept position i, as vLLM prints per position; it never
rises. And accepted over drafted. A round that drafted nothing, as a look-up of n-grams does that
finds nothing, yields its one token and counts for none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pdvsim.core import Executor, Request

Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Speculation:
    """Rounds of requests, end to end in the order of the requests.

    Attributes:
        executor: says what a round yields.
        kept, drafted: shape (rounds,).
        rounds: of each request.
    """

    executor: Executor
    kept: Counts
    drafted: Counts
    rounds: Counts

    @classmethod
    def of(cls, executor: Executor, requests: Sequence[Request]) -> Speculation | None:
        """None where nothing was drafted, or rounds are not known one by one."""
        rounds = np.array([request.rounds for request in requests], dtype=np.int64)
        made = sum([request.drafted_tokens for request in requests])
        kept = _joined([request.accepted_per_round for request in requests])
        if not made or len(kept) != rounds.sum():
            return None
        if any(request.checked for request in requests):
            drafted = _joined([request.drafted_per_round for request in requests])
        else:  # in a run of injected outcomes rounds are alike, and there are many
            drafted = np.full(len(kept), round(made / len(kept)))
        return cls(executor, np.minimum(kept, drafted), drafted, rounds)

    @cached_property
    def drafting(self) -> int:
        """Rounds that drafted something."""
        return int(np.count_nonzero(self.drafted))

    @property
    def rate(self) -> float:
        """Accepted over drafted."""
        return float(self.kept.sum() / self.drafted.sum())

    @property
    def length(self) -> float:
        """Mean accepted length: what a round that drafted something yields, the verifier's own
        token included (vLLM's acceptance length)."""
        return float(self._yields[self.drafted > 0].mean())

    @property
    def tokens_per_round(self) -> float:
        """The same over all rounds."""
        return float(self._yields.mean())

    @cached_property
    def _yields(self) -> Counts:
        """Tokens of each round, before any is cut at the end of the output."""
        if self.executor.bonus_token:
            return self.kept + 1
        return np.where(self.kept < self.drafted, self.kept + 1, np.maximum(self.drafted, 1))

    @property
    def positions(self) -> range:
        return range(int(self.drafted.max()))

    @property
    def unconditional(self) -> tuple[float, ...]:
        """Of the rounds that drafted, the share that kept each position."""
        return tuple(float((self.kept > i).sum() / self.drafting) for i in self.positions)

    @property
    def conditional(self) -> tuple[float | None, ...]:
        """P(position i is kept | it was drafted, and those before it were kept); None where that
        never came to pass."""
        found: list[float | None] = []
        for i in self.positions:
            asked = (self.drafted > i) & (self.kept >= i)
            found.append(float((self.kept > i)[asked].mean()) if asked.any() else None)
        return tuple(found)

    def of_requests(self, values: Counts) -> Counts:
        """Sums over the rounds of each request."""
        ends = np.cumsum(self.rounds)
        sums = np.concatenate(([0], np.cumsum(values)))
        return np.asarray(sums[ends] - sums[ends - self.rounds])


def independent_std(found: Speculation, chosen: NDArray[np.bool_]) -> float:
    """How far acceptance rates of the chosen requests would scatter if all their rounds were drawn
    alike: the deviation of what a round keeps beyond the overall rate, over the request's rounds.
    """
    beyond = found.kept - found.rate * found.drafted
    variance = float(np.var(beyond[found.drafted > 0]))
    drafting = found.of_requests((found.drafted > 0).astype(np.int64))[chosen]
    drafted = found.of_requests(found.drafted)[chosen]
    return float(np.sqrt(np.mean(variance * drafting / drafted**2)))


def _joined(rounds: Sequence[Sequence[int]]) -> Counts:
    """At most 255 drafts a round: bytes are quick."""
    return np.frombuffer(b"".join(map(bytes, rounds)), dtype=np.uint8).astype(np.int64)
