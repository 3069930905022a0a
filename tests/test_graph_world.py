"""The graph executor under the lane programs of every architecture, on real threads."""

from __future__ import annotations

import random

import pytest

from pdvsim.architectures import ARCHITECTURES
from pdvsim.core import GRAPH, Request
from pdvsim.workload import Workload
from realengine.graph import GraphConfig
from realengine.prompts import Prompts
from realengine.world import RealWorld
from tests.fakes import config_of
from tests.graph_driver import SHAPE, engine, serve, similar_draft, verifier_weights

VERIFIER = verifier_weights()
DRAFT = similar_draft(VERIFIER, 0.3)
COUNT, IN_FLIGHT = 24, 6


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_yields_the_verifiers_own_tokens(name: str) -> None:
    rng = random.Random(name)
    lengths = [rng.randint(1, 30) for _ in range(COUNT)], [rng.randint(1, 20) for _ in range(COUNT)]
    workload = Workload("closed-loop", *lengths, [()] * COUNT, in_flight=IN_FLIGHT)
    text = [rng.randrange(SHAPE.vocabulary) for _ in range(997)]
    prompts = Prompts(SHAPE.vocabulary, text=text)
    config = GraphConfig(3, 2 * IN_FLIGHT, 96, 4)
    served = engine(config, VERIFIER, DRAFT, prompts)
    world = RealWorld(
        config_of(name, GRAPH, batch_cap=4, draft_tokens=3, prefill_batch=2), workload, served
    )
    world.run()
    requests = world.source.released_requests
    assert len(requests) == COUNT and served.free_pages == served.pages

    again = [Request(i, p, n) for i, (p, n) in enumerate(zip(*lengths, strict=True))]
    plain = engine(config, VERIFIER, None, prompts)
    for request, expected in zip(requests, again, strict=True):
        serve(plain, [expected], plain=True)
        assert request.tokens == expected.tokens
    if ARCHITECTURES[name].speculative:
        assert sum(r.accepted_tokens for r in requests) > COUNT
