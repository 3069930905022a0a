"""What no stage can beat: bytes over the copy rate, FLOPs over the matrix rate."""

from __future__ import annotations

from dataclasses import dataclass

from pdvsim.core import PREFILLS, Model, Stage
from pdvsim.drafters import Draft, HeadShape, NoModel, pass_bytes
from pdvsim.model_shape import BYTES_PER_PARAMETER, ModelShape
from pdvsim.work import Work


@dataclass(frozen=True, slots=True)
class Floor:
    """Least device time of a stage: `max(bytes / copy rate, FLOPs / matrix rate)`.

    Attributes:
        pass_s: reading the weights once.
        context_s: reading the keys and values of one cached token, in one pass.
        token_s: multiplying one new token with the weights.
    """

    pass_s: float = 0.0
    context_s: float = 0.0
    token_s: float = 0.0

    def seconds(self, work: Work) -> float:
        read_s = work.passes * (self.pass_s + work.context_tokens * self.context_s)
        return max(read_s, work.new_tokens * self.token_s)


def floor_of(
    stage: Stage, draft: Draft, verifier: ModelShape, copy_bytes_per_s: float, flops_per_s: float
) -> Floor:
    """The floor of `stage`.

    A prompt is charged neither for the head nor for the last layer, which only its last token
    needs, nor for its cache, which it writes and need not read from memory. Nor is a mixed pass,
    but for the cache of its rounds.
    """
    shape = draft if stage.model is Model.DRAFT else verifier
    if isinstance(shape, NoModel):
        return Floor()
    if isinstance(shape, HeadShape):
        kv, flops, moved = shape.kv_bytes_per_token, shape.flops_per_token, pass_bytes(shape)
        return Floor(moved / copy_bytes_per_s, kv / copy_bytes_per_s, flops / flops_per_s)
    kv = 0 if stage in PREFILLS else shape.kv_bytes_per_token
    if stage in PREFILLS or stage is Stage.MIXED:
        parameters = (shape.layers - 1) * shape.layer_parameters
    else:
        parameters = shape.flops_per_token // 2
    moved = parameters * BYTES_PER_PARAMETER
    return Floor(moved / copy_bytes_per_s, kv / copy_bytes_per_s, 2 * parameters / flops_per_s)
