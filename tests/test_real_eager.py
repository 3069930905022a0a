"""The eager executor: speculative greedy decoding is greedy decoding of the verifier."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from pdvsim.architectures import ARCHITECTURES
from pdvsim.core import EAGER, Request, Stage, Stream, settle
from pdvsim.models import ModelShape
from pdvsim.record_files import stage_table
from pdvsim.records import RunRecord
from pdvsim.workload import Workload
from realengine.device import open_device
from realengine.eager import EagerEngine
from realengine.models import build
from realengine.prompts import Prompts
from realengine.world import run
from tests.fakes import config_of

SHAPES = (
    ModelShape("wide", 2, 64, 4, 2, 128, 256),
    ModelShape("shallow", 1, 32, 2, 1, 64, 61),
    ModelShape("deep", 4, 48, 4, 4, 96, 128),
)
DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
# Random weights this large make the next token depend on all earlier ones; noise this large
# makes a draft agree with its verifier about half the time.
GAIN = 6.0
NOISE = 0.15


@cache
def noisy_pair(shape: ModelShape, device: str) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A verifier, and a draft that is the verifier with noise. float32 on every device."""
    verifier = build(shape, torch.device(device), torch.float32, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in verifier.parameters():
            weight.mul_(GAIN if weight.ndim > 1 else 1.0)
        draft = copy.deepcopy(verifier)
        for weight in draft.parameters():
            noise = torch.randn(weight.shape, generator=generator).to(weight.device)
            weight.add_(noise * weight.std() * NOISE if weight.ndim > 1 else 0.0)
    return draft, verifier


def greedy(verifier: PreTrainedModel, prompt: list[int], tokens: list[int]) -> list[int]:
    """What greedy decoding says after the prompt and after each of `tokens` but the last, in one
    pass without a cache: they are its output just if this gives them back."""
    text = torch.tensor([[*prompt, *tokens[:-1]]], device=verifier.device)
    with torch.inference_mode():
        logits = verifier(text, use_cache=False).logits
    found: list[int] = logits[0, len(prompt) - 1 :].argmax(-1).tolist()
    return found


def decode(
    name: str, shape: ModelShape, workload: Workload, draft_tokens: int, seed: int, device: str
) -> tuple[RunRecord, EagerEngine]:
    draft, verifier = noisy_pair(shape, device)
    engine = EagerEngine(
        draft, verifier, open_device(device), Prompts(shape.vocabulary, seed), draft_tokens
    )
    config = config_of(name, batch_cap=3, workers=2, draft_tokens=draft_tokens)
    return run(config, workload, engine, stuck_s=30.0), engine


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ARCHITECTURES)
@settings(max_examples=8, deadline=None, derandomize=True, database=None)
@given(
    shape=st.sampled_from(SHAPES),
    draft_tokens=st.integers(1, 6),
    seed=st.integers(0, 1000),
    lengths=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=4),
)
def test_output_is_the_verifiers_greedy_output(
    name: str,
    device: str,
    shape: ModelShape,
    draft_tokens: int,
    seed: int,
    lengths: list[tuple[int, int]],
) -> None:
    prompts, outputs = zip(*lengths, strict=True)
    workload = Workload(
        "poisson", prompts, outputs, [()] * len(lengths), arrival_s=[0.0] * len(lengths)
    )
    record, engine = decode(name, shape, workload, draft_tokens, seed, device)
    for request in record.requests:
        assert request.completed_s is not None
        assert len(request.tokens) == request.produced_tokens >= request.output_tokens
        prompt = engine._prompts.of(request)
        assert request.tokens == greedy(engine._verifier, prompt, request.tokens)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_acceptance_is_neither_nothing_nor_everything(shape: ModelShape) -> None:
    workload = Workload("closed-loop", [8] * 8, [24] * 8, [()] * 8, in_flight=8)
    record, _ = decode("pdv", shape, workload, 4, 0, "cpu")
    drafted = sum(request.drafted_tokens for request in record.requests)
    accepted = sum(request.accepted_tokens for request in record.requests)
    assert 0.1 < accepted / drafted < 0.9


def test_injected_acceptance_decides_and_every_kernel_runs() -> None:
    outcomes = [0, 1, 2, 3, 4, 4, 4, 4]
    workload = Workload("closed-loop", [5], [14], [outcomes], in_flight=1)
    record, _ = decode("baseline", SHAPES[0], workload, 4, 0, "cpu")
    (request,) = record.requests
    assert (request.rounds, request.accepted_tokens) == (5, 10)
    assert len(request.tokens) == request.produced_tokens == 1 + 2 + 3 + 4 + 4
    stages = [row["stage"] for row in stage_table(record).iter_rows(named=True)]
    once = ["draft", "verify", "commit_draft", "commit_verifier"]
    assert stages == ["prefill_draft", "prefill_verifier", *once * 5]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_every_round_may_have_its_own_length(shape: ModelShape) -> None:
    """... and none at all is a plain decode that keeps the draft's cache right."""
    draft, verifier = noisy_pair(shape, "cpu")
    engine = EagerEngine(draft, verifier, open_device("cpu"), Prompts(shape.vocabulary))
    prompt = [5, 9, 2, 7]
    request, drafted = Request(0, len(prompt), 30, prompt=prompt), 0
    for stage in EAGER.prefill:
        engine.launch(stage, [request], Stream.MAIN, ())
    for length in [3, 0, 1, 0, 0, 6, 2, 0, 5, 1, 4] * 3:
        if request.finished:
            break
        for stage in EAGER.speculate + EAGER.check:
            ticket = engine.launch(stage, [request], Stream.MAIN, (), [length])
            settle(EAGER, stage, [request], [length], 0.0, engine.settle(ticket))
        drafted += length
        state = engine._states[0]
        for side in (state.draft, state.verifier):
            assert side.cache.get_seq_length() == request.context_tokens
    assert request.drafted_tokens == drafted > request.accepted_tokens
    assert request.tokens == greedy(verifier, prompt, request.tokens)


def test_a_round_leaves_both_caches_at_the_text() -> None:
    """... and frees them when the request is released."""
    draft, verifier = noisy_pair(SHAPES[0], "cpu")
    engine = EagerEngine(draft, verifier, open_device("cpu"), Prompts(SHAPES[0].vocabulary))
    request = Request(0, prompt_tokens=3, output_tokens=9, prompt=[7, 8, 9])
    for stage in (*EAGER.prefill, *EAGER.speculate, *EAGER.check):
        ticket = engine.launch(stage, [request], Stream.MAIN, ())
        ticket.wait()
        accepted = engine.settle(ticket)
        assert (accepted is not None) is (stage is Stage.COMMIT_VERIFIER)
    state = engine._states[0]
    assert request.tokens == state.tokens
    for side in (state.draft, state.verifier):
        assert side.cache.get_seq_length() == 3 + len(request.tokens)
    engine.release(request)
    assert not engine._states


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_device_times_lie_between_launch_and_settlement(name: str) -> None:
    workload = Workload("closed-loop", [8] * 8, [24] * 8, [()] * 8, in_flight=4)
    decode(name, SHAPES[0], workload, 4, 0, "cuda")  # pays for first use
    record, _ = decode(name, SHAPES[0], workload, 4, 0, "cuda")
    slack_s = 50e-6  # of the alignment of two clocks
    assert (record.column("started_s") > record.column("launched_s") - slack_s).all()
    assert (record.column("ended_s") >= record.column("started_s")).all()
    assert (record.column("settled_s") >= record.column("ended_s")).all()
    assert 0 < record.busy_s["device"] <= record.end_s
