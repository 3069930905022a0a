"""Hugging Face Llama models: random weights of a named shape, or a local checkpoint directory.

Random weights of the true shape take the same time as trained ones, so timing needs no download.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from pdvsim.errors import CapacityError, InputError
from pdvsim.json_file import read_json
from pdvsim.models import SHAPES, ModelShape, Pair, shape

WEIGHT_STD = 0.02
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class LoadedPair:
    """A pair whose weights are on a device."""

    pair: Pair
    draft: LlamaForCausalLM
    verifier: LlamaForCausalLM


def load_pair(
    name: str,
    device: torch.device,
    cache_tokens: int,
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> LoadedPair:
    """Load `DRAFT:VERIFIER` onto `device`; each is a shape's name or a checkpoint directory.

    Args:
        cache_tokens: tokens of all requests in flight together, for the memory check.
        seed: of random weights.
        dtype: bf16 on CUDA and float32 on the CPU if not given.

    Raises:
        InputError: no such model, a damaged checkpoint, or two vocabularies.
        CapacityError: not enough GPU memory.
    """
    draft_name, colon, verifier_name = name.partition(":")
    if not colon or not draft_name or not verifier_name:
        raise InputError(
            f"a pair is written DRAFT:VERIFIER, for example tinyllama-1.1b:llama-2-7b; got {name!r}"
        )
    pair = Pair(describe(draft_name), describe(verifier_name))
    if pair.draft.vocabulary != pair.verifier.vocabulary:
        raise InputError(
            f"draft and verifier must share a vocabulary; {pair.draft.name} has "
            f"{pair.draft.vocabulary} tokens and {pair.verifier.name} {pair.verifier.vocabulary}"
        )
    if device.type == "cuda":
        check_memory(pair, cache_tokens, device)
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    draft, verifier = [
        build(described, device, dtype, seed + i)
        if described.name in SHAPES
        else load(Path(described.name), device, dtype)
        for i, described in enumerate((pair.draft, pair.verifier))
    ]
    return LoadedPair(pair, draft, verifier)


def describe(name: str) -> ModelShape:
    """The shape called `name`, or that of the checkpoint directory `name`.

    Raises:
        InputError: neither, or a directory without a Llama `config.json`.
    """
    folder = Path(name)
    if name in SHAPES or not (folder.is_dir() or len(folder.parts) > 1):
        return shape(name)
    config = _read_json(folder / "config.json")
    if config.get("model_type") != "llama":
        raise InputError(f"{name} holds a {config.get('model_type')!r} model; need 'llama'")
    try:
        llama = LlamaConfig(**config)
    except Exception as error:  # its validators raise many kinds
        raise InputError(f"{folder / 'config.json'}: {_one_line(error)}") from error
    return ModelShape(
        name,
        llama.num_hidden_layers,
        llama.hidden_size,
        llama.num_attention_heads,
        llama.num_key_value_heads or llama.num_attention_heads,
        llama.intermediate_size,
        llama.vocab_size,
        llama.max_position_embeddings,
        bool(llama.tie_word_embeddings),
    )


def build(
    shape: ModelShape, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> LlamaForCausalLM:
    """Random weights of `shape`, drawn on `device` itself: a 34B model takes about a second."""
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.max_context_tokens,
        tie_word_embeddings=shape.tied_embeddings,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="sdpa",  # type: ignore[call-arg]
    )
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config)
    model.to(dtype).to_empty(device=device)
    # Its frequencies are computed, not loaded, so `to_empty` left them undefined.
    model.model.rotary_emb = LlamaRotaryEmbedding(config).to(device)
    model.tie_weights()
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight"):
                nn.init.ones_(weight)
            else:
                weight.normal_(std=WEIGHT_STD, generator=generator)
    loaded: LlamaForCausalLM = model.eval()
    return loaded


def load(folder: Path, device: torch.device, dtype: torch.dtype) -> LlamaForCausalLM:
    """The checkpoint in `folder` (`config.json` and safetensors).

    Raises:
        InputError: a file is missing or damaged, or weights are missing from the files.
    """
    _check_shards(folder)
    transformers.logging.disable_progress_bar()  # stderr is for our own
    try:
        result: Any = LlamaForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            output_loading_info=True,
            attn_implementation="sdpa",
        )
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder}: cannot load the checkpoint: {_one_line(error)}") from error
    model, report = result
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(f"{folder}: {len(missing)} weights are missing, {missing[0]} first")
    loaded: LlamaForCausalLM = model.to(device).eval()
    return loaded


def _check_shards(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a directory")
    if (folder / _SINGLE).is_file():
        return
    if not (folder / _INDEX).is_file():
        raise InputError(f"{folder} holds neither {_SINGLE} nor {_INDEX}")
    weights = _read_json(folder / _INDEX).get("weight_map", {})
    for shard in sorted(set(weights.values())):
        if not (folder / shard).is_file():
            raise InputError(f"{folder}: shard {shard} is missing")


def _read_json(path: Path) -> dict[str, Any]:
    content = read_json(path, "a Hugging Face checkpoint")
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object")
    return content


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


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
