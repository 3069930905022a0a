"""Weights and forward passes: the same model as Hugging Face's, or a clear refusal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from pdvsim.core import Request
from pdvsim.errors import CapacityError, InputError
from pdvsim.models import SHAPES
from realengine import toy
from realengine.graph import GraphConfig, build_engine
from realengine.graph.weights import load_weights, random_weights
from tests.graph_driver import CPU, SHAPE, engine, serve


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A tiny Hugging Face checkpoint in three shards."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "tiny", max_shard_size="20KB")
    return tmp_path / "tiny"


def hugging_face_tokens(folder: Path, prompt: list[int], count: int) -> list[int]:
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([prompt])
    out = model.generate(ids, max_new_tokens=count, do_sample=False, pad_token_id=0)
    return out[0, len(prompt) :].tolist()  # type: ignore[no-any-return]


def test_greedy_output_is_hugging_faces(checkpoint: Path) -> None:
    for folder, prompt in ((checkpoint, [5, 9, 33, 2, 60]), (toy.VERIFIER, toy.prompts(1, 40)[0])):
        weights = load_weights(folder, CPU, torch.float32)
        request = Request(0, len(prompt), 24, prompt=prompt)
        serve(engine(GraphConfig(4, 1, 96), weights, None), [request], plain=True)
        assert request.tokens == hugging_face_tokens(folder, prompt, 24)


def test_the_toy_pair_speculates_truly() -> None:
    """Its greedy output is its verifier's own, and most of its drafts are kept."""
    served = build_engine("toy", GraphConfig(4, 8, 160), "cpu")
    prompts = toy.prompts(8, 64)
    requests = [Request(i, 64, 48, prompt=prompt) for i, prompt in enumerate(prompts)]
    plain = [Request(i, 64, 48, prompt=prompt) for i, prompt in enumerate(prompts)]
    serve(served, requests)
    serve(served, plain, plain=True)
    assert [r.tokens for r in requests] == [r.tokens for r in plain]
    accepted = sum(r.accepted_tokens for r in requests) / sum(r.drafted_tokens for r in requests)
    assert 0.5 < accepted < 0.95


def test_a_missing_shard_is_named(checkpoint: Path) -> None:
    shard = sorted(checkpoint.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(InputError, match=f"lacks {shard.name}"):
        load_weights(checkpoint, CPU, torch.float32)


def test_a_damaged_shard_is_named(checkpoint: Path) -> None:
    shard = sorted(checkpoint.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:50])
    with pytest.raises(InputError, match=shard.name):
        load_weights(checkpoint, CPU, torch.float32)


def test_missing_and_misshapen_tensors_are_named(checkpoint: Path) -> None:
    shard = next(f for f in checkpoint.glob("*.safetensors") if "model.norm.weight" in load_file(f))
    tensors = load_file(shard)
    save_file(tensors | {"model.norm.weight": torch.ones(31)}, shard)
    with pytest.raises(InputError, match=r"model\.norm\.weight.*\(31,\)"):
        load_weights(checkpoint, CPU, torch.float32)
    del tensors["model.norm.weight"]
    save_file(tensors, shard)
    with pytest.raises(InputError, match=r"model\.norm\.weight"):
        load_weights(checkpoint, CPU, torch.float32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gpt2"}, "'gpt2' checkpoint"),
        ({"attention_bias": True}, "biases"),
        ({"head_dim": 64}, "head_dim"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "'llama3' is not supported"),
        ({"hidden_size": None}, "hidden_size"),
    ],
)
def test_other_models_are_refused(checkpoint: Path, change: dict[str, object], words: str) -> None:
    file = checkpoint / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match=words):
        load_weights(checkpoint, CPU, torch.float32)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        load_weights(tmp_path, CPU, torch.float32)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="not a whole JSON"):
        load_weights(tmp_path, CPU, torch.float32)


def test_models_without_a_common_vocabulary_are_no_pair(checkpoint: Path) -> None:
    with pytest.raises(InputError, match="vocabulary of 64 and verifier verifier one of 256"):
        build_engine(f"{checkpoint}:{toy.VERIFIER}", GraphConfig(), "cpu")
    verifier = random_weights(SHAPE, CPU, torch.float32)
    one, two = checkpoint, checkpoint.parent / "other"
    two.mkdir()
    for folder, vocabulary in ((one, {"a": 0, "b": 1}), (two, {"a": 1, "b": 0})):
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    with pytest.raises(InputError, match="number tokens differently"):
        engine(GraphConfig(), replace(verifier, folder=one), replace(verifier, folder=two))


def test_too_large_a_model_says_how_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realengine.graph.weights.free_bytes", lambda device: 10**9)
    with pytest.raises(CapacityError, match=r"needs 27\.0 GB for its weights; 1\.0 GB are free"):
        random_weights(SHAPES["llama-2-7b"], CPU, torch.float32)


@pytest.mark.parametrize("name", ["llama-2-7b", "a:", "tiny:nowhere", "nowhere:tiny"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(InputError):
        build_engine(name, GraphConfig(), "cpu")


def test_a_gpu_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CapacityError, match="no CUDA GPU"):
        build_engine("toy", GraphConfig(), "cuda")
