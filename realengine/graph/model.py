"""A Llama decoder with fused projections, written over `Ops`: weights in, hidden states out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from pdvsim.models import ModelShape
from realengine.graph.ops import Ops, View
from realengine.graph.paged import PagedCache


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one layer; matrices are `[out, in]`.

    Attributes:
        qkv: query, key and value projections, stacked.
        gate_up: gate and up projections, stacked.
    """

    attention_norm: Tensor
    qkv: Tensor
    output: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True, slots=True)
class Weights:
    """A whole model.

    Attributes:
        folder: the checkpoint it was read from; None for random weights.
    """

    shape: ModelShape
    embedding: Tensor
    layers: tuple[Layer, ...]
    norm: Tensor
    head: Tensor
    rope_theta: float = 10000.0
    norm_epsilon: float = 1e-5
    folder: Path | None = None


def forward(weights: Weights, ops: Ops, cache: PagedCache, tokens: Tensor, view: View) -> Tensor:
    """One pass over `tokens [rows]`, appending to `cache`. Returns normed states `[rows, hidden]`.

    The norm after each half-layer also adds that half's output to the residual: one kernel.
    """
    residual = F.embedding(tokens, weights.embedding)
    heads, epsilon = weights.shape.heads, weights.norm_epsilon
    update = None
    for i, layer in enumerate(weights.layers):
        x = ops.norm(residual, update, layer.attention_norm, epsilon)
        x = ops.attend(F.linear(x, layer.qkv), heads, cache, i, view)
        x = ops.norm(residual, F.linear(x, layer.output), layer.mlp_norm, epsilon)
        update = F.linear(ops.gated(F.linear(x, layer.gate_up)), layer.down)
    return ops.norm(residual, update, weights.norm, epsilon)


def logits(weights: Weights, hidden: Tensor) -> Tensor:
    """`[..., hidden]` -> `[..., vocabulary]`, in the weights' type."""
    return F.linear(hidden, weights.head)
