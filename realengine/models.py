"""Hugging Face models for the eager engine: random weights of a shape, or a checkpoint.

Random weights of the true shape take the same time as trained ones, so timing needs no download.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from pdvsim.errors import CapacityError
from pdvsim.models import FoundModel, ModelShape, Pair
from realengine.checkpoint import model_checkpoint, shared_vocabulary
from realengine.device import default_dtype, enough_memory

WEIGHT_STD = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class LoadedPair:
    """A pair whose weights are on a device.

    Attributes:
        vocabulary: tokens that both models know.
    """

    draft: PreTrainedModel
    verifier: PreTrainedModel
    vocabulary: int


def load_pair(
    draft: FoundModel,
    verifier: FoundModel,
    device: torch.device,
    cache_tokens: int,
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> LoadedPair:
    """Put both models on `device`.

    Args:
        cache_tokens: tokens of all requests in flight together, for the memory check.
        seed: of random weights.
        dtype: bf16 on CUDA and float32 on the CPU if not given.

    Raises:
        InputError: a damaged checkpoint, or two vocabularies.
        CapacityError: not enough memory.
    """
    pair = Pair(draft.shape, verifier.shape)
    vocabulary = shared_vocabulary(draft, verifier)
    if device.type == "cuda":
        check_memory(pair, cache_tokens, device)
    dtype = dtype or default_dtype(device)
    first, second = [
        load(found, device, dtype)
        if found.folder is not None
        else build(found.shape, device, dtype, seed + i)
        for i, found in enumerate((draft, verifier))
    ]
    return LoadedPair(first, second, vocabulary)


def build(
    shape: ModelShape, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> PreTrainedModel:
    """Random weights of `shape`, drawn on `device` itself: a 34B model takes about a second."""
    model = _empty(shape, device, dtype)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight"):
                nn.init.ones_(weight)
            else:
                weight.normal_(std=WEIGHT_STD, generator=generator)
    return model


def load(found: FoundModel, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """The checkpoint of `found`.

    Raises:
        InputError: a file is missing or damaged, or weights are missing from the files.
        CapacityError: the weights do not fit.
    """
    assert found.folder is not None
    with model_checkpoint(found.folder, found.shape) as checkpoint:
        model = _empty(found.shape, device, dtype)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.copy_(checkpoint.tensor(name))
    return model


def _empty(shape: ModelShape, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """The model without values in its weights."""
    config = hugging_face_config(shape)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    with enough_memory(device, f"the weights of {shape.name}"):
        model.to(dtype).to_empty(device=device)
    # Its frequencies are computed, not loaded, so `to_empty` left them undefined.
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(device)
    model.tie_weights()
    made: PreTrainedModel = model.eval()
    return made


def hugging_face_config(shape: ModelShape) -> transformers.PreTrainedConfig:
    """The configuration of `shape` in transformers' own class for its family."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": shape.rope.theta}
    if shape.rope.factor != 1.0:
        rope |= {
            "rope_type": "llama3",
            "factor": shape.rope.factor,
            "low_freq_factor": shape.rope.low_frequency_factor,
            "high_freq_factor": shape.rope.high_frequency_factor,
            "original_max_position_embeddings": shape.rope.original_context_tokens,
        }
    more: dict[str, Any] = {}
    if shape.family in ("llama", "qwen3"):
        more["attention_bias"] = shape.output_bias
    if shape.family == "llama":
        more["mlp_bias"] = shape.mlp_bias
    if shape.family == "mistral":
        more["sliding_window"] = shape.sliding_window
    config: transformers.PreTrainedConfig = AutoConfig.for_model(
        shape.family,
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size,
        max_position_embeddings=shape.max_context_tokens,
        rms_norm_eps=shape.norm_epsilon,
        rope_parameters=rope,
        tie_word_embeddings=shape.tied_embeddings,
        bos_token_id=None,
        eos_token_id=None,
        **more,
    )
    return config


def check_memory(pair: Pair, cache_tokens: int, device: torch.device) -> None:
    """Raises CapacityError unless the weights and `cache_tokens` of KV cache fit in what is free
    on the CUDA device `device`."""
    cache_bytes = cache_tokens * (pair.draft.kv_bytes_per_token + pair.verifier.kv_bytes_per_token)
    needed = pair.weight_bytes + cache_bytes
    free, total = torch.cuda.mem_get_info(device)
    if needed > free:
        raise CapacityError(
            f"{pair.name} needs {needed:,} bytes of GPU memory ({pair.weight_bytes:,} of weights, "
            f"{cache_bytes:,} of KV cache); {free:,} of {total:,} bytes are free"
        )
