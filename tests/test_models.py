"""Shapes of models: what ships, what a `config.json` says, and how a pair is referred to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pdvsim.errors import InputError
from pdvsim.model_config import FAMILIES, shape_of_config
from pdvsim.models import SHIPPED, ModelShape, Rope, named_by_hub, pair, resolve, shape, shapes

# Parameters as the models' publishers count them (tied embeddings once).
PUBLISHED = {
    "tinyllama-1.1b": 1_100_048_384,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "codellama-7b": 6_738_546_688,
    "codellama-13b": 13_016_028_160,
    "codellama-34b": 33_743_970_304,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.3-70b": 70_553_706_496,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "mistral-7b-v0.1": 7_241_732_096,
    "mistral-7b-v0.3": 7_248_023_552,
    "mistral-nemo-12b": 12_247_782_400,
    "mistral-small-24b": 23_572_403_200,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
}
# Bytes of KV cache per token in bf16: 2 (key, value) x layers x key heads x head size x 2 bytes.
CACHE_BYTES = {
    "llama-3.1-8b": 131_072,
    "qwen3-0.6b": 114_688,
    "qwen2.5-7b": 57_344,
    "mistral-nemo-12b": 163_840,
}
LLAMA: dict[str, Any] = json.loads((SHIPPED / "llama-2-7b.json").read_text())
QWEN3: dict[str, Any] = json.loads((SHIPPED / "qwen3-0.6b.json").read_text())


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_shipped_shapes_have_their_published_number_of_parameters(name: str) -> None:
    assert shape(name).parameters == PUBLISHED[name]


def test_every_shipped_shape_but_the_made_up_ones_is_held_against_a_published_number() -> None:
    assert set(shapes()) - set(PUBLISHED) == {"tiny", "toy-draft", "toy-verifier"}


@pytest.mark.parametrize(("name", "cache_bytes"), CACHE_BYTES.items())
def test_cache_bytes_follow_from_key_heads_and_their_size(name: str, cache_bytes: int) -> None:
    assert shape(name).kv_bytes_per_token == cache_bytes


def test_the_toy_shapes_are_those_of_its_checkpoints() -> None:
    root = Path(__file__).parent.parent / "realengine" / "toy"
    for side in ("draft", "verifier"):
        content = json.loads((root / side / "config.json").read_text())
        assert shape_of_config(content, f"toy-{side}", "here") == shape(f"toy-{side}")


def test_floors_count_the_embedding_table_only_where_it_is_the_head() -> None:
    untied = ModelShape("untied", 1, 8, 2, 2, 16, 1000)
    tied = ModelShape("tied", 1, 8, 2, 2, 16, 1000, tied_embeddings=True)
    assert untied.parameters == tied.parameters + 8000
    assert untied.floor_s(1, 0, 1.0, 1e9) == tied.floor_s(1, 0, 1.0, 1e9)
    assert untied.flops_per_token == tied.flops_per_token


def test_names_are_known_in_any_case() -> None:
    assert pair("TinyLlama-1.1B:Llama-2-7B") == pair("tinyllama-1.1b:llama-2-7b")
    assert pair("Toy").name == "toy-draft:toy-verifier"


def test_a_directory_is_a_model_of_its_name_or_of_one_given(tmp_path: Path) -> None:
    folder = tmp_path / "My-Model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    for reference, name in ((str(folder), "My-Model"), (f"mine={folder}", "mine")):
        found = resolve(reference)
        assert found.shape.name == name and found.folder == folder
        assert not found.shape.difference(shape("llama-2-7b"))
    shape_only = resolve(f"mine={folder}/config.json")
    assert shape_only.shape == found.shape and shape_only.folder is None


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("tiny", "DRAFT:VERIFIER"),
        ("", "DRAFT:VERIFIER"),
        (":tiny", "DRAFT:VERIFIER"),
        ("tiny:", "DRAFT:VERIFIER"),
        ("tiny:nosuch", "unknown model 'nosuch'"),
        ("tiny:./nosuch", "no such directory"),
        ("tiny:a b=/tmp", "cannot be called"),
        ("tiny:tiny=/tmp", "call yours something else"),
        ("tiny:x=/nowhere/config.json", "/nowhere/config.json"),
        ("tiny:" + "x" * 5000, "unknown model"),
        ("tiny:a\0b", "unknown model"),
    ],
)
def test_what_is_no_pair_is_said(reference: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        pair(reference)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_without_a_name_is_asked_for_one(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    with pytest.raises(InputError, match="NAME="):
        resolve(str(tmp_path / "config.json"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config is 'fp8'"),
        ({"model_type": "gpt2"}, "model_type is 'gpt2'"),
        ({"model_type": 3}, "model_type is 3"),
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({"rms_norm_eps": 1e30}, "epsilon is 1e+30"),
        ({"rms_norm_eps": -1e-6}, "epsilon is -1e-06"),
        ({"max_position_embeddings": -1}, "max_context_tokens is -1"),
        ({"num_attention_heads": 0}, "heads is 0"),
        ({"num_attention_heads": 31}, "must be even"),
        ({"num_key_value_heads": 5}, "cannot share 5"),
        ({"hidden_size": "wide"}, "hidden_size is 'wide'"),
        ({"hidden_size": None}, "does not say hidden_size"),
        ({"hidden_size": 2**60}, "between 1 and"),
        ({"vocab_size": 32000.5}, "vocab_size is 32000.5"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "'yarn' is not supported"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "'linear' is not supported"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "does not say factor"),
        ({"rope_theta": 0}, "theta is 0"),
        (
            {
                "rope_scaling": {
                    **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0},
                    **{"high_freq_factor": 1.0, "original_max_position_embeddings": 8192},
                }
            },
            "must be below high_frequency_factor",
        ),
        (
            {
                "rope_scaling": {
                    **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0},
                    **{"high_freq_factor": 4.0, "original_max_position_embeddings": -1},
                }
            },
            "original_context_tokens is -1",
        ),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "each kind of layer"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
    ],
)
def test_what_no_shape_can_hold_is_refused_by_name(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as caught:
        shape_of_config(LLAMA | change, "m", "c/config.json")
    assert words in str(caught.value)
    assert str(caught.value).startswith("c/config.json") and "\n" not in str(caught.value)


def test_keys_that_a_family_does_not_have_are_refused() -> None:
    mistral = json.loads((SHIPPED / "mistral-7b-v0.3.json").read_text())
    with pytest.raises(InputError, match="no mistral model has"):
        shape_of_config(mistral | {"attention_bias": True}, "m", "c")


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(InputError, match="not a JSON object"):
        shape_of_config([], "m", "c")


def test_families_bring_what_they_imply() -> None:
    assert shape("qwen3-8b").qk_norm and not shape("qwen3-8b").qkv_bias
    assert shape("qwen2.5-7b").qkv_bias and not shape("qwen2.5-7b").output_bias
    assert shape("mistral-7b-v0.1").longest_context_tokens == 4096
    assert shape("mistral-7b-v0.3").longest_context_tokens == 32768
    assert shape("qwen3-0.6b").head_size == 128
    assert shape("llama-3.1-8b").rope == Rope(500000.0, 8.0, 1.0, 4.0, 8192)
    biased = shape_of_config(LLAMA | {"attention_bias": True, "mlp_bias": True}, "m", "c")
    assert biased.parameters - shape("llama-2-7b").parameters == 32 * (4 * 4096 + 2 * 11008 + 4096)


@given(
    kind=st.sampled_from(sorted(FAMILIES)),
    removed=st.sets(st.sampled_from(sorted(QWEN3))),
    key=st.sampled_from([*QWEN3, "rope_parameters", "layer_types", "sliding_window"]),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
        max_leaves=4,
    ),
)
@example(kind="llama", removed={"architectures"}, key="layer_types", value=1)
def test_any_config_is_a_shape_or_a_sentence(
    kind: str, removed: set[str], key: str, value: object
) -> None:
    config = {k: v for k, v in QWEN3.items() if k not in removed} | {"model_type": kind}
    try:
        assert shape_of_config({**config, key: value}, "m", "c").parameters > 0
    except InputError as error:
        assert str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        ("meta-llama/Llama-2-7b-chat-hf", "llama-2-7b"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "tinyllama-1.1b"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral-7b-v0.3"),
        ("mistralai/Mistral-Small-24B-Instruct-2501", "mistral-small-24b"),
        ("Qwen/Qwen2.5-7B-Instruct/", "qwen2.5-7b"),
        ("codellama/CodeLlama-34b-Instruct-hf", "codellama-34b"),
        ("/models/Qwen3-8B", "qwen3-8b"),
        ("neuralmagic/Meta-Llama-3.1-8B-Instruct-FP8", None),
        ("Qwen/Qwen3-30B-A3B", None),
        ("m", None),
        ("", None),
    ],
)
def test_names_on_the_hub(identifier: str, name: str | None) -> None:
    found = named_by_hub(identifier)
    assert (found and found.name) == name
