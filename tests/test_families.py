"""Every model family in both executors: greedy tokens are transformers' own, in float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

import torch
from transformers import AutoModelForCausalLM

from pdvsim.core import EAGER, GRAPH, Executor, Request, Stream, settle
from realengine.checkpoint import runnable_pair
from realengine.device import open_device
from realengine.eager import EagerEngine
from realengine.engine import Engine
from realengine.graph import GraphConfig, build_engine
from realengine.models import load_pair
from realengine.prompts import Prompts
from tests.checkpoints import FAMILIES, greedy_tokens, make_checkpoint

torch.set_num_threads(1)
DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
PROMPT = [5, 9, 33, 2, 60, 71, 8, 1, 44, 17, 90, 3] * 4
OUTPUT = 40


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {name: make_checkpoint(root / name, flags) for name, flags in FAMILIES.items()}


def serve(engine: Engine, prompt: list[int], output: int) -> Request:
    executor = engine.executor
    request = Request(0, len(prompt), output, prompt=prompt)
    stages = executor.prefill
    while not request.finished:
        for stage in stages:
            ticket = engine.launch(stage, [request], Stream.MAIN, ())
            ticket.wait()
            kept = engine.settle(ticket)
            settle(executor, stage, [request], engine.draft_tokens, 0.0, kept)
        stages = executor.speculate + executor.check
    engine.release(request)
    return request


def engine_of(pair: str, executor: Executor, device: str) -> Engine:
    """In float32 on every device."""
    if executor is GRAPH:
        config = GraphConfig(3, 1, len(PROMPT) + OUTPUT)
        return build_engine(pair, config, device, torch.float32)
    where = open_device(device)
    loaded = load_pair(*runnable_pair(pair), where.device, 0, dtype=torch.float32)
    prompts = Prompts(loaded.vocabulary)
    return EagerEngine(loaded.draft, loaded.verifier, where, prompts, draft_tokens=3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("executor", [EAGER, GRAPH], ids=lambda executor: executor.name)
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_transformers_own(
    family: str, executor: Executor, device: str, checkpoints: dict[str, Path]
) -> None:
    """Drafted by itself, and by another model, so that some drafts are kept and some are not."""
    folder = checkpoints[family]
    own, other = f"{folder}:{folder}", f"{checkpoints['llama-2']}:{folder}"
    expected = greedy_tokens(folder, PROMPT, OUTPUT, torch.float32)
    assert len(set(expected)) > 8  # a model that repeats itself proves little
    for pair in (own, other):
        request = serve(engine_of(pair, executor, device), PROMPT, OUTPUT)
        assert request.tokens[:OUTPUT] == expected
        assert (request.accepted_tokens == request.drafted_tokens) == (pair == own)


@pytest.mark.parametrize("executor", [EAGER, GRAPH], ids=lambda executor: executor.name)
@pytest.mark.parametrize("wide", ["draft", "verifier"])
def test_a_padded_vocabulary_says_only_what_both_models_know(
    wide: str, executor: Executor, tmp_path: Path
) -> None:
    sizes = {"draft": 96, "verifier": 96, wide: 128}
    for name, size in sizes.items():
        folder = make_checkpoint(tmp_path / name, FAMILIES["qwen2"] | {"vocab_size": size})
        content = {"model": {"vocab": {f"t{i}": i for i in range(96)}}}
        (folder / "tokenizer.json").write_text(json.dumps(content))
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "verifier", dtype=torch.float32)
    text, beyond = list(PROMPT), 0
    with torch.inference_mode():
        for _ in range(OUTPUT):
            scores = model(torch.tensor([text])).logits[0, -1]
            beyond += int(scores.argmax()) >= 96
            text.append(int(scores[:96].argmax()))
    assert wide == "draft" or beyond  # else the padding would not have been chosen anyway
    engine = engine_of(f"{tmp_path}/draft:{tmp_path}/verifier", executor, "cpu")
    assert serve(engine, PROMPT, OUTPUT).tokens[:OUTPUT] == text[len(PROMPT) :]
