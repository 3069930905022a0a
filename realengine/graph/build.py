"""From models to an engine: shapes with random weights, or checkpoints."""

from __future__ import annotations

from dataclasses import replace

import torch

from pdvsim.models import Source
from realengine.checkpoint import shared_vocabulary, source, sources
from realengine.device import default_dtype, open_device
from realengine.graph.engine import GraphConfig, GraphEngine
from realengine.graph.model import Weights
from realengine.graph.weights import load_weights, random_weights
from realengine.prompts import prompts_for


def build_engine(
    reference: str, config: GraphConfig, device: str = "cuda", dtype: torch.dtype | None = None
) -> GraphEngine:
    """An engine for a pair (see `pdvsim.models`), or for `:VERIFIER`, which only decodes.

    Args:
        dtype: bfloat16 on a GPU and float32 on the CPU if not given.

    Raises:
        InputError: unknown names, unreadable checkpoints, models that are no pair.
        CapacityError: no such device, or too little memory.
    """
    if reference.startswith(":"):
        return engine_of(None, source(reference[1:]), config, device, dtype)
    return engine_of(*sources(reference), config, device, dtype)


def engine_of(
    draft: Source | None,
    verifier: Source,
    config: GraphConfig,
    device: str = "cuda",
    dtype: torch.dtype | None = None,
) -> GraphEngine:
    """As `build_engine`, for models that are known."""
    opened = open_device(device)
    kind = dtype or default_dtype(opened.device)
    shared = verifier.shape.vocabulary if draft is None else shared_vocabulary(draft, verifier)

    def load(model: Source, seed: int) -> Weights:
        if model.folder is None:
            whole = random_weights(model.shape, opened.device, kind, seed)
        else:
            whole = load_weights(model.folder, model.shape, opened.device, kind)
        return replace(whole, head=whole.head[:shared])

    return GraphEngine(
        config,
        load(verifier, config.seed),
        None if draft is None else load(draft, config.seed + 1),
        opened,
        prompts=prompts_for(verifier, shared, config.seed),
    )
