"""Models by shape and from checkpoints, and what is said when they cannot be had."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from pdvsim.errors import CapacityError, InputError
from pdvsim.models import SHAPES, ModelShape, Pair
from realengine.device import open_device
from realengine.models import build, check_memory, describe, load, load_pair

CPU = torch.device("cpu")
TINY = SHAPES["tiny"]
TEXT = torch.tensor([[1, 2, 3, 250, 4, 5]])


def logits(model: LlamaForCausalLM) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = model(TEXT).logits
    return result


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    build(TINY, CPU, torch.float32, seed=3).save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


def test_building_is_deterministic() -> None:
    models = [build(TINY, CPU, torch.float32, seed) for seed in (1, 1, 2)]
    first, again, other = map(logits, models)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_built_model_is_what_the_library_builds() -> None:
    """All that is not a weight (rotary frequencies above all) equals a plainly made model's."""
    model = build(TINY, CPU, torch.float32)
    plain = LlamaForCausalLM(model.config).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(logits(model), logits(plain))


@pytest.mark.parametrize("shape", [TINY, ModelShape("tied", 1, 32, 2, 1, 64, 61, 64, True)])
def test_parameters_are_as_many_as_the_shape_says(shape: ModelShape) -> None:
    model = build(shape, CPU, torch.float32)
    assert sum(weight.numel() for weight in model.parameters()) == shape.parameters


def test_bf16_rotates_in_float32() -> None:
    model = build(TINY, CPU, torch.bfloat16)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert model.model.rotary_emb.inv_freq.dtype is torch.float32


def test_a_checkpoint_comes_back(checkpoint: Path) -> None:
    original = build(TINY, CPU, torch.float32, seed=3)
    assert torch.equal(logits(load(checkpoint, CPU, torch.float32)), logits(original))
    described = describe(str(checkpoint))
    assert described.parameters == TINY.parameters
    assert described.vocabulary == TINY.vocabulary
    loaded = load_pair(f"tiny:{checkpoint}", CPU, cache_tokens=0)
    assert torch.equal(logits(loaded.verifier), logits(original))


def test_missing_shard(checkpoint: Path) -> None:
    shard = sorted(checkpoint.glob("*.safetensors"))[-1]
    shard.unlink()
    with pytest.raises(InputError, match=f"shard {shard.name} is missing"):
        load(checkpoint, CPU, torch.float32)


def test_damaged_shard(checkpoint: Path) -> None:
    shard = sorted(checkpoint.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:50])
    with pytest.raises(InputError, match="cannot load the checkpoint"):
        load(checkpoint, CPU, torch.float32)


def test_missing_weights(checkpoint: Path) -> None:
    index = checkpoint / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    gone = content["weight_map"]["lm_head.weight"]
    content["weight_map"] = {k: v for k, v in content["weight_map"].items() if v != gone}
    index.write_text(json.dumps(content))
    with pytest.raises(InputError, match="weights are missing"):
        load(checkpoint, CPU, torch.float32)


def test_no_weights_at_all(checkpoint: Path) -> None:
    for file in checkpoint.glob("model*"):
        file.unlink()
    with pytest.raises(InputError, match="holds neither"):
        load(checkpoint, CPU, torch.float32)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"model_type": "gpt2"}', '{"model_type": 3}'])
def test_config_that_is_no_llama(checkpoint: Path, text: str) -> None:
    (checkpoint / "config.json").write_text(text)
    with pytest.raises(InputError):
        describe(str(checkpoint))


@pytest.mark.parametrize(
    "text",
    [
        '{"model_type": "llama", "hidden_size": "wide"}',
        '{"model_type": "llama", "num_attention_heads": 0}',
    ],
)
def test_config_with_impossible_values(checkpoint: Path, text: str) -> None:
    (checkpoint / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        describe(str(checkpoint))


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        load_pair(f"tiny:{tmp_path}/nowhere", CPU, cache_tokens=0)
    with pytest.raises(InputError, match="not a directory"):
        load(tmp_path / "nowhere", CPU, torch.float32)


@pytest.mark.parametrize("name", ["tiny", "tiny:", ":tiny", "tiny:nosuch", "nosuch:tiny", ""])
def test_pairs_that_are_none(name: str) -> None:
    with pytest.raises(InputError):
        load_pair(name, CPU, cache_tokens=0)


def test_two_vocabularies(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"vocab_size": 300}))
    with pytest.raises(InputError, match=r"share a vocabulary; .* 256 tokens .* 300"):
        load_pair(f"{checkpoint}:{other}", CPU, cache_tokens=0)


def test_memory_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(SHAPES["tinyllama-1.1b"], SHAPES["codellama-34b"])
    cache_tokens = 1000
    per_token = pair.draft.kv_bytes_per_token + pair.verifier.kv_bytes_per_token
    needed = pair.weight_bytes + cache_tokens * per_token
    for free in (needed - 1, needed):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, free))
        if free == needed:
            check_memory(pair, cache_tokens, torch.device("cuda", 0))
            continue
        with pytest.raises(CapacityError) as caught:
            check_memory(pair, cache_tokens, torch.device("cuda", 0))
        assert f"needs {needed:,} bytes" in str(caught.value)
        assert f"{free:,} of {free:,} bytes are free" in str(caught.value)


def test_cuda_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CapacityError, match="cuda was asked for, but this machine has 0 CUDA"):
        open_device("cuda")


@pytest.mark.parametrize("name", ["tpu", "", "cuda:x", "cpu:zero"])
def test_devices_that_are_none(name: str) -> None:
    with pytest.raises(InputError, match="unknown device"):
        open_device(name)
