"""The document that a calibration writes: fitted costs with their bootstrap draws, the range they
were measured in and where they come from. Unknown keys are refused.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pdvsim.core import Stage
from pdvsim.drafters import Draft
from pdvsim.errors import InputError
from pdvsim.models import ModelShape, Pair, pair

SCHEMA_VERSION: Final = 2

Finite = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]

# Terms that are 0 up to so many query tokens, where a matrix product leaves the memory roof.
HINGES = {f"query_above_{place}": float(place) for place in (64, 128, 256, 512)}


def _above(place: float) -> Callable[[float, float, float], float]:
    return lambda batch, query, context: max(0.0, query - place)


# Terms of a cost, as functions of (batch, query tokens, context tokens) of the whole launch.
# All are non-negative and never decrease in work; so do sums of them with weights >= 0.
TERMS: dict[str, Callable[[float, float, float], float]] = {
    "fixed": lambda batch, query, context: 1.0,
    "per_request": lambda batch, query, context: batch,
    "per_query_token": lambda batch, query, context: query,
    "per_context_token": lambda batch, query, context: context,
    "per_query_pair": lambda batch, query, context: query * query / batch,
    **{name: _above(place) for name, place in HINGES.items()},
}


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Estimate(_File):
    """A measured number with its 95 % interval."""

    value: Finite
    low: Finite
    high: Finite

    @model_validator(mode="after")
    def _ordered(self) -> Estimate:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"{self.value} is outside its own interval {self.low} to {self.high}")
        return self


class CostFit(_File):
    """Seconds as a sum of terms with weights >= 0.

    Attributes:
        terms, weights: names from TERMS and their weights, seconds per unit.
        draws: bootstrap draws of the weights, shape (draws, terms).
        noise: quantiles of measured / fitted at equal steps of probability, mean about 1.
        outliers: measured launches that the noise leaves out, being many times the fit.
        residual_rms: root mean square of measured / fitted - 1 over the measured points.
    """

    terms: list[str] = Field(min_length=1)
    weights: list[Seconds]
    draws: list[list[Seconds]] = Field(min_length=1)
    noise: list[Positive] = Field(min_length=1)
    outliers: int = Field(ge=0)
    residual_rms: Seconds

    @model_validator(mode="after")
    def _shapes(self) -> CostFit:
        unknown = [term for term in self.terms if term not in TERMS]
        if unknown:
            raise ValueError(f"unknown cost terms {unknown}; known are {list(TERMS)}")
        if any(len(row) != len(self.terms) for row in [self.weights, *self.draws]):
            raise ValueError(f"every draw needs {len(self.terms)} weights, one per term")
        return self

    def seconds(self, batch: float, query: float, context: float) -> float:
        """The fitted cost of one launch."""
        values = (TERMS[term](batch, query, context) for term in self.terms)
        return sum(w * v for w, v in zip(self.weights, values, strict=True))


class Range(_File):
    """What was measured, both ends included."""

    batch: tuple[int, int]
    query_tokens: tuple[int, int]
    context_tokens: tuple[int, int]


def padded(buckets: Sequence[int], batch: int, query_tokens: int) -> tuple[int, int]:
    """(batch, query tokens) of a launch, padded to the next of `buckets`, which ascend, if any."""
    i = bisect_left(buckets, batch)
    size = buckets[i] if i < len(buckets) else batch
    return size, query_tokens * size // batch


class StageFit(_File):
    """Costs of one stage.

    Attributes:
        buckets: batch sizes that launches are padded to (CUDA graphs); empty for no padding.
    """

    host: CostFit
    device: CostFit
    measured: Range
    buckets: list[int] = []

    @model_validator(mode="after")
    def _ascending(self) -> StageFit:
        if any(low >= high for low, high in pairwise([0, *self.buckets])):
            raise ValueError(f"buckets are {self.buckets}; they must ascend from 1 on")
        return self

    def device_s(self, batch: int, query_tokens: int, context_tokens: float) -> float:
        """The fitted device seconds of one launch, padding included."""
        size, query_tokens = padded(self.buckets, batch, query_tokens)
        return self.device.seconds(size, query_tokens, context_tokens)


class HostFit(_File):
    """What threads cost, seconds; see `pdvsim.des.HostCosts`.

    Attributes:
        gil_speeds: speed of each of n = 1, 2, ... launching threads.
        run_spread: relative standard deviation of host speed from one run to the next.
    """

    wake_s: Estimate
    lock_wake_s: Estimate
    event_wake_s: Estimate
    poll_overhead_s: Estimate
    gil_speeds: list[Estimate] = Field(min_length=1)
    run_spread: Seconds


class ContentionFit(_File):
    """Speed of `stage` while `other` runs on another stream, relative to alone.

    Attributes:
        batch: of the other stage, or of `stage` where the other is a prefill.
    """

    stage: Stage
    other: Stage
    batch: int = Field(ge=1)
    speed: Estimate


class Ceilings(_File):
    """Rates that no stage can beat, measured on the same machine."""

    copy_bytes_per_s: Positive
    matmul_flops_per_s: Positive


class Measurement(_File):
    """Where measured numbers come from."""

    gpu: str
    driver: str
    torch: str
    transformers: str
    python: str
    host_cpu: str
    git_revision: str
    created: str
    command: str
    seed: int
    acceptance: str


class Provenance(Measurement):
    """Where a profile comes from; `measurements` names the file of what was measured."""

    measurements: str


class ProfileFile(_File):
    """The JSON document.

    Attributes:
        draft, verifier: the shapes that were measured, so that any model's profile can be read.
    """

    schema_version: Literal[2]
    name: str
    draft: Draft
    verifier: ModelShape
    executor: str
    draft_tokens: int = Field(ge=1, le=16)
    stages: dict[Stage, StageFit]
    host: HostFit
    contention: list[ContentionFit]
    ceilings: Ceilings | None
    provenance: Provenance

    @property
    def pair(self) -> Pair:
        return Pair(self.draft, self.verifier)


def upgraded(document: dict[str, Any]) -> dict[str, Any]:
    """A document of any known schema version in the present one. Version 1 named its pair, of
    shapes that ship, where version 2 holds them.

    Raises:
        InputError: another version, or a pair that is not known.
    """
    version = document.get("schema_version")
    if version == SCHEMA_VERSION:
        return document
    if version != 1:
        raise InputError(
            f"schema version {version!r}, but this pdvsim reads versions 1 and {SCHEMA_VERSION}; "
            "calibrate again"
        )
    if not isinstance(document.get("pair"), str):
        raise InputError("its pair is not said")
    models = pair(document["pair"])
    rest = {key: value for key, value in document.items() if key != "pair"}
    shapes = {"draft": asdict(models.draft), "verifier": asdict(models.verifier)}
    return {**rest, **shapes, "schema_version": SCHEMA_VERSION}
