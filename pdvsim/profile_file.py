"""The document that a calibration writes: fitted costs with their bootstrap draws, the range they
were measured in and where they come from. Unknown keys are refused.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pdvsim.core import Stage
from pdvsim.cost_fit import CostFit, Finite, Load, Positive, Seconds
from pdvsim.drafters import Draft
from pdvsim.floors import Floor, floor_of
from pdvsim.models import ModelShape, Pair
from pdvsim.work import Work, padded

SCHEMA_VERSION: Final = 3


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


class Range(_File):
    """What was measured, both ends included; of a stage in one launch.

    Attributes:
        batch: requests.
        passes: over the weights.
        new_tokens: of one request in a pass: what a prefill takes of a prompt, or a round checks.
        context_tokens: of one request.
        chunk_tokens: of all prompts in a mixed pass together; None where there are none.
    """

    batch: tuple[int, int]
    passes: tuple[int, int]
    new_tokens: tuple[int, int]
    context_tokens: tuple[int, int]
    chunk_tokens: tuple[int, int] | None = None


class StageFit(_File):
    """Costs of one stage.

    Attributes:
        buckets: batch sizes that rounds are padded to (CUDA graphs); empty for no padding.
        token_buckets: numbers of rows that passes with prompts are padded to, likewise.
    """

    host: CostFit
    device: CostFit
    measured: Range
    buckets: list[int] = []
    token_buckets: list[int] = []

    @model_validator(mode="after")
    def _ascending(self) -> StageFit:
        for sizes in (self.buckets, self.token_buckets):
            if any(low >= high for low, high in pairwise([0, *sizes])):
                raise ValueError(f"buckets are {sizes}; they must ascend from 1 on")
        return self

    def load(self, work: Work) -> Load:
        """What the device has to do, padding included."""
        rounds = work.batch - work.prompts
        requests = padded(self.buckets, rounds) if rounds else 0
        rows = requests * work.longest_new_tokens
        if work.prompts:
            rows = max(rows, rounds * work.longest_new_tokens + work.chunk_tokens)
            rows = padded(self.token_buckets, rows)
        return _load(work, requests or work.prompts, rows)

    def host_s(self, work: Work) -> float:
        """The fitted host seconds of one launch."""
        return self.host.seconds(host_load(work))

    def device_s(self, work: Work) -> float:
        """The fitted device seconds of one launch."""
        return self.device.seconds(self.load(work))


def host_load(work: Work) -> Load:
    """What the host has to do: nothing is padded."""
    return _load(work, work.batch, work.new_tokens / max(1, work.passes))


def _load(work: Work, requests: float, rows: float) -> Load:
    size = rows if work.prompts else work.passes * work.longest_new_tokens
    pairs, chunk = work.prompt_pairs, work.chunk_tokens
    return Load(work.passes, requests, rows, work.context_tokens, pairs, chunk, size)


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
        rows: new tokens of one pass of the other stage, or of `stage` where the other is a prefill.
        prompt_tokens: of the prefill; 0 where there is none.
    """

    stage: Stage
    other: Stage
    rows: int = Field(ge=1)
    prompt_tokens: int = Field(ge=0)
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
        gpu_bytes: all of the GPU's memory; null where nobody looked.
    """

    schema_version: Literal[3]
    name: str
    draft: Draft
    verifier: ModelShape
    executor: str
    stages: dict[Stage, StageFit]
    host: HostFit
    contention: list[ContentionFit]
    ceilings: Ceilings | None
    provenance: Provenance
    gpu_bytes: int | None = Field(default=None, ge=1)

    @property
    def pair(self) -> Pair:
        return Pair(self.draft, self.verifier)

    def floor(self, stage: Stage) -> Floor:
        """Least device time of `stage`; nothing where no ceilings were measured."""
        if self.ceilings is None:
            return Floor()
        rates = self.ceilings.copy_bytes_per_s, self.ceilings.matmul_flops_per_s
        return floor_of(stage, self.draft, self.verifier, *rates)

    def seconds(self, stage: Stage, work: Work) -> tuple[float, float]:
        """The fitted (host, device) seconds of a launch, the device's at least its floor. A mixed
        pass without rounds is a prefill."""
        if stage is Stage.MIXED and work.prompts == work.batch:
            stage = Stage.PREFILL_VERIFIER
        fit = self.stages[stage]
        return fit.host_s(work), max(fit.device_s(work), self.floor(stage).seconds(work))
