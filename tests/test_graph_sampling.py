"""Sampling without loss: the verifier's own distribution, per-request random numbers."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy
import pytest
import torch
from scipy import stats

from pdvsim.core import Request
from pdvsim.models import ModelShape
from realengine.graph import GraphConfig
from realengine.graph.model import forward, logits
from realengine.graph.ops import Ragged, TorchOps
from realengine.graph.paged import paged_cache
from realengine.graph.sampling import ACCEPT, FINAL, PROPOSE, draw, uniform
from tests.graph_driver import engine, serve, verifier_weights

SMALL = ModelShape("small", 1, 32, 2, 1, 48, 6, 64)
VERIFIER = verifier_weights(SMALL, sharpness=9.0)
NOISE = torch.randn(VERIFIER.head.shape, generator=torch.Generator().manual_seed(0))
DRAFT = replace(VERIFIER, head=VERIFIER.head + 0.2 * NOISE)
PROMPT = [1, 4, 2, 3]


def exact_distribution(temperature: float) -> dict[tuple[int, ...], float]:
    """Probability of each three tokens after `PROMPT`, from the verifier's logits."""
    sequences = list(itertools.product(range(SMALL.vocabulary), repeat=3))
    length, table = len(PROMPT) + 3, torch.arange(1, len(sequences) + 1, dtype=torch.int32)[:, None]
    lengths = torch.zeros(len(sequences), dtype=torch.int64)
    cache = paged_cache(SMALL, len(sequences) + 1, 16, table, lengths, torch.float32)
    tokens = torch.tensor([[*PROMPT, *sequence] for sequence in sequences])
    blocks = [[i * length, length, i, 0] for i in range(len(sequences))]
    hidden = forward(VERIFIER, TorchOps(), cache, tokens.flatten(), Ragged(torch.tensor(blocks)))
    log = (
        (logits(VERIFIER, TorchOps(), hidden) / temperature).log_softmax(-1).view(*tokens.shape, -1)
    )
    steps = log[:, len(PROMPT) - 1 : -1].gather(2, tokens[:, len(PROMPT) :, None])
    return dict(zip(sequences, steps.sum((1, 2)).exp().tolist(), strict=True))


def sampled(count: int, temperature: float, draft_tokens: int) -> tuple[list[Request], float]:
    config = GraphConfig(draft_tokens, count, 32, temperature=temperature, seed=5)
    requests = [Request(i, len(PROMPT), 3, prompt=PROMPT) for i in range(count)]
    serve(engine(config, VERIFIER, DRAFT), requests)
    drafted = sum(request.drafted_tokens for request in requests)
    return requests, sum(request.accepted_tokens for request in requests) / drafted


@pytest.mark.slow
def test_speculative_sampling_has_the_verifiers_distribution() -> None:
    """Chi-square over all sequences of three tokens, at two temperatures and draft lengths."""
    for temperature, draft_tokens in ((1.0, 2), (0.6, 3)):
        requests, acceptance = sampled(4000, temperature, draft_tokens)
        assert 0.2 < acceptance < 0.95  # both branches are taken
        exact = exact_distribution(temperature)
        assert abs(sum(exact.values()) - 1) < 1e-4
        counts = dict.fromkeys(exact, 0)
        for request in requests:
            counts[tuple(request.tokens)] += 1
        # Rare sequences share one cell, so that every expected count is large enough.
        common = [sequence for sequence, p in exact.items() if p * len(requests) >= 8]
        observed = [counts[sequence] for sequence in common]
        expected = [exact[sequence] * len(requests) for sequence in common]
        observed.append(len(requests) - sum(observed))
        expected.append(len(requests) - sum(expected))
        assert len(common) > 20
        assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_a_requests_tokens_do_not_depend_on_its_batch() -> None:
    together, _ = sampled(40, 1.0, 3)
    served = engine(GraphConfig(3, 4, 32, temperature=1.0, seed=5), VERIFIER, DRAFT)
    for i in (0, 7, 39):
        request = Request(i, len(PROMPT), 3, prompt=PROMPT)
        serve(served, [request])
        assert request.tokens == together[i].tokens
    assert len({tuple(request.tokens) for request in together}) > 10


def test_uniform_numbers_are_uniform_and_independent() -> None:
    keys = torch.arange(2000) * 7919
    positions = torch.arange(3000, 3020)
    tables = [
        uniform(keys[:, None], positions, decision).numpy() for decision in (PROPOSE, ACCEPT, FINAL)
    ]
    for table in tables:
        assert table.min() >= 0 and table.max() < 1
        assert stats.kstest(table.ravel(), "uniform").pvalue > 1e-3
        neighbours = numpy.corrcoef(table[:, :-1].ravel(), table[:, 1:].ravel())[0, 1]
        assert abs(neighbours) < 0.02
    assert abs(numpy.corrcoef(tables[0].ravel(), tables[1].ravel())[0, 1]) < 0.02


def test_draw_never_picks_what_has_no_weight() -> None:
    weights = torch.tensor([[0.0, 2.0, 0.0, 1.0, 0.0]]).repeat(5, 1)
    chance = torch.tensor([0.0, 0.3, 0.66, 0.67, 1 - 2.0**-23])
    assert draw(weights, chance).tolist() == [1, 1, 1, 3, 3]
