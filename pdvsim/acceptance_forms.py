"""Acceptance as people state it, and what it is per draft position.

| written | meaning |
|---|---|
| `0.7` | a draft is kept with this probability, given that those before it were |
| `0.8,0.7,0.6` | the same for each draft position |
| `unconditional:0.8,0.56,0.34` | the first 1, 2, 3 drafts were all kept: vLLM's per position |
| `rate:0.44` | accepted over drafted tokens: vLLM's acceptance rate |
| `length:2.77` | tokens a round, the bonus token counted: vLLM's acceptance length |
| `real` | the engine compares real tokens |

`44%` is 0.44 everywhere. A rate or a length says one number of all positions; it is taken to be
the same at each. Where requests differ, rounds count alike in a rate: those of a request that
keeps little are more. So tokens a round are the harmonic mean over requests, or the mean over
rounds where each request goes through all levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pdvsim.cell import REAL, check_bounds
from pdvsim.errors import InputError

LEVELS = 64  # quantiles that stand for all requests
_HOW = (
    "write a number from 0 to 1, one for each draft position, as in 0.8,0.7,0.6, "
    "unconditional:0.8,0.56, rate:0.44, length:2.77, or real"
)


@dataclass(frozen=True, slots=True)
class Stated:
    """An acceptance as it was written.

    Attributes:
        form: empty for probabilities per position.
    """

    text: str
    form: str
    numbers: tuple[float, ...]

    @property
    def positions(self) -> int | None:
        """Draft positions that it speaks of; None for any number."""
        if self.form == "unconditional" or len(self.numbers) > 1:
            return len(self.numbers)
        return None

    def per_position(
        self, draft_tokens: int, spread: float = 0.0, lasts: int | None = None
    ) -> tuple[float, ...]:
        """Probability of each draft position, given that those before it were kept.

        Args:
            spread, lasts: between requests, and along them (`Acceptance`).

        Raises:
            InputError: nothing has such a rate or length.
        """
        if self.form == "unconditional":
            return self._conditional()
        if self.form == "rate":
            return self._solved(
                lambda length: (length - 1.0) / draft_tokens, draft_tokens, spread, lasts
            )
        if self.form == "length":
            return self._solved(lambda length: length, draft_tokens, spread, lasts)
        return self.numbers if len(self.numbers) > 1 else self.numbers * draft_tokens

    def _conditional(self) -> tuple[float, ...]:
        found, before = [], 1.0
        for share in self.numbers:
            if share > before:
                raise InputError(
                    f"--acceptance is {self.text!r}; of drafts that were all kept there cannot be "
                    f"more with one further position ({share:g} after {before:g})"
                )
            found.append(share / before if before else 0.0)
            before = share
        return tuple(found)

    def _solved(
        self,
        told: Callable[[float], float],
        draft_tokens: int,
        spread: float,
        lasts: int | None,
    ) -> tuple[float, ...]:
        """The one probability of all positions at which `told` of the length is the number."""
        from math import sqrt

        (wanted,) = self.numbers
        edge = 0.5 - sqrt(max(0.0, 0.25 - spread**2)) + 1e-9 if spread else 0.0
        low, high = edge, 1.0 - edge
        least, most = (
            told(tokens_per_round((p,) * draft_tokens, spread, lasts)) for p in (low, high)
        )
        if not least - 1e-9 <= wanted <= most + 1e-9:
            differing = f" and --acceptance-spread {spread:g}" if spread else ""
            raise InputError(
                f"--acceptance is {self.text!r}; with --draft-tokens {draft_tokens}{differing} it "
                f"must be between {least:.3g} and {most:.3g}"
            )
        for _ in range(50):
            middle = (low + high) / 2.0
            below = told(tokens_per_round((middle,) * draft_tokens, spread, lasts)) < wanted
            low, high = (middle, high) if below else (low, middle)
        return (round((low + high) / 2.0, 9),) * draft_tokens


def stated(text: str) -> Stated | str:
    """Parse `0.7`, `0.8,0.7,0.6`, `unconditional:0.8,0.56`, `rate:44%`, `length:2.77`; `real` is
    itself.

    Raises:
        InputError: something else.
    """
    if text == REAL:
        return REAL
    form, colon, rest = text.rpartition(":")
    form = form.strip()
    try:
        numbers = tuple(_number(part) for part in rest.split(","))
    except ValueError:
        numbers = ()
    known = form in ("unconditional", "rate", "length") if colon else True
    if not known or not numbers or (form in ("rate", "length") and len(numbers) > 1):
        raise InputError(f"--acceptance is {text!r}; {_HOW}")
    if form != "length":
        for number in numbers:
            check_bounds("acceptance", number)
    return Stated(text, form, numbers)


def _number(text: str) -> float:
    text = text.strip()
    return float(text[:-1]) / 100.0 if text.endswith("%") else float(text)


def tokens_per_round(
    per_position: tuple[float, ...], spread: float = 0.0, lasts: int | None = None
) -> float:
    """Tokens that a round yields on average, the bonus token counted, over the rounds of all
    requests; of requests that are long against `lasts`, where they change."""
    if not spread:
        survive, total = 1.0, 1.0
        for probability in per_position:
            survive *= probability
            total += survive
        return total
    import numpy as np

    from pdvsim.acceptance import Acceptance

    quantiles = (np.arange(LEVELS) + 0.5) / LEVELS
    lengths = 1.0 + Acceptance(per_position, spread).levels(quantiles).sum(axis=1)
    mean: Any = lengths.mean() if lasts is not None else 1.0 / (1.0 / lengths).mean()
    return float(mean)
