"""EAGLE-3 in plain PyTorch, from the tensors of a public checkpoint: no cache, no batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pdvsim.drafters import HeadShape
from realengine.graph.head_weights import head_tensors


def random_tensors(shape: HeadShape, ids: list[int], seed: int = 0) -> dict[str, Tensor]:
    """A head's checkpoint that proposes `ids`, large enough that drafts depend on the text."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: 0.3 * torch.randn(size, generator=generator)
        for name, size in head_tensors(shape).items()
    }
    table = shape.layer.vocabulary, shape.layer.hidden
    tensors["embed_tokens.weight"] = torch.randn(table, generator=generator)
    covered = torch.zeros(shape.layer.vocabulary, dtype=torch.bool)
    covered[ids] = True
    return tensors | {"d2t": torch.tensor(ids) - torch.arange(len(ids)), "t2d": covered}


def drafts(
    tensors: dict[str, Tensor], shape: HeadShape, states: Tensor, tokens: list[int], count: int
) -> list[int]:
    """`count` drafts after `tokens`, of which the verifier has the `states [tokens - 1, 3 h]`."""
    fused = states @ tensors["fc.weight"].T
    seen, proposed = list(tokens[1:]), list[int]()
    for _ in range(count):
        output = layer(tensors, shape, torch.tensor(seen), fused)[-1]
        scores = norm(output, tensors["norm.weight"], shape) @ tensors["lm_head.weight"].T
        best = int(scores.argmax())
        proposed.append(best + int(tensors["d2t"][best]))
        fused = torch.cat([fused, output[None]])
        seen.append(proposed[-1])
    return proposed


def layer(tensors: dict[str, Tensor], shape: HeadShape, tokens: Tensor, states: Tensor) -> Tensor:
    """The layer's output, before its norm, at all positions."""
    model = shape.layer

    def weight(name: str) -> Tensor:
        return tensors[f"midlayer.{name}.weight"]

    normed = norm(states, weight("hidden_norm"), shape)
    embedded = norm(tensors["embed_tokens.weight"][tokens], weight("input_layernorm"), shape)
    x = torch.cat([embedded, normed], 1)
    residual = normed if shape.norm_before_residual else states
    query, key, value = (
        (x @ weight(f"self_attn.{name}_proj").T).view(len(x), -1, model.head_size).transpose(0, 1)
        for name in ("q", "k", "v")
    )
    query, key = rotated(query, model.rope.theta), rotated(key, model.rope.theta)
    groups = model.heads // model.kv_heads
    key, value = (each.repeat_interleave(groups, 0) for each in (key, value))
    scores = query @ key.transpose(1, 2) / model.head_size**0.5
    scores = scores.masked_fill(~torch.ones(len(x), len(x)).tril().bool(), float("-inf"))
    attended = (scores.softmax(-1) @ value).transpose(0, 1).flatten(1)
    residual = residual + attended @ weight("self_attn.o_proj").T
    y = norm(residual, weight("post_attention_layernorm"), shape)
    y = F.silu(y @ weight("mlp.gate_proj").T) * (y @ weight("mlp.up_proj").T)
    return residual + y @ weight("mlp.down_proj").T


def norm(x: Tensor, gain: Tensor, shape: HeadShape) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + shape.layer.norm_epsilon) * gain


def rotated(x: Tensor, theta: float) -> Tensor:
    """Rotary embedding of `x [heads, positions, size]`."""
    half = x.shape[2] // 2
    angles = torch.arange(x.shape[1])[:, None] * theta ** (-torch.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], 2)
