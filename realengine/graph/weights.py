"""Where weights come from: random at a true shape, or a checkpoint on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from pdvsim.errors import CapacityError
from pdvsim.models import ModelShape
from realengine.checkpoint import model_checkpoint, tensors_of
from realengine.device import enough_memory, free_bytes
from realengine.graph.model import Layer, Weights

INIT_STD = 0.02  # as Llama's own initialisation: activations of random models stay finite

Get = Callable[[str], Tensor]


def random_weights(
    shape: ModelShape, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> Weights:
    """Normal random weights, built on the device (34B in about a fifth of a second on an H100)."""
    generator = torch.Generator(device).manual_seed(seed)
    sizes = tensors_of(shape)

    def get(name: str) -> Tensor:
        empty = torch.empty(sizes[name], dtype=dtype, device=device)
        if name.endswith("norm.weight"):
            return empty.fill_(1.0)
        return empty.normal_(0.0, INIT_STD, generator=generator)

    with room(shape, device, dtype):
        return _assemble(shape, get, None)


def load_weights(
    folder: Path, shape: ModelShape, device: torch.device, dtype: torch.dtype
) -> Weights:
    """Read a checkpoint directory.

    Raises:
        InputError: a file is missing or damaged, or its tensors are not those of `shape`.
        CapacityError: the weights do not fit.
    """
    with model_checkpoint(folder, shape) as checkpoint, room(shape, device, dtype):

        def get(name: str) -> Tensor:
            return checkpoint.tensor(name).to(device, dtype)

        return _assemble(shape, get, folder)


def _assemble(shape: ModelShape, get: Get, folder: Path | None) -> Weights:
    layers = tuple(_layer(shape, get, f"model.layers.{i}.") for i in range(shape.layers))
    embedding = get("model.embed_tokens.weight")
    head = embedding if shape.tied_embeddings else get("lm_head.weight")
    return Weights(shape, embedding, layers, get("model.norm.weight"), head, folder)


def _layer(shape: ModelShape, get: Get, prefix: str) -> Layer:
    def stacked(*names: str) -> Tensor:
        return torch.cat([get(f"{prefix}{name}") for name in names])

    qkv = [f"self_attn.{n}_proj" for n in ("q", "k", "v")]
    wide = [f"mlp.{n}_proj" for n in ("gate", "up")]
    head_gains = None
    if shape.qk_norm:
        query, key = (get(f"{prefix}self_attn.{n}_norm.weight") for n in ("q", "k"))
        head_gains = torch.cat([query.repeat(shape.heads, 1), key.repeat(shape.kv_heads, 1)])
    return Layer(
        attention_norm=get(f"{prefix}input_layernorm.weight"),
        qkv=stacked(*(f"{name}.weight" for name in qkv)),
        output=get(f"{prefix}self_attn.o_proj.weight"),
        mlp_norm=get(f"{prefix}post_attention_layernorm.weight"),
        gate_up=stacked(*(f"{name}.weight" for name in wide)),
        down=get(f"{prefix}mlp.down_proj.weight"),
        qkv_bias=stacked(*(f"{name}.bias" for name in qkv)) if shape.qkv_bias else None,
        output_bias=get(f"{prefix}self_attn.o_proj.bias") if shape.output_bias else None,
        gate_up_bias=stacked(*(f"{name}.bias" for name in wide)) if shape.mlp_bias else None,
        down_bias=get(f"{prefix}mlp.down_proj.bias") if shape.mlp_bias else None,
        head_gains=head_gains,
    )


class Weighty(Protocol):
    """A model, as far as it takes room."""

    @property
    def name(self) -> str: ...
    @property
    def parameters(self) -> int: ...


@contextmanager
def room(shape: Weighty, device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Refuse weights that do not fit in what is free, with the numbers."""
    needed, free = shape.parameters * dtype.itemsize, free_bytes(device)
    if needed > free:
        raise CapacityError(
            f"{shape.name} needs {needed / 1e9:.1f} GB for its weights; "
            f"{free / 1e9:.1f} GB are free on {device}"
        )
    with enough_memory(device, f"the weights of {shape.name}"):
        yield
