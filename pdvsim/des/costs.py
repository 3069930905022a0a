"""What stages cost: what the simulated world asks, and a mixed pass, composed of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pdvsim.core import DraftTokens, Executor, Request, Stage, query_tokens


class StageCosts(Protocol):
    """What a stage takes when nothing disturbs it; a calibrated profile or a theory test."""

    def cost(
        self, stage: Stage, batch: int, query_tokens: int, context_tokens: int
    ) -> tuple[float, float]:
        """(host seconds to launch, device seconds), both alone."""
        ...


def mixed_cost(
    costs: StageCosts, executor: Executor, batch: Sequence[Request], draft_tokens: DraftTokens
) -> tuple[float, float]:
    """(host seconds, device seconds) of a mixed pass: of the round and of the chunks, of which one
    passes over the weights that the other has read.

    That share is what one token of one request takes, whatever the round; the launch is that of
    the longer part. What a chunk's tokens look up in earlier chunks is left out, as in every fit of
    prefill, which knows whole prompts.
    """
    check = executor.settles_round
    prompts = [request for request in batch if request.chunk_tokens]
    parts = [(Stage.PREFILL_VERIFIER, prompts, draft_tokens)]
    if len(prompts) < len(batch):
        chosen = [i for i, request in enumerate(batch) if not request.chunk_tokens]
        each = draft_tokens
        if not isinstance(each, int):
            each = [each[i] for i in chosen]
        parts.append((check, [batch[i] for i in chosen], each))
    seconds = [_alone(costs, executor, *part) for part in parts if part[1]]
    host_s, device_s = (max(each) for each in zip(*seconds, strict=True))
    if len(seconds) == 2:
        _, weights_s = costs.cost(check, 1, 1, 0)
        shorter_s = min(device for _, device in seconds)
        device_s += max(0.0, shorter_s - weights_s)
    return host_s, device_s


def _alone(
    costs: StageCosts,
    executor: Executor,
    stage: Stage,
    batch: Sequence[Request],
    draft_tokens: DraftTokens,
) -> tuple[float, float]:
    new = query_tokens(executor, stage, batch, draft_tokens)
    return costs.cost(stage, len(batch), new, sum([each.context_tokens for each in batch]))
