"""A decoder with fused projections, written over `Ops`: weights in, hidden states out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pdvsim.models import ModelShape
from realengine.graph.ops import Mixed, Ops, Ragged, Uniform, Use, View
from realengine.graph.paged import PagedCache


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one layer; matrices are `[out, in]`.

    Attributes:
        qkv: query, key and value projections, stacked.
        gate_up: gate and up projections, stacked.
        head_gains: `[heads + kv_heads, head_size]`, of the RMS norms that query and key heads go
            through, in models that have them. Biases too are None in models without.
    """

    attention_norm: Tensor
    qkv: Tensor
    output: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor
    qkv_bias: Tensor | None = None
    output_bias: Tensor | None = None
    gate_up_bias: Tensor | None = None
    down_bias: Tensor | None = None
    head_gains: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """A whole model.

    Attributes:
        head: `[tokens that it may say, hidden]`.
        folder: the checkpoint it was read from; None for random weights.
    """

    shape: ModelShape
    embedding: Tensor
    layers: tuple[Layer, ...]
    norm: Tensor
    head: Tensor
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Tap:
    """States to be copied out of a forward pass.

    Attributes:
        depths: behind so many layers each.
        states: `[rows, depths x hidden]`, side by side.
    """

    depths: tuple[int, ...]
    states: Tensor

    @classmethod
    def new(cls, depths: tuple[int, ...], rows: int, like: Tensor) -> Tap:
        """For a pass over `rows` tokens of a model with states like those in `like [., hidden]`."""
        return cls(depths, like.new_empty(rows, len(depths) * like.shape[1]))

    def take(self, depth: int, states: Tensor) -> None:
        """`states [rows, hidden]` are those behind `depth` layers."""
        width = states.shape[1]
        for i, wanted in enumerate(self.depths):
            if wanted == depth:
                self.states[:, i * width : (i + 1) * width] = states


@dataclass(frozen=True, slots=True)
class Ends:
    """The only tokens of a pass over prompts whose states behind the last layer are wanted.

    Attributes:
        rows: `[ends]`, their rows; those of rounds first.
        view: where they stand, those of prompts a block each; None if there are none.
    """

    rows: Tensor
    view: View | None

    @classmethod
    def of(
        cls, rows: Tensor, slots: Tensor, positions: Tensor, rounds: Uniform | None = None
    ) -> Ends:
        """`rows` are the last ones of prompts; beside them all of `rounds` are wanted, if any."""
        before = 0 if rounds is None else len(rounds.slots) * rounds.query
        prompts = None
        if len(rows):
            one = torch.ones_like(rows)
            first = one.cumsum(0) + (before - 1)
            prompts = Ragged(torch.stack([first, one, slots, positions], 1))
        if rounds is None:
            return cls(rows, prompts)
        rows = torch.cat([torch.arange(before, device=rows.device), rows])
        return cls(rows, rounds if prompts is None else Mixed(rounds, prompts))


def forward(
    weights: Weights,
    ops: Ops,
    cache: PagedCache,
    tokens: Tensor,
    view: View,
    tap: Tap | None = None,
    ends: Ends | None = None,
) -> Tensor:
    """One pass over `tokens [rows]`, appending to `cache`. Returns normed states `[rows, hidden]`;
    `tap` gets those it asks for, as they are between layers.

    The norm after each half-layer also adds that half's output to the residual: one kernel. With
    `ends`, the last layer fills the cache for all tokens and goes on with those alone, whose
    states are returned.
    """
    residual = F.embedding(tokens, weights.embedding)
    epsilon, last = weights.shape.norm_epsilon, len(weights.layers) - 1
    update = None
    for i, layer in enumerate(weights.layers):
        x = ops.norm(residual, update, layer.attention_norm, epsilon)
        if tap is not None:
            tap.take(i, residual)
        if ends is not None and i == last:
            _fill(weights, layer, ops, cache, x, view)
            x, residual = x[ends.rows], residual[ends.rows]
            if ends.view is None:
                return x
            view = ends.view
        qkv = ops.linear(x, layer.qkv, layer.qkv_bias)
        if layer.head_gains is not None:
            ops.norm_heads(qkv, layer.head_gains, epsilon)
        x = ops.attend(qkv, weights.shape.heads, cache, i, view)
        x = ops.added(x, layer.output, layer.output_bias)
        x = ops.norm(residual, x, layer.mlp_norm, epsilon)
        x = ops.gated(x, layer.gate_up, layer.gate_up_bias)
        update = ops.added(x, layer.down, layer.down_bias)
    hidden = ops.norm(residual, update, weights.norm, epsilon)
    if tap is not None and ends is None:
        tap.take(len(weights.layers), residual)
    return hidden


def _fill(
    weights: Weights, layer: Layer, ops: Ops, cache: PagedCache, x: Tensor, view: View
) -> None:
    """Keys and values of the last layer for all prompt tokens of `x [rows, hidden]`."""
    view = view.prompts if isinstance(view, Mixed) else view
    assert isinstance(view, Ragged)
    heads, begin = weights.shape.heads, weights.shape.query_width
    bias = None if layer.qkv_bias is None else layer.qkv_bias[begin:]
    kv = ops.linear(x, layer.qkv[begin:], bias)
    if layer.head_gains is not None:
        ops.norm_heads(kv, layer.head_gains[heads:], weights.shape.norm_epsilon)
    ops.append(kv, 0, cache, len(weights.layers) - 1, view)


def logits(weights: Weights, ops: Ops, hidden: Tensor) -> Tensor:
    """`[rows, hidden]` -> `[rows, vocabulary]`, in the weights' type."""
    return ops.linear(hidden, weights.head)


def matrices(weights: Weights) -> list[tuple[Tensor, Use]]:
    """One of each kind of matrix of the model, and what it is for."""
    one = weights.layers[0]
    return [
        (one.qkv, Use.PLAIN),
        (one.output, Use.ADDED),
        (one.gate_up, Use.GATED),
        (one.down, Use.ADDED),
        (weights.head, Use.PLAIN),
    ]
