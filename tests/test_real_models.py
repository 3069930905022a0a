"""Hugging Face models for the eager engine: random weights, checkpoints, memory, devices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from pdvsim.errors import CapacityError, InputError
from pdvsim.models import Pair, shape, shapes
from realengine.checkpoint import runnable, runnable_pair
from realengine.models import build, check_memory, load, load_pair
from tests.checkpoints import FAMILIES, make_checkpoint

torch.set_num_threads(1)

CPU = torch.device("cpu")
TINY = shape("tiny")
TEXT = torch.tensor([[1, 2, 3, 90, 4, 5]])


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = model(TEXT).logits
    return result


def test_building_is_deterministic() -> None:
    models = [build(TINY, CPU, torch.float32, seed) for seed in (1, 1, 2)]
    first, again, other = map(logits, models)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_built_model_is_what_the_library_builds() -> None:
    """All that is not a weight (rotary frequencies above all) equals a plainly made model's."""
    model = build(TINY, CPU, torch.float32)
    plain = AutoModelForCausalLM.from_config(model.config).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(logits(model), logits(plain))


@pytest.mark.parametrize(
    "name", ["tiny", "toy-verifier", "smollm2-135m", "qwen2.5-0.5b", "qwen3-0.6b"]
)
def test_parameters_are_as_many_as_the_shape_says(name: str) -> None:
    small = replace(shapes()[name], layers=2, vocabulary=64)
    model = build(small, CPU, torch.float32)
    assert sum(weight.numel() for weight in model.parameters()) == small.parameters


def test_bf16_rotates_in_float32() -> None:
    model = build(TINY, CPU, torch.bfloat16)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert model.model.rotary_emb.inv_freq.dtype is torch.float32


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_comes_back(family: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", FAMILIES[family])
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ours = load(runnable(str(folder)), CPU, torch.float32)
    assert torch.equal(logits(ours), logits(theirs))


def test_a_pair_may_be_a_shape_and_a_checkpoint(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", FAMILIES["llama-2"] | {"vocab_size": 256})
    loaded = load_pair(*runnable_pair(f"tiny:{folder}"), CPU, cache_tokens=0)
    assert loaded.vocabulary == 256
    with pytest.raises(InputError, match="nowhere"):
        runnable_pair(f"tiny:{tmp_path}/nowhere")


def test_memory_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(shape("tinyllama-1.1b"), shape("codellama-34b"))
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
