"""What an engine asks of memory, by its models and how it is sized."""

from __future__ import annotations

import torch

from pdvsim.kv_cache import MemoryDemand
from realengine.graph.config import GraphConfig
from realengine.graph.drafters import Draft, cached_shapes
from realengine.graph.eagle3 import Head
from realengine.graph.model import Weights
from realengine.graph.ngram import Ngram


def demand_of(
    config: GraphConfig,
    verifier: Weights,
    draft: Draft,
    max_context_tokens: int,
    device: torch.device,
) -> MemoryDemand:
    """What an engine of these models asks of `device`."""
    context_tokens = max_context_tokens + config.longest
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
        keeps_texts=isinstance(draft, Ngram),
    )
