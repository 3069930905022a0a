"""The graph executor under the lane programs of every architecture, on real threads."""

from __future__ import annotations

import random

import pytest

from pdvsim.architectures import ARCHITECTURES
from pdvsim.core import GRAPH, Drafter, Request
from pdvsim.drafters import head_for
from pdvsim.errors import InputError
from pdvsim.workload import Workload
from realengine.graph import GraphConfig
from realengine.graph.head_weights import random_head
from realengine.prompts import Prompts
from realengine.world import RealWorld
from tests.fakes import config_of
from tests.graph_driver import CPU, SHAPE, engine, serve, similar_draft, verifier_weights

VERIFIER = verifier_weights()
HEAD = random_head(head_for(SHAPE), VERIFIER, CPU, VERIFIER.embedding.dtype)
DRAFTERS = {"model": similar_draft(VERIFIER, 0.3), "eagle3": HEAD, "none": None}
COUNT, IN_FLIGHT = 24, 6


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_every_architecture_yields_the_verifiers_own_tokens(name: str, drafter: str) -> None:
    rng = random.Random(name)
    lengths = [rng.randint(1, 30) for _ in range(COUNT)], [rng.randint(1, 20) for _ in range(COUNT)]
    workload = Workload("closed-loop", *lengths, [()] * COUNT, in_flight=IN_FLIGHT)
    text = [rng.randrange(SHAPE.vocabulary) for _ in range(997)]
    prompts = Prompts(SHAPE.vocabulary, text=text)
    config = GraphConfig(3, 2 * IN_FLIGHT, 96, 4)
    served = engine(config, VERIFIER, DRAFTERS[drafter], prompts)
    executor = GRAPH.with_drafter(Drafter(drafter))
    assert served.executor is executor
    world = RealWorld(
        config_of(name, executor, batch_cap=4, draft_tokens=3, prefill_batch=2), workload, served
    )
    world.run()
    requests = world.source.released_requests
    assert len(requests) == COUNT and served.free_pages == served.pages

    again = [Request(i, p, n) for i, (p, n) in enumerate(zip(*lengths, strict=True))]
    plain = engine(config, VERIFIER, None, prompts)
    for request, expected in zip(requests, again, strict=True):
        serve(plain, [expected], plain=True)
        assert request.tokens == expected.tokens
    if ARCHITECTURES[name].speculative and drafter == "model":
        assert sum(r.accepted_tokens for r in requests) > COUNT


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
@pytest.mark.parametrize("seed", range(3))
def test_few_pages_delay_requests_or_refuse_the_run_but_never_stop_it(name: str, seed: int) -> None:
    rng = random.Random(f"{name} {seed}")
    lengths = [rng.randint(1, 30) for _ in range(12)], [rng.randint(1, 20) for _ in range(12)]
    workload = Workload("closed-loop", *lengths, [()] * 12, in_flight=4)
    served = engine(GraphConfig(3, 8, 96, 4, cache_tokens=48), VERIFIER, DRAFTERS["model"])
    world = RealWorld(config_of(name, GRAPH, batch_cap=4, draft_tokens=3), workload, served, 10.0)
    if max(map(sum, zip(*lengths, strict=True))) > 45:
        with pytest.raises(InputError, match=r"MiB of KV cache; the cache takes 45, "):
            world.run()
    else:
        assert len(world.run().requests) == 12
    assert served.free_pages == served.pages


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
@pytest.mark.parametrize("drafter", ["model", "eagle3"])
def test_a_failing_request_leaves_the_others_tokens_and_pages_alone(
    name: str, drafter: str
) -> None:
    """Its injected outcomes run out after a round; the others' tokens are compared."""
    lengths = [9, 5, 14, 3, 8, 11], [16] * 6
    outcomes = [(), (), [1], (), (), ()]
    speculative = ARCHITECTURES[name].speculative
    workload = Workload("closed-loop", *lengths, outcomes, in_flight=4)
    served = engine(GraphConfig(3, 8, 96, 4), VERIFIER, DRAFTERS[drafter])
    executor = GRAPH.with_drafter(Drafter(drafter))
    world = RealWorld(config_of(name, executor, batch_cap=4, draft_tokens=3), workload, served)
    record = world.run()
    assert [r.id for r in record.requests if r.failed_s is not None] == [2] * speculative
    assert served.free_pages == served.pages
    plain = engine(GraphConfig(3, 8, 96, 4), VERIFIER, None)
    for request in record.requests:
        expected = Request(request.id, request.prompt_tokens, 16)
        serve(plain, [expected], plain=True)
        assert request.tokens == expected.tokens or request.id == 2
