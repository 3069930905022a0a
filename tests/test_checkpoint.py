"""Checkpoints: what both engines refuse before they load it, and in the same words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

import torch
from safetensors.torch import load_file, save_file

from pdvsim.core import EAGER, GRAPH, Executor
from pdvsim.errors import CapacityError, InputError
from pdvsim.model_config import shape_of_config
from pdvsim.models import SHIPPED, FoundModel, shapes
from realengine.build import Demand, Opened, open_engine
from realengine.checkpoint import check_context, runnable, runnable_pair, shared_vocabulary
from realengine.models import hugging_face_config
from tests.checkpoints import FAMILIES, SMALL, make_checkpoint

torch.set_num_threads(1)
BOTH = pytest.mark.parametrize("executor", [EAGER, GRAPH], ids=lambda executor: executor.name)


def opened(reference: str, executor: Executor, context_tokens: int = 64) -> Opened:
    return open_engine(reference, executor, "cpu", Demand(2, 2, context_tokens))


def test_what_transformers_cannot_read_is_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", FAMILIES["qwen3"])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"layer_types": []}))
    with pytest.raises(InputError, match=r"config\.json"):
        opened(f"{folder}:{folder}", GRAPH)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = make_checkpoint(tmp_path / "model", FAMILIES["llama-2"])
    assert len(list(made.glob("*.safetensors"))) > 1
    return made


def change_config(folder: Path, **keys: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


@pytest.mark.parametrize("name", sorted(shapes()))
def test_transformers_reads_shipped_configs_as_we_do(name: str) -> None:
    """Both from the file and from the configuration that random weights are built with."""
    from transformers import AutoConfig

    config = json.loads((SHIPPED / f"{name}.json").read_text())
    for described in (AutoConfig.for_model(**config), hugging_face_config(shapes()[name])):
        assert shape_of_config(described.to_dict(), name, "here") == shapes()[name]


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_absent_keys_mean_what_transformers_takes_them_for(kind: str, tmp_path: Path) -> None:
    needed = {k: v for k, v in SMALL.items() if k.endswith("_size") or k.startswith("num_hidden")}
    content = needed | {"model_type": kind, "num_attention_heads": 32}
    (tmp_path / "config.json").write_text(json.dumps(content | {"max_position_embeddings": 256}))
    assert runnable(f"m={tmp_path}").shape.family == kind


@BOTH
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config is 'fp8'"),
        ({"rms_norm_eps": 1e30}, "epsilon"),
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ({"model_type": "gpt2"}, "'gpt2'"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "'yarn'"),
        ({"hidden_size": "wide"}, "'wide'"),
        ({"num_hidden_layers": 3}, r"no tensor 'model\.layers\.2\."),
        ({"num_hidden_layers": 1}, "has no use for"),
        ({"head_dim": 64}, r"config\.json says \(256, 128\)"),
        ({"attention_bias": True}, r"no tensor .*bias"),
    ],
)
def test_what_the_engines_lack_is_named_before_loading(
    change: dict[str, object], words: str, executor: Executor, folder: Path
) -> None:
    change_config(folder, **change)
    with pytest.raises(InputError, match=words) as caught:
        opened(f"{folder}:{folder}", executor)
    assert "\n" not in str(caught.value)


@BOTH
def test_damage_to_files_is_named(executor: Executor, folder: Path) -> None:
    shards = sorted(folder.glob("*.safetensors"))
    shards[0].write_bytes(shards[0].read_bytes()[:50])
    with pytest.raises(InputError, match=shards[0].name):
        opened(f"{folder}:{folder}", executor)
    shards[1].unlink()
    with pytest.raises(InputError, match=f"lacks {shards[1].name}"):
        opened(f"{folder}:{folder}", executor)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../x"}}')
    with pytest.raises(InputError, match="no weight_map"):
        opened(f"{folder}:{folder}", executor)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(InputError, match="holds neither"):
        opened(f"{folder}:{folder}", executor)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json"):
        opened(f"{folder}:{folder}", executor)


def edit(folder: Path, name: str, value: torch.Tensor | None) -> None:
    """Replace or remove a tensor where it is stored."""
    shard = next(f for f in folder.glob("*.safetensors") if name in load_file(f))
    tensors = load_file(shard)
    del tensors[name]
    save_file(tensors if value is None else tensors | {name: value}, shard)


@BOTH
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.ones(31), r"'model\.norm\.weight' .* is \(31,\)"),
        (torch.ones(128).to(torch.float8_e4m3fn), "stored as F8_E4M3"),
        (None, r"does not hold 'model\.norm\.weight'"),
    ],
)
def test_missing_and_misshapen_tensors_are_named(
    value: torch.Tensor | None, words: str, executor: Executor, folder: Path
) -> None:
    edit(folder, "model.norm.weight", value)
    with pytest.raises(InputError, match=words):
        opened(f"{folder}:{folder}", executor)


@BOTH
def test_contexts_that_a_model_does_not_have_are_refused(
    executor: Executor, tmp_path: Path
) -> None:
    folder = make_checkpoint(tmp_path / "windowed", FAMILIES["mistral"])
    assert opened(f"{folder}:{folder}", executor, 128)
    with pytest.raises(InputError, match=r"last 128 only \(sliding_window\)"):
        opened(f"{folder}:{folder}", executor, 129)
    with pytest.raises(InputError, match="windowed reaches 256"):
        opened(f"{folder}:{folder}", executor, 257)


def test_a_context_of_exactly_the_limit_is_taken() -> None:
    check_context([shapes()["mistral-7b-v0.1"]], 4096)
    check_context([shapes()["llama-2-7b"]], 4096)
    with pytest.raises(InputError):
        check_context([shapes()["llama-2-7b"]], 4097)


def tokenizer(folder: Path, pieces: Any, added: int = 0) -> None:
    extra = [{"id": len(pieces) + i, "content": f"<{i}>"} for i in range(added)]
    content = {"model": {"vocab": pieces}, "added_tokens": extra}
    (folder / "tokenizer.json").write_text(json.dumps(content))


@pytest.fixture
def padded(tmp_path: Path) -> tuple[FoundModel, FoundModel]:
    """A pair whose vocabularies have 96 and 104 tokens."""
    wide = make_checkpoint(tmp_path / "wide", FAMILIES["llama-2"] | {"vocab_size": 104})
    narrow = make_checkpoint(tmp_path / "narrow", FAMILIES["llama-2"])
    return runnable_pair(f"{narrow}:{wide}")


def test_vocabularies_may_differ_by_padding_if_the_tokenizers_agree(
    padded: tuple[FoundModel, FoundModel],
) -> None:
    with pytest.raises(InputError, match=r"96 tokens and verifier wide 104; without"):
        shared_vocabulary(*padded)
    for model in padded:
        tokenizer(model.folder or Path(), {f"t{i}": i for i in range(90)}, added=6)
    assert shared_vocabulary(*padded) == 96
    for model in padded:
        tokenizer(model.folder or Path(), {f"t{i}": i for i in range(90)}, added=7)
    with pytest.raises(InputError, match="uses more than 96"):
        shared_vocabulary(*padded)


@pytest.mark.parametrize("pieces", [{"a": 1, "b": 0}, [["a", 0.0]]])
def test_tokenizers_that_number_differently_are_no_pair(folder: Path, pieces: Any) -> None:
    tokenizer(folder, {"a": 0, "b": 1})
    draft, verifier = runnable_pair(f"{folder}:{folder}")
    other = folder.parent / "other"
    other.mkdir()
    tokenizer(other, pieces)
    with pytest.raises(InputError, match="number tokens differently"):
        shared_vocabulary(draft, replace(verifier, folder=other))
    (other / "tokenizer.json").write_text('{"model": []}')
    with pytest.raises(InputError, match=r"not a tokenizer\.json"):
        shared_vocabulary(draft, replace(verifier, folder=other))


@BOTH
@pytest.mark.parametrize("pair", ["tiny:tinyllama-1.1b", "qwen3-0.6b:llama-3.1-8b"])
def test_models_without_a_common_vocabulary_are_no_pair(pair: str, executor: Executor) -> None:
    with pytest.raises(InputError, match="must share its vocabulary"):
        opened(pair, executor)


def test_shapes_of_one_family_may_differ_by_padding() -> None:
    assert shared_vocabulary(*runnable_pair("qwen2.5-0.5b:qwen2.5-7b")) == 151936


@BOTH
def test_a_gpu_that_is_not_there_is_said(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CapacityError, match="cuda was asked for, but this machine has 0 CUDA"):
        open_engine("tiny:tiny", executor, "cuda", Demand(2, 2, 64))
