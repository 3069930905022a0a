"""Weights and forward passes of the graph engine; what it refuses is in test_checkpoint.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pdvsim.core import Request
from pdvsim.errors import CapacityError, InputError
from pdvsim.models import FoundModel, NoModel, Rope, shape
from realengine import toy
from realengine.graph import GraphConfig, build_engine
from realengine.graph.build import check_heads
from realengine.graph.rope import frequencies
from realengine.graph.weights import random_weights
from tests.checkpoints import FAMILIES, greedy_tokens, make_checkpoint
from tests.graph_driver import CPU, serve


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_decoding_of_a_checkpoint_is_transformers_own(family: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", FAMILIES[family])
    check_plain(folder, [5, 9, 33, 2, 60])


def test_the_toy_verifier_says_what_transformers_makes_it_say() -> None:
    check_plain(toy.VERIFIER, toy.prompts(1, 40)[0])


def check_plain(folder: Path, prompt: list[int]) -> None:
    request = Request(0, len(prompt), 24, prompt=prompt)
    serve(build_engine(f"none:{folder}", GraphConfig(4, 1, 96), "cpu"), [request], plain=True)
    assert request.tokens == greedy_tokens(folder, prompt, 24, torch.float32)


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


@pytest.mark.parametrize("rope", [Rope(), Rope(5e5, 8.0), Rope(5e5, 32.0, 1.0, 4.0, 64)])
def test_rotary_frequencies_are_transformers_own(rope: Rope) -> None:
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    from realengine.models import hugging_face_config

    config = hugging_face_config(replace(shape("llama-3.1-8b"), rope=rope))
    theirs = LlamaRotaryEmbedding(config).inv_freq
    torch.testing.assert_close(frequencies(rope, 128).float(), theirs, rtol=1e-5, atol=0.0)


def test_too_large_a_model_says_how_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realengine.graph.weights.free_bytes", lambda device: 10**9)
    with pytest.raises(CapacityError, match=r"needs 27\.0 GB for its weights; 1\.0 GB are free"):
        random_weights(shape("llama-2-7b"), CPU, torch.float32)


def test_heads_that_no_kernel_takes_are_refused() -> None:
    good = FoundModel(shape("llama-3.1-8b"))
    check_heads(good, good)
    for size in (16, 80):
        odd = FoundModel(replace(good.shape, name="odd", head_size=size))
        for pair in ((odd, good), (NoModel("none"), odd)):
            with pytest.raises(InputError, match=f"odd has heads of {size}; on a GPU"):
                check_heads(*pair)


@pytest.mark.parametrize("name", ["llama-2-7b", "a:", "tiny:nowhere", "nowhere:tiny", ":"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(InputError):
        build_engine(name, GraphConfig(), "cpu")
