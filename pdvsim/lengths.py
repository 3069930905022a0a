"""How long prompts and outputs are: constant, with a spread, or as in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pdvsim.cell import check_bounds
from pdvsim.cell_values import MOST_TOKENS, Spread, TraceFile, spread_shape

if TYPE_CHECKING:
    from pdvsim.traces import Trace


@cache
def _requests(file: TraceFile) -> Trace:
    from pdvsim.tables import parse_columns
    from pdvsim.traces import read_trace

    columns = None if file.columns is None else parse_columns(file.columns)
    return read_trace(Path(file.path), columns)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Prompt and output lengths.

    Attributes:
        prompt_tokens, output_tokens: means.
        spread: of both (`pdvsim.cell_values.spread_shape`).
        output_spread: of outputs, where it is another.
        prompts: lengths that prompts have in turn, instead.
        drawn_from: requests of a trace, of which each request has the lengths of one at random.
        max_context_tokens: an output is cut to half of this, then its prompt to what is left.
    """

    prompt_tokens: int = 128
    output_tokens: int = 64
    spread: Spread = 0.0
    prompts: Sequence[int] | None = None
    output_spread: Spread | None = None
    drawn_from: TraceFile | None = None
    max_context_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "output_tokens"):
            check_bounds(name, getattr(self, name))
        for spread in (self.spread, self.of_outputs):
            spread_shape("--spread", spread)

    @property
    def of_outputs(self) -> Spread:
        """The spread of outputs."""
        return self.spread if self.output_spread is None else self.output_spread

    @property
    def said(self) -> str:
        """A sentence for notes."""
        if self.drawn_from is not None:
            requests = _requests(self.drawn_from)
            left_out = "".join(f" {note}" for note in requests.notes if "left out" in note)
            return (
                f"Lengths: those of one of the {len(requests)} requests of "
                f"{Path(self.drawn_from.path).name} each, {self.prompt_tokens} and "
                f"{self.output_tokens} tokens on average.{left_out}"
            )
        prompts, outputs = (
            f"{mean} tokens ({_round(spread)})"
            for mean, spread in (
                (self.prompt_tokens, self.spread),
                (self.output_tokens, self.of_outputs),
            )
        )
        return f"Lengths: prompts of {prompts}, outputs of {outputs}."

    def draw(self, count: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        """Prompt and output lengths of `count` requests."""
        prompts, outputs = self._drawn(count, rng)
        if self.prompts is not None:
            prompts = list(islice(cycle(self.prompts), count))
        if self.max_context_tokens is None:
            return prompts, outputs
        return cut(prompts, outputs, self.max_context_tokens)

    def _drawn(self, count: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        if self.drawn_from is not None:
            file = _requests(self.drawn_from)
            chosen = rng.integers(0, len(file), count).tolist()
            return [file.prompt_tokens[i] for i in chosen], [file.output_tokens[i] for i in chosen]
        return (
            _around(self.prompt_tokens, self.spread, count, rng),
            _around(self.output_tokens, self.of_outputs, count, rng),
        )


def _round(spread: Spread) -> str:
    shape, width = spread_shape("--spread", spread)
    if not width:
        return "always"
    return f"+- {100 * width:g} %" if shape == "uniform" else f"log-normal with {width:g}"


def _around(mean: int, spread: Spread, count: int, rng: np.random.Generator) -> list[int]:
    """Whole numbers from 1 on with this mean."""
    shape, width = spread_shape("--spread", spread)
    if shape == "lognormal":
        drawn = rng.lognormal(np.log(mean) - width**2 / 2.0, width, count)
        whole: NDArray[np.float64] = np.clip(np.round(drawn), 1, MOST_TOKENS)
        return [int(n) for n in whole]
    low, high = max(1, round(mean * (1 - width))), max(1, round(mean * (1 + width)))
    return [int(n) for n in rng.integers(low, high + 1, count)]


def cut(
    prompts: Sequence[int], outputs: Sequence[int], most_tokens: int
) -> tuple[list[int], list[int]]:
    """Requests of at most so many tokens: outputs up to half, prompts what is left."""
    short = [min(tokens, most_tokens // 2) for tokens in outputs]
    return [min(p, most_tokens - o) for p, o in zip(prompts, short, strict=True)], short
