"""Mixed passes of the graph executor on the CPU: the verifier's own tokens, whatever is mixed."""

from __future__ import annotations

import random

import pytest

from pdvsim.core import GRAPH, Drafter, Request, Stage, Stream
from pdvsim.drafters import head_for
from pdvsim.errors import InputError
from pdvsim.invariants import check
from pdvsim.records import STAGE_CODE
from pdvsim.workload import Workload
from realengine.graph import GraphConfig
from realengine.graph.head_weights import random_head
from realengine.graph.ngram import Ngram
from realengine.graph.plan import Sizes
from realengine.prompts import Prompts
from realengine.world import RealWorld
from tests.fakes import config_of
from tests.graph_driver import CPU, PADDED, SHAPE, engine, serve, similar_draft, verifier_weights

VERIFIER = verifier_weights()
HEAD = random_head(head_for(SHAPE), VERIFIER, CPU, VERIFIER.embedding.dtype)
DRAFTERS = {
    "model": similar_draft(VERIFIER, 0.3),
    "eagle3": HEAD,
    "ngram": Ngram(),
    "none": None,
}
CONFIG = GraphConfig(3, 12, 96, 4)


@pytest.mark.slow
@pytest.mark.parametrize("drafter", DRAFTERS)
@pytest.mark.parametrize("budget", [5, 13, 40])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("sizes", [Sizes(), PADDED], ids=["exact", "padded"])
def test_chunks_beside_rounds_leave_tokens_as_they_are(
    drafter: str, budget: int, temperature: float, sizes: Sizes
) -> None:
    """Sampled ones too where nothing is drafted: the same random numbers decide."""
    if temperature and drafter != "none":
        pytest.skip("a sampled round is equal in distribution only")
    rng = random.Random(budget)
    lengths = [rng.randint(1, 40) for _ in range(14)], [rng.randint(1, 14) for _ in range(14)]
    workload = Workload("closed-loop", *lengths, [()] * 14, in_flight=6)
    prompts = Prompts(SHAPE.vocabulary, text=[rng.randrange(SHAPE.vocabulary) for _ in range(499)])
    sized = GraphConfig(3, 12, 96, 4, temperature=temperature)
    served = engine(sized, VERIFIER, DRAFTERS[drafter], prompts, sizes)
    asked = config_of(
        "continuous",
        GRAPH.with_drafter(Drafter(drafter)),
        batch_cap=5,
        draft_tokens=3,
        token_budget=budget,
    )
    world = RealWorld(asked, workload, served)
    record = world.run()
    check(record)
    assert not world.failures
    mixed = record.column("query_tokens")[record.column("stage") == STAGE_CODE[Stage.MIXED]]
    assert len(mixed) > 14 / 2 and mixed.max() <= budget
    assert served.free_pages == served.pages
    plain = engine(sized, VERIFIER, None, prompts)
    for request in world.source.released_requests:
        expected = Request(request.id, request.prompt_tokens, request.output_tokens)
        serve(plain, [expected], plain=True)
        assert request.tokens == expected.tokens


@pytest.mark.parametrize("drafter", ["model", "none"])
def test_a_lane_that_wakes_up_for_nothing_waits_again(drafter: str) -> None:
    """Waiting ends after 0.1 s, whether somebody has come or not."""
    served = engine(CONFIG, VERIFIER, DRAFTERS[drafter])
    workload = Workload("poisson", [6, 9], [5, 4], [()] * 2, arrival_s=[0.0, 0.5])
    asked = config_of(
        "continuous", GRAPH.with_drafter(Drafter(drafter)), batch_cap=5, draft_tokens=3
    )
    world = RealWorld(asked, workload, served)
    record = world.run()
    check(record)
    assert not world.failures
    assert [request.produced_tokens for request in record.requests] == [5, 4]
    assert served.free_pages == served.pages


def chunked(identity: int, prompt: int, chunk: int) -> Request:
    request = Request(identity, prompt, 4)
    request.chunk_tokens = chunk
    return request


def test_what_a_pass_cannot_hold_is_refused_and_holds_nothing() -> None:
    small = GraphConfig(3, 12, 96, 4, chunk_tokens=16)
    served = engine(small, VERIFIER, None)
    with pytest.raises(InputError, match=r"a mixed pass of 17 tokens was asked for; .* takes 16"):
        served.launch(Stage.MIXED, [chunked(0, 30, 17)], Stream.MAIN, ())
    with pytest.raises(InputError, match="2 prompts would end behind this pass"):
        served.launch(Stage.MIXED, [chunked(0, 30, 4), chunked(1, 30, 4)], Stream.MAIN, ())
    assert served.free_pages == served.pages


def test_a_round_that_cannot_be_is_refused_before_anyone_is_admitted() -> None:
    served = engine(CONFIG, VERIFIER, DRAFTERS["model"])
    going = Request(0, 6, 9, outcomes=[])
    for stage in GRAPH.prefill:
        served.launch(stage, [going], Stream.MAIN, ())
    going.outcomes, going.rounds, free = [1], 1, served.free_pages
    with pytest.raises(InputError, match="request 0 has no outcome"):
        served.launch(Stage.MIXED, [going, chunked(1, 9, 9)], Stream.MAIN, ())
    assert served.free_pages == free
