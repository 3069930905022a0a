"""From models to an engine: shapes with random weights, or checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pdvsim.core import Drafter as Kind
from pdvsim.drafters import HeadShape, head_for, head_of_config, is_head
from pdvsim.errors import InputError
from pdvsim.json_file import read_json
from pdvsim.models import FoundModel
from realengine.checkpoint import runnable, runnable_pair, shared_vocabulary
from realengine.device import default_dtype, open_device
from realengine.graph.eagle3 import Head
from realengine.graph.engine import GraphConfig, GraphEngine
from realengine.graph.head_weights import load_head, random_head
from realengine.graph.model import Weights
from realengine.graph.weights import load_weights, random_weights
from realengine.prompts import prompts_for


def build_engine(
    reference: str, config: GraphConfig, device: str = "cuda", dtype: torch.dtype | None = None
) -> GraphEngine:
    """An engine for a pair (see `pdvsim.models`). In place of a draft model may stand
        eagle3:VERIFIER     a head of the verifier's own dimensions, with random weights
        DIRECTORY:VERIFIER  a checkpoint of a head, in the public EAGLE-3 layout
        :VERIFIER           nothing: the engine only decodes.

    Args:
        dtype: bfloat16 on a GPU and float32 on the CPU if not given.

    Raises:
        InputError: unknown names, unreadable checkpoints, models that are no pair.
        CapacityError: no such device, or too little memory.
    """
    drafter, colon, verifier = reference.partition(":")
    if colon and not drafter:
        return engine_of(None, runnable(verifier), config, device, dtype)
    if colon and (found := _head(drafter, verifier)) is not None:
        return engine_of(found, runnable(verifier), config, device, dtype)
    return engine_of(*runnable_pair(reference), config, device, dtype)


@dataclass(frozen=True, slots=True)
class FoundHead:
    """A head as it was referred to; random weights without a folder."""

    shape: HeadShape
    folder: Path | None = None


def _head(drafter: str, verifier: str) -> FoundHead | None:
    """The head that `drafter` means, if it means one."""
    if drafter.lower() == Kind.EAGLE3:
        return FoundHead(head_for(runnable(verifier).shape))
    where = Path(drafter) / "config.json"
    if not where.is_file():
        return None
    config = read_json(where, "a head's config.json")
    if not is_head(config):
        return None
    name = Path(drafter).resolve().name
    shape = head_of_config(config, runnable(verifier).shape, name, str(where))
    return FoundHead(shape, Path(drafter))


def engine_of(
    draft: FoundModel | FoundHead | None,
    verifier: FoundModel,
    config: GraphConfig,
    device: str = "cuda",
    dtype: torch.dtype | None = None,
) -> GraphEngine:
    """As `build_engine`, for models that are known."""
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

    def load_drafter(verifier: Weights) -> Weights | Head | None:
        seed = config.seed + 1
        if not isinstance(draft, FoundHead):
            return None if draft is None else load(draft, seed)
        if draft.folder is None:
            return random_head(draft.shape, verifier, where, kind, seed)
        return load_head(draft.folder, draft.shape, verifier, where, kind)

    checked = load(verifier, config.seed)
    prompts = prompts_for(verifier, shared, config.seed)
    return GraphEngine(config, checked, load_drafter(checked), opened, prompts=prompts)


def check_heads(draft: FoundModel | FoundHead | None, verifier: FoundModel) -> None:
    """Refuse heads of sizes that the GPU's kernels cannot take.

    Raises:
        InputError: naming the model and the size.
    """
    for found in (verifier, draft):
        if found is None:
            continue
        shape = found.shape.layer if isinstance(found, FoundHead) else found.shape
        size = shape.head_size
        if size < 32 or size & (size - 1):
            raise InputError(
                f"{shape.name} has heads of {size}; on a GPU the graph executor takes powers of "
                "two from 32 on (the eager executor any)"
            )
