"""How many pages fit: what is free, less what the stages need for their activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pdvsim.errors import CapacityError
from pdvsim.models import BYTES_PER_PARAMETER, ModelShape
from realengine.graph.config import GraphConfig
from realengine.graph.drafters import Draft, cached_shapes
from realengine.graph.eagle3 import Head
from realengine.graph.model import Weights
from realengine.graph.ngram import Ngram


@dataclass(frozen=True, slots=True)
class MemoryDemand:
    """What an engine asks of memory beside its weights.

    Attributes:
        graph_bytes: kept free for CUDA graphs, with kernels and cuBLAS workspaces.
        states: of the verifier that a drafter is shown for each token.
        cache_tokens: wanted; None takes what `requests x context_tokens` needs, or what fits.
        element_bytes: of weights, activations and cache.
        text_bytes: of a drafter that keeps the requests' texts.
    """

    models: Sequence[ModelShape]
    requests: int
    context_tokens: int
    cache_tokens: int | None
    page_tokens: int
    chunk_tokens: int
    round_tokens: int
    graph_bytes: int
    states: int
    tempered: bool
    element_bytes: int
    text_bytes: int = 0

    @property
    def page_bytes(self) -> int:
        per_token = sum(shape.kv_bytes_per_token for shape in self.models)
        return self.page_tokens * per_token * self.element_bytes // BYTES_PER_PARAMETER

    @property
    def workspace_bytes(self) -> int:
        """Activations of the widest prefill chunk and of one round of every request, and logits."""
        rows = self.chunk_tokens + self.requests * self.round_tokens
        row = max(
            3 * s.hidden + 2 * s.query_width + 2 * s.kv_width + 3 * s.intermediate
            for s in self.models
        )
        if self.states:
            row += (self.states + 3) * self.models[0].hidden  # and fused, beside an embedding
        vocabulary = max(shape.vocabulary for shape in self.models)
        # Tempered rounds hold float32 probabilities of target, proposal, residual and cumulative.
        logit_bytes = self.element_bytes + (4 * 4 if self.tempered else 0)
        logits = self.requests * (self.round_tokens + 1) * vocabulary * logit_bytes
        return rows * row * self.element_bytes + logits + self.text_bytes

    def pages(self, free_bytes: int) -> int:
        """Pages to allocate, the dummy page included.

        Raises:
            CapacityError: what was asked for, or one page per request, does not fit.
        """
        available = free_bytes - self.workspace_bytes - self.graph_bytes
        fitting = max(0, available // self.page_bytes)
        if self.cache_tokens is not None:
            wanted = -(-self.cache_tokens // self.page_tokens) + 1
            least = max(wanted, self.requests + 1)
        else:
            wanted = self.requests * -(-self.context_tokens // self.page_tokens) + 1
            least = self.requests + 1
        if fitting < least:
            raise CapacityError(
                f"the KV cache needs {least} pages of {self.page_tokens} tokens, "
                f"{least * self.page_bytes / 1e9:.2f} GB; {max(0, available) / 1e9:.2f} GB are "
                f"left beside weights and {self.workspace_bytes / 1e9:.2f} GB of workspace"
            )
        return max(min(wanted, fitting), least)


def demand_of(
    config: GraphConfig,
    verifier: Weights,
    draft: Draft,
    max_context_tokens: int,
    device: torch.device,
) -> MemoryDemand:
    """What an engine of these models asks of `device`."""
    context_tokens = max_context_tokens + config.longest
    text_bytes = 0
    if isinstance(draft, Ngram):
        text_bytes = draft.text_bytes(config.max_requests, context_tokens)
    return MemoryDemand(
        models=[verifier.shape, *cached_shapes(draft)],
        requests=config.max_requests,
        context_tokens=context_tokens,
        cache_tokens=config.cache_tokens,
        page_tokens=config.page_tokens,
        chunk_tokens=config.chunk_tokens,
        round_tokens=config.longest + 1,
        graph_bytes=config.graph_bytes if device.type == "cuda" else 0,
        states=len(draft.shape.depths) if isinstance(draft, Head) else 0,
        tempered=config.temperature > 0,
        element_bytes=verifier.embedding.dtype.itemsize,
        text_bytes=text_bytes,
    )
