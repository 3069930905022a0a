"""A fitted cost: a sum of physical terms, times what they miss where that was measured."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

Finite = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class Load(NamedTuple):
    """What a cost depends on: a launch as the device runs it, padding included.

    Attributes:
        passes: over the weights, one after the other.
        requests: of a pass.
        rows: new tokens of a pass, all requests together.
        context: cached tokens of all requests together; each pass reads them.
        pairs: of a prompt's tokens and those that they look back at.
        chunk: tokens of the prompts among the rows.
        size: passes of a draft stage, new tokens of a request in a round, rows of a pass with
            prompts: what, beside requests, a correction goes by.
    """

    passes: float
    requests: float
    rows: float
    context: float
    pairs: float
    chunk: float
    size: float


# All are non-negative and never decrease in work; so do sums of them with weights >= 0.
TERMS: dict[str, Callable[[Load], float]] = {
    "fixed": lambda load: 1.0,
    "per_pass": lambda load: load.passes,
    "per_request": lambda load: load.requests,
    "per_pass_request": lambda load: load.passes * load.requests,
    "per_query_token": lambda load: load.passes * load.rows,
    "per_context_token": lambda load: load.passes * load.context,
    "per_mean_context": lambda load: load.passes * load.context / max(1.0, load.requests),
    "per_prompt_pair": lambda load: load.pairs,
    "per_look_back": lambda load: load.pairs / max(1.0, load.chunk),
}
OF_CONTEXT = ("per_context_token", "per_mean_context")
ABOVE = "rows_above_"  # with a number: rows of each pass beyond it, where products leave a roof


def term_value(name: str, load: Load) -> float:
    """The value of a term for a launch."""
    if name.startswith(ABOVE):
        return load.passes * max(0.0, load.rows - float(name.removeprefix(ABOVE)))
    return TERMS[name](load)


def _known(name: str) -> bool:
    if not name.startswith(ABOVE):
        return name in TERMS
    place = name.removeprefix(ABOVE).replace(".", "", 1)
    return place.isascii() and place.isdigit()


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Correction(_Part):
    """What the terms miss: measured / fitted on a grid, linear between in logarithms of both axes,
    constant beyond.

    Attributes:
        requests: of a pass, ascending.
        sizes: see `Load.size`, ascending.
        factors: shape (requests, sizes).
    """

    requests: list[Positive] = Field(min_length=1)
    sizes: list[Positive] = Field(min_length=1)
    factors: list[list[Positive]]

    @model_validator(mode="after")
    def _shapes(self) -> Correction:
        for axis in (self.requests, self.sizes):
            if any(low >= high for low, high in pairwise(axis)):
                raise ValueError(f"an axis of a correction is {axis}; it must ascend")
        if len(self.factors) != len(self.requests) or any(
            len(row) != len(self.sizes) for row in self.factors
        ):
            raise ValueError("factors must be one for each of requests and sizes")
        return self

    def factor(self, load: Load) -> float:
        i, u = _between(self.requests, load.requests)
        j, v = _between(self.sizes, load.size)
        rows = self.factors
        low = rows[i][j] * (1 - v) + rows[i][min(j + 1, len(self.sizes) - 1)] * v
        i = min(i + 1, len(rows) - 1)
        high = rows[i][j] * (1 - v) + rows[i][min(j + 1, len(self.sizes) - 1)] * v
        return low * (1 - u) + high * u


def _between(axis: Sequence[float], at: float) -> tuple[int, float]:
    """(place of the node below, share of the way to the next), in logarithms."""
    i = bisect_right(axis, at) - 1
    if i < 0 or i == len(axis) - 1:
        return max(i, 0), 0.0
    return i, math.log(at / axis[i]) / math.log(axis[i + 1] / axis[i])


class CostFit(_Part):
    """Seconds as a sum of terms with weights >= 0.

    Attributes:
        terms, weights: names from TERMS (or `rows_above_N`) and their weights, seconds per unit.
        draws: bootstrap draws of the weights, shape (draws, terms).
        noise: quantiles of measured / fitted at equal steps of probability, mean about 1.
        outliers: measured launches that the noise leaves out, being many times the fit.
        residual_rms: root mean square of measured / fitted - 1 over the measured points.
        correction: of the sum without context; None for none.
        context_correction: of what context costs.
        left_out_rms: as `residual_rms`, each point predicted by a fit that does not know it; None
            where that was not asked.
        left_out_median: the median of the absolute values of the same.
    """

    terms: list[str] = Field(min_length=1)
    weights: list[Seconds]
    draws: list[list[Seconds]] = Field(min_length=1)
    noise: list[Positive] = Field(min_length=1)
    outliers: int = Field(ge=0)
    residual_rms: Seconds
    correction: Correction | None = None
    context_correction: Correction | None = None
    left_out_rms: Seconds | None = None
    left_out_median: Seconds | None = None

    @model_validator(mode="after")
    def _shapes(self) -> CostFit:
        unknown = [term for term in self.terms if not _known(term)]
        if unknown:
            raise ValueError(f"unknown cost terms {unknown}; known are {[*TERMS, ABOVE + 'N']}")
        if any(len(row) != len(self.terms) for row in [self.weights, *self.draws]):
            raise ValueError(f"every draw needs {len(self.terms)} weights, one per term")
        return self

    @property
    def missed(self) -> float:
        """How far the fit is off at a point that it does not know, where that was tried, else at
        its own."""
        return max(self.residual_rms, self.left_out_rms or 0.0)

    def seconds(self, load: Load) -> float:
        """The fitted cost of one launch."""
        return self.seconds_by(self.weights, load)

    def seconds_by(self, weights: Sequence[float], load: Load) -> float:
        """The cost by other weights than the fitted ones."""
        rest = context = 0.0
        for term, weight in zip(self.terms, weights, strict=True):
            if weight and term in OF_CONTEXT:
                context += weight * term_value(term, load)
            elif weight:
                rest += weight * term_value(term, load)
        if self.correction is not None:
            rest *= self.correction.factor(load)
        if self.context_correction is not None:
            context *= self.context_correction.factor(load)
        return rest + context
