"""Rotary position embedding: the tables that attention turns queries and keys by."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pdvsim.models import ModelShape, Rope


def frequencies(rope: Rope, head_size: int) -> Tensor:
    """Radians per position of each pair of dimensions, `[head_size / 2]` float64.

    Llama 3's scaling divides slow frequencies by `rope.factor`, keeps fast ones and goes from one
    to the other where a wavelength is between `original_context_tokens` / `low_frequency_factor`
    and / `high_frequency_factor`.
    """
    exponents = torch.arange(0, head_size, 2, dtype=torch.float64) / head_size
    plain = rope.theta**-exponents
    turns = rope.original_context_tokens * plain / (2 * math.pi)  # within the original context
    low, high = rope.low_frequency_factor, rope.high_frequency_factor
    kept = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return plain * (kept + (1.0 - kept) / rope.factor)


def tables(shape: ModelShape, positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each `[positions, head_size / 2]` float32."""
    steps = torch.arange(positions, dtype=torch.float64)
    angles = torch.outer(steps, frequencies(shape.rope, shape.head_size))
    cos, sin = (f(angles).to(device, torch.float32) for f in (torch.cos, torch.sin))
    return cos, sin
