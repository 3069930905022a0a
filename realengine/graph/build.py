"""From models to an engine: shapes with random weights, or checkpoints."""

from __future__ import annotations

from dataclasses import replace

import torch

from pdvsim.drafters import decoder_of
from pdvsim.errors import InputError
from pdvsim.models import FoundDraft, FoundModel, NoModel
from realengine.checkpoint import runnable_draft, shared_vocabulary
from realengine.device import default_dtype, open_device
from realengine.graph.config import GraphConfig
from realengine.graph.drafters import Draft
from realengine.graph.engine import GraphEngine
from realengine.graph.head_weights import load_head, random_head
from realengine.graph.model import Weights
from realengine.graph.ngram import Ngram
from realengine.graph.weights import load_weights, random_weights
from realengine.prompts import prompts_for
from realengine.tokenizer import Tokenized


def build_engine(
    reference: str, config: GraphConfig, device: str = "cuda", dtype: torch.dtype | None = None
) -> GraphEngine:
    """An engine for a pair (see `pdvsim.models`).

    Args:
        dtype: bfloat16 on a GPU and float32 on the CPU if not given.

    Raises:
        InputError: unknown names, unreadable checkpoints, models that are no pair.
        CapacityError: no such device, or too little memory.
    """
    return engine_of(*runnable_draft(reference), config, device, dtype)


def engine_of(
    draft: FoundDraft,
    verifier: FoundModel,
    config: GraphConfig,
    device: str = "cuda",
    dtype: torch.dtype | None = None,
    given: Tokenized | None = None,
) -> GraphEngine:
    """As `build_engine`, for models that are known.

    Args:
        given: prompts of requests that bring none.
    """
    opened = open_device(device)
    where, kind = opened.device, dtype or default_dtype(opened.device)
    shared = verifier.shape.vocabulary
    if where.type == "cuda":
        check_heads(draft, verifier)
    if isinstance(draft, FoundModel):
        shared = shared_vocabulary(draft, verifier)

    def load(model: FoundModel, seed: int) -> Weights:
        if model.folder is None:
            whole = random_weights(model.shape, where, kind, seed)
        else:
            whole = load_weights(model.folder, model.shape, where, kind)
        return replace(whole, head=whole.head[:shared])

    def load_drafter(verifier: Weights) -> Draft:
        seed = config.seed + 1
        if isinstance(draft, NoModel):
            return Ngram() if draft.kind == "ngram" else None
        if isinstance(draft, FoundModel):
            return load(draft, seed)
        if draft.folder is None:
            return random_head(draft.shape, verifier, where, kind, seed)
        return load_head(draft.folder, draft.shape, verifier, where, kind)

    prompts = prompts_for(verifier, shared, config.seed, given)
    checked = load(verifier, config.seed)
    return GraphEngine(config, checked, load_drafter(checked), opened, prompts=prompts)


def check_heads(draft: FoundDraft, verifier: FoundModel) -> None:
    """Refuse heads of sizes that the GPU's kernels cannot take.

    Raises:
        InputError: naming the model and the size.
    """
    for found in (verifier, draft):
        shape = decoder_of(found.shape)
        if shape is None:
            continue
        size = shape.head_size
        if size < 32 or size & (size - 1):
            raise InputError(
                f"{shape.name} has heads of {size}; on a GPU the graph executor takes powers of "
                "two from 32 on (the eager executor any)"
            )
