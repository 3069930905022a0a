"""Where weights come from: random at a true shape, or a Hugging Face Llama checkpoint on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pdvsim.errors import CapacityError, InputError
from pdvsim.json_file import read_json
from pdvsim.models import ModelShape
from realengine.graph.model import Layer, Weights

INIT_STD = 0.02  # as Llama's own initialisation: activations of random models stay finite


def random_weights(
    shape: ModelShape, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> Weights:
    """Normal random weights, built on the device (34B in about a fifth of a second on an H100)."""
    generator = torch.Generator(device).manual_seed(seed)
    kv_width = shape.kv_heads * shape.head_size

    def matrix(rows: int, columns: int) -> Tensor:
        empty = torch.empty(rows, columns, dtype=dtype, device=device)
        return empty.normal_(0.0, INIT_STD, generator=generator)

    def gain() -> Tensor:
        return torch.ones(shape.hidden, dtype=dtype, device=device)

    def build() -> Weights:
        layers = tuple(
            Layer(
                gain(),
                matrix(shape.hidden + 2 * kv_width, shape.hidden),
                matrix(shape.hidden, shape.hidden),
                gain(),
                matrix(2 * shape.intermediate, shape.hidden),
                matrix(shape.hidden, shape.intermediate),
            )
            for _ in range(shape.layers)
        )
        embedding = matrix(shape.vocabulary, shape.hidden)
        head = embedding if shape.tied_embeddings else matrix(shape.vocabulary, shape.hidden)
        return Weights(shape, embedding, layers, gain(), head)

    return _within_memory(shape, device, dtype, build)


def load_weights(folder: Path, device: torch.device, dtype: torch.dtype) -> Weights:
    """Read a Llama checkpoint directory (`config.json` and safetensors).

    Raises:
        InputError: it is not a Llama checkpoint that can be read; the message says what is wrong.
        CapacityError: the weights do not fit.
    """
    config = _read_json(folder / "config.json")
    shape = _shape(folder, config)
    files = _files(folder)

    def build() -> Weights:
        with ExitStack() as stack:
            handles: dict[Path, Any] = {}

            def get(name: str, *size: int) -> Tensor:
                file = files.get(name)
                if file is None:
                    raise InputError(f"checkpoint {folder} has no tensor {name!r}")
                if file not in handles:
                    handles[file] = stack.enter_context(_open(file))
                try:
                    tensor: Tensor = handles[file].get_tensor(name)
                except SafetensorError as error:
                    raise InputError(f"{file} does not hold {name!r}: {error}") from None
                if tuple(tensor.shape) != size:
                    raise InputError(
                        f"{name!r} in {file} is {tuple(tensor.shape)}; config.json says {size}"
                    )
                return tensor.to(device, dtype)

            return _assemble(folder, shape, config, get)

    return _within_memory(shape, device, dtype, build)


def _assemble(
    folder: Path, shape: ModelShape, config: dict[str, Any], get: Callable[..., Tensor]
) -> Weights:
    hidden, wide, kv = shape.hidden, shape.intermediate, shape.kv_heads * shape.head_size
    layers = []
    for i in range(shape.layers):
        p = f"model.layers.{i}."
        qkv = [
            get(f"{p}self_attn.{n}_proj.weight", rows, hidden)
            for n, rows in (("q", hidden), ("k", kv), ("v", kv))
        ]
        gate_up = [get(f"{p}mlp.{n}_proj.weight", wide, hidden) for n in ("gate", "up")]
        layers.append(
            Layer(
                get(f"{p}input_layernorm.weight", hidden),
                torch.cat(qkv),
                get(f"{p}self_attn.o_proj.weight", hidden, hidden),
                get(f"{p}post_attention_layernorm.weight", hidden),
                torch.cat(gate_up),
                get(f"{p}mlp.down_proj.weight", hidden, wide),
            )
        )
    embedding = get("model.embed_tokens.weight", shape.vocabulary, hidden)
    head = embedding
    if not shape.tied_embeddings:
        head = get("lm_head.weight", shape.vocabulary, hidden)
    theta, epsilon = _rope_theta(config), float(config.get("rms_norm_eps", 1e-6))
    norm = get("model.norm.weight", hidden)
    return Weights(shape, embedding, tuple(layers), norm, head, theta, epsilon, folder)


def check_pair(draft: Weights, verifier: Weights) -> None:
    """Refuse a pair whose models do not share a vocabulary.

    Raises:
        InputError: sizes differ, or both checkpoints hold a `tokenizer.json` and these differ.
    """
    sizes = draft.shape.vocabulary, verifier.shape.vocabulary
    if sizes[0] != sizes[1]:
        raise InputError(
            f"draft {draft.shape.name} has a vocabulary of {sizes[0]} and verifier "
            f"{verifier.shape.name} one of {sizes[1]}; a pair must share its vocabulary"
        )
    if draft.folder is None or verifier.folder is None:
        return
    files = [folder / "tokenizer.json" for folder in (draft.folder, verifier.folder)]
    if all(file.is_file() for file in files):
        first, second = (_read_json(file).get("model", {}).get("vocab") for file in files)
        if first != second:
            raise InputError(
                f"the tokenizers of {draft.folder} and {verifier.folder} number tokens differently"
            )


def _shape(folder: Path, config: dict[str, Any]) -> ModelShape:
    if config.get("model_type") != "llama":
        raise InputError(
            f"{folder} is a {config.get('model_type')!r} checkpoint; only 'llama' can be run"
        )

    def number(key: str, default: int | None = None) -> int:
        value = config.get(key) or default
        if not isinstance(value, int):
            raise InputError(f"{folder / 'config.json'} says {key} is {config.get(key)!r}")
        return value

    heads = number("num_attention_heads")
    shape = ModelShape(
        name=folder.name,
        layers=number("num_hidden_layers"),
        hidden=number("hidden_size"),
        heads=heads,
        kv_heads=number("num_key_value_heads", heads),
        intermediate=number("intermediate_size"),
        vocabulary=number("vocab_size"),
        max_context_tokens=number("max_position_embeddings", 2048),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
    )
    if config.get("head_dim") not in (None, shape.head_size):
        raise InputError(f"{folder}: head_dim {config['head_dim']} is not hidden_size / heads")
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key):
            raise InputError(f"{folder}: {key} is set; only models without biases can be run")
    return shape


def _rope_theta(config: dict[str, Any]) -> float:
    """Rotary base, in the old (`rope_theta`) or the new (`rope_parameters`) spelling."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise InputError(f"rotary embedding of type {kind!r} is not supported, only 'default'")
    return float(rope.get("rope_theta", config.get("rope_theta", 10000.0)))


def _files(folder: Path) -> dict[str, Path]:
    """Which file holds which tensor."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        names = {n: folder / f for n, f in _read_json(index)["weight_map"].items()}
        missing = sorted({file.name for file in names.values() if not file.is_file()})
        if missing:
            raise InputError(f"checkpoint {folder} lacks {', '.join(missing)}")
        return names
    if not single.is_file():
        raise InputError(f"{folder} holds neither {single.name} nor {index.name}")
    with _open(single) as handle:
        return dict.fromkeys(handle.keys(), single)


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} cannot be read: {error}") from None


def _read_json(file: Path) -> dict[str, Any]:
    content = read_json(file, "a Hugging Face checkpoint")
    if not isinstance(content, dict):
        raise InputError(f"{file} is not a JSON object")
    return content


def _within_memory(
    shape: ModelShape, device: torch.device, dtype: torch.dtype, build: Callable[[], Weights]
) -> Weights:
    """Run `build`, turning out-of-memory into a sentence with the numbers."""
    needed, free = shape.parameters * dtype.itemsize, free_bytes(device)
    message = (
        f"{shape.name} needs {needed / 1e9:.1f} GB for its weights; "
        f"{free / 1e9:.1f} GB are free on {device}"
    )
    if needed > free:
        raise CapacityError(message)
    try:
        return build()
    except (torch.OutOfMemoryError, MemoryError):
        raise CapacityError(message) from None


def free_bytes(device: torch.device) -> int:
    """Memory that can still be allocated on `device`."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
