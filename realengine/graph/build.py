"""From names to an engine: shapes with random weights, checkpoint directories, or the toy pair."""

from __future__ import annotations

from pathlib import Path

import torch

from pdvsim.errors import CapacityError, InputError
from pdvsim.models import SHAPES
from realengine import toy
from realengine.graph.engine import GraphConfig, GraphEngine
from realengine.graph.model import Weights
from realengine.graph.weights import load_weights, random_weights


def build_engine(
    pair: str, config: GraphConfig, device: str = "cuda", dtype: torch.dtype | None = None
) -> GraphEngine:
    """An engine for `pair`: `toy`, `DRAFT:VERIFIER`, or `:VERIFIER` for plain decoding.

    Args:
        dtype: bfloat16 on a GPU and float32 on the CPU if not given.

    Raises:
        InputError: unknown names, unreadable checkpoints, models that are no pair.
        CapacityError: no such device, or too little memory.
    """
    where = open_device(device)
    kind = dtype or (torch.bfloat16 if where.type == "cuda" else torch.float32)
    draft_name, verifier_name = _names(pair)
    verifier = weights(verifier_name, where, kind, config.seed)
    draft = weights(draft_name, where, kind, config.seed + 1) if draft_name else None
    text = toy.corpus() if pair == "toy" else ()
    return GraphEngine(config, verifier, draft, where, text=text)


def weights(name: str, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Weights:
    """The model called `name`: a known shape, with random weights, or a checkpoint directory."""
    if name in SHAPES:
        return random_weights(SHAPES[name], device, dtype, seed)
    if Path(name).is_dir():
        return load_weights(Path(name), device, dtype)
    known = ", ".join(SHAPES)
    raise InputError(f"{name!r} is neither a checkpoint directory nor one of {known}")


def open_device(name: str) -> torch.device:
    """The torch device called `name`, if it is there."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"{name!r} is no device: {error}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise CapacityError("no CUDA GPU is visible to torch; --device cpu runs without one")
    return device


def _names(pair: str) -> tuple[str, str]:
    if pair == "toy":
        return str(toy.DRAFT), str(toy.VERIFIER)
    draft, colon, verifier = pair.partition(":")
    if not colon or not verifier:
        raise InputError(f"a pair is written DRAFT:VERIFIER, or 'toy'; got {pair!r}")
    return draft, verifier
