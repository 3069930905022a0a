"""How far stages on two streams slow each other down, as measured at some sizes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

from pdvsim.core import PREFILLS, Stage

Launch: TypeAlias = tuple[Stage, int, int]  # (stage, batch, new tokens), as records have them
# (rows of the round's pass, tokens of the prompts, speed); 0 tokens where no prompt takes part.
SpeedPoint: TypeAlias = tuple[int, int, float]


class Speeds:
    """Speed of a stage while another one runs beside it, relative to alone.

    It goes by the new tokens of one pass of the round, and of the prompts that are prefilled.
    Linear in the logarithms of both between what was measured, constant beyond.
    """

    def __init__(self, points: Iterable[SpeedPoint]) -> None:
        by_prompt: dict[int, list[tuple[int, float]]] = {}
        for rows, tokens, speed in sorted(points):
            by_prompt.setdefault(tokens, []).append((rows, speed))
        self._by_prompt = sorted(by_prompt.items())
        self._known: dict[tuple[int, int], float] = {}

    @classmethod
    def constant(cls, speed: float) -> Speeds:
        """The same at every size."""
        return cls([(1, 0, speed)])

    def at(self, rows: int, prompt_tokens: int) -> float:
        key = rows, prompt_tokens
        if (speed := self._known.get(key)) is None:
            curve = [(tokens, _between(points, rows)) for tokens, points in self._by_prompt]
            speed = self._known[key] = _between(curve, prompt_tokens)
        return speed


Contention: TypeAlias = Mapping[tuple[Stage, Stage], Speeds]


def sizes_of(one: Launch, other: Launch) -> tuple[int, int]:
    """(rows, tokens of prompts) that say how much `other` slows `one`: the other's, or the
    round's own where the other is a prefill."""
    if other[0] in PREFILLS:
        return _rows(*one), other[2]
    return _rows(*other), one[2] if one[0] in PREFILLS else 0


def _rows(stage: Stage, batch: int, new_tokens: int) -> int:
    return batch if stage is Stage.DRAFT else new_tokens


def _between(points: Sequence[tuple[int, float]], at: int) -> float:
    if at <= points[0][0]:
        return points[0][1]
    for (low, low_value), (high, high_value) in pairwise(points):
        if at <= high:
            share = math.log(at / max(low, 1)) / math.log(high / max(low, 1))
            return low_value + share * (high_value - low_value)
    return points[-1][1]
