"""Where the weights of an EAGLE-3 head come from: random at a true shape, or its public layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pdvsim.drafters import HeadShape
from pdvsim.errors import InputError
from realengine.checkpoint import Checkpoint
from realengine.graph.eagle3 import Head
from realengine.graph.model import Weights
from realengine.graph.weights import INIT_STD, room

_LAYER = "midlayer."
_EMBEDDING = "embed_tokens.weight"
_IDS = "d2t"


def random_head(
    shape: HeadShape, verifier: Weights, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> Head:
    """Normal random weights with the verifier's embedding; proposals spread over its tokens."""
    generator = torch.Generator(device).manual_seed(seed)
    sizes = head_tensors(shape)

    def get(name: str) -> Tensor:
        empty = torch.empty(sizes[name], dtype=dtype, device=device)
        if name.endswith("norm.weight"):
            return empty.fill_(1.0)
        return empty.normal_(0.0, INIT_STD, generator=generator)

    ids = torch.arange(shape.vocabulary, device=device) * shape.layer.vocabulary
    with room(shape, device, dtype):
        return _assemble(shape, get, verifier.embedding, ids // shape.vocabulary, None)


def load_head(
    folder: Path, shape: HeadShape, verifier: Weights, device: torch.device, dtype: torch.dtype
) -> Head:
    """Read a checkpoint directory of the public layout.

    Raises:
        InputError: a file is missing or damaged, or its tensors are not those of `shape`.
        CapacityError: the weights do not fit.
    """
    layer = shape.layer
    optional = {_EMBEDDING: (layer.vocabulary, layer.hidden), _IDS: (shape.vocabulary,)}
    opened = Checkpoint(folder, head_tensors(shape), "EAGLE-3 head", optional, ("t2d", "inv_freq"))
    with opened as checkpoint, room(shape, device, dtype):

        def get(name: str) -> Tensor:
            return checkpoint.tensor(name).to(device, dtype)

        embedding = get(_EMBEDDING) if checkpoint.holds(_EMBEDDING) else verifier.embedding
        if embedding.shape[1] != layer.hidden:
            raise InputError(
                f"{folder} has no {_EMBEDDING}, and the verifier's embeddings are "
                f"{embedding.shape[1]} wide; the head's are {layer.hidden}"
            )
        ids = torch.arange(shape.vocabulary)
        if checkpoint.holds(_IDS):
            ids = ids + checkpoint.tensor(_IDS)
        elif shape.vocabulary != layer.vocabulary:
            raise InputError(f"{folder} has no {_IDS}, which says what its tokens are")
        if not (int(ids.min()) >= 0 and int(ids.max()) < layer.vocabulary):
            raise InputError(f"{folder}: {_IDS} names tokens outside {layer.vocabulary:,}")
        return _assemble(shape, get, embedding, ids.to(device), folder)


def head_tensors(shape: HeadShape) -> dict[str, tuple[int, ...]]:
    """Names and sizes of a head's tensors in a checkpoint, without those it may lack."""
    layer = shape.layer
    hidden, wide = layer.hidden, layer.intermediate
    own: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "hidden_norm.weight": (hidden,),
        "self_attn.q_proj.weight": (layer.query_width, 2 * hidden),
        "self_attn.k_proj.weight": (layer.kv_width, 2 * hidden),
        "self_attn.v_proj.weight": (layer.kv_width, 2 * hidden),
        "self_attn.o_proj.weight": (hidden, layer.query_width),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (wide, hidden),
        "mlp.up_proj.weight": (wide, hidden),
        "mlp.down_proj.weight": (hidden, wide),
    }
    return {f"{_LAYER}{name}": size for name, size in own.items()} | {
        "fc.weight": (hidden, len(shape.depths) * shape.target_hidden),
        "norm.weight": (hidden,),
        "lm_head.weight": (shape.vocabulary, hidden),
    }


def _assemble(
    shape: HeadShape,
    get: Callable[[str], Tensor],
    embedding: Tensor,
    ids: Tensor,
    folder: Path | None,
) -> Head:
    def stacked(*names: str) -> Tensor:
        return torch.cat([get(f"{_LAYER}{name}_proj.weight") for name in names])

    in_order = shape.vocabulary == shape.layer.vocabulary and bool(
        (ids == torch.arange(len(ids), device=ids.device)).all()
    )
    return Head(
        shape=shape,
        embedding=embedding,
        fusion=get("fc.weight"),
        token_norm=get(f"{_LAYER}input_layernorm.weight"),
        state_norm=get(f"{_LAYER}hidden_norm.weight"),
        qkv=stacked("self_attn.q", "self_attn.k", "self_attn.v"),
        output=get(f"{_LAYER}self_attn.o_proj.weight"),
        mlp_norm=get(f"{_LAYER}post_attention_layernorm.weight"),
        gate_up=stacked("mlp.gate", "mlp.up"),
        down=get(f"{_LAYER}mlp.down_proj.weight"),
        norm=get("norm.weight"),
        head=get("lm_head.weight"),
        ids=None if in_order else ids,
        folder=folder,
    )
