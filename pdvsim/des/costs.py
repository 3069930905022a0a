"""What stages cost: what the simulated world asks, and a mixed pass, composed of its parts."""

from __future__ import annotations

from typing import Protocol

from pdvsim.core import Stage
from pdvsim.work import Work, prompt_part, round_part


class StageCosts(Protocol):
    """What a stage takes when nothing disturbs it; a calibrated profile or a theory test."""

    def cost(self, stage: Stage, work: Work) -> tuple[float, float]:
        """(host seconds to launch, device seconds), both alone."""
        ...


def mixed_cost(costs: StageCosts, check: Stage, work: Work) -> tuple[float, float]:
    """(host seconds, device seconds) of a mixed pass that was never measured: of the round and of
    the chunks, of which one passes over the weights that the other has read.

    That share is what one token of one request takes, whatever the round; the launch is that of
    the longer part.

    Args:
        check: the stage that a pass without chunks is.
    """
    parts = []
    if work.prompts:
        parts.append(costs.cost(Stage.PREFILL_VERIFIER, prompt_part(work)))
    if work.prompts < work.batch:
        parts.append(costs.cost(check, round_part(work)))
    host_s, device_s = (max(each) for each in zip(*parts, strict=True))
    if len(parts) == 2:
        _, weights_s = costs.cost(check, Work(1, 1, 1, 0, 0, 1, 0, 0.0))
        shorter_s = min(device for _, device in parts)
        device_s += max(0.0, shorter_s - weights_s)
    return host_s, device_s
