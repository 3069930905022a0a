"""The graph executor on the CPU: what it produces, whatever the schedule."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdvsim.core import GRAPH, Request, Stage, Stream
from pdvsim.errors import CapacityError, InputError
from realengine.graph import GraphConfig, OutOfPages
from realengine.graph.plan import Sizes
from tests.graph_driver import (
    PADDED,
    ROUND,
    SHAPE,
    engine,
    run,
    serve,
    serve_at_random,
    similar_draft,
    verifier_weights,
)

VERIFIER = verifier_weights()
DRAFTS = {
    "same": VERIFIER,
    "close": similar_draft(VERIFIER, 0.3),
    "far": similar_draft(VERIFIER, 3),
}
CONFIG = GraphConfig(4, max_requests=8, max_context_tokens=96, page_tokens=4)


def make_requests(rng: random.Random, count: int, longest: int = 40) -> list[Request]:
    requests = []
    for i in range(count):
        prompt = [rng.randrange(SHAPE.vocabulary) for _ in range(rng.randint(1, longest))]
        requests.append(Request(i, len(prompt), rng.randint(1, 24), prompt=prompt))
    return requests


def copies(requests: list[Request]) -> list[Request]:
    return [Request(r.id, r.prompt_tokens, r.output_tokens, prompt=r.prompt) for r in requests]


def alone(requests: list[Request]) -> list[list[int]]:
    """What the verifier says to each request on its own, one token at a time."""
    plain = engine(CONFIG, VERIFIER, None)
    for request in (again := copies(requests)):
        serve(plain, [request], plain=True)
    return [request.tokens for request in again]


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 7),
    draft_tokens=st.integers(1, 6),
    draft=st.sampled_from(sorted(DRAFTS)),
    chunk_tokens=st.sampled_from([5, 33, 8192]),
    page_tokens=st.sampled_from([1, 4, 16]),
    sizes=st.sampled_from([Sizes(), PADDED]),
)
def test_speculation_is_the_verifiers_own_greedy_output(
    seed: int,
    count: int,
    draft_tokens: int,
    draft: str,
    chunk_tokens: int,
    page_tokens: int,
    sizes: Sizes,
) -> None:
    """Over random prompts, lengths, draft lengths, batch mixes, late arrivals, pre-emptions."""
    rng = random.Random(seed)
    requests = make_requests(rng, count)
    config = GraphConfig(
        draft_tokens,
        max_requests=5,
        max_context_tokens=96,
        page_tokens=page_tokens,
        chunk_tokens=chunk_tokens,
    )
    served = engine(config, VERIFIER, DRAFTS[draft], sizes=sizes)
    serve_at_random(served, requests, rng)
    assert [request.tokens for request in requests] == alone(requests)
    assert all(request.produced_tokens == request.output_tokens for request in requests)
    assert served.free_pages == served.pages


def test_a_draft_equal_to_the_verifier_is_always_kept() -> None:
    requests = make_requests(random.Random(0), 4)
    serve(engine(CONFIG, VERIFIER, VERIFIER), requests)
    assert all(r.accepted_tokens == r.drafted_tokens for r in requests)
    assert sum(r.drafted_tokens for r in requests) > 0


def test_injected_outcomes_decide_how_many_tokens_a_round_yields() -> None:
    outcomes = [0, 4, 2, 4, 4, 1, 5]
    request = Request(0, 9, 100, outcomes=outcomes)
    served = engine(GraphConfig(4, 2, 120, 4), VERIFIER, DRAFTS["far"])
    run(served, GRAPH.prefill, [request])
    for i, kept in enumerate(outcomes[:-1]):
        before = request.produced_tokens
        run(served, ROUND, [request])
        assert request.produced_tokens - before == kept + 1
        assert request.rounds == i + 1
        assert len(request.tokens) == request.produced_tokens
    with pytest.raises(InputError, match="no outcome"):
        served.launch(Stage.VERIFY, [request], Stream.MAIN, [])


def test_injected_and_real_requests_may_share_a_batch() -> None:
    real = make_requests(random.Random(3), 1)[0]
    injected = Request(7, 5, 12, outcomes=[4] * 12)
    expected = alone([real])
    serve(engine(CONFIG, VERIFIER, DRAFTS["close"]), [injected, real])
    assert [real.tokens] == expected
    assert injected.accepted_tokens == injected.drafted_tokens


def test_a_cancelled_request_leaves_its_batch_mates_alone() -> None:
    requests = make_requests(random.Random(5), 4)
    expected = alone(requests)
    served = engine(CONFIG, VERIFIER, DRAFTS["close"])
    run(served, GRAPH.prefill, requests)
    requests[1].cancelled = True
    served.release(requests[1])
    served.release(requests[1])
    for _ in range(30):
        run(served, ROUND, requests)
    kept = [0, 2, 3]
    assert [requests[i].tokens for i in kept] == [expected[i] for i in kept]
    for request in requests:
        served.release(request)
    assert served.free_pages == served.pages


def test_what_was_made_ready_is_not_run_for_a_request_that_left_and_came_back() -> None:
    """Its pages may be another's by then."""
    requests = make_requests(random.Random(6), 2)
    expected = alone(requests)
    served = engine(CONFIG, VERIFIER, DRAFTS["close"])
    run(served, GRAPH.prefill, requests)
    run(served, ROUND, requests)
    for request in requests:
        served.release(request)
    run(served, GRAPH.prefill, requests[::-1])
    for _ in range(30):
        run(served, ROUND, requests)
    assert [request.tokens for request in requests] == expected


def test_a_batch_of_cancelled_requests_runs_nothing() -> None:
    request = Request(0, 3, 5, prompt=[1, 2, 3], cancelled=True)
    served = engine(CONFIG, VERIFIER, VERIFIER)
    run(served, GRAPH.prefill, [request])
    run(served, ROUND, [request])
    assert request.tokens == [] and served.free_pages == served.pages


def test_no_room_is_said_at_admission_and_changes_nothing() -> None:
    served = engine(GraphConfig(4, 8, 96, 4, cache_tokens=64), VERIFIER, VERIFIER)
    first, second = (Request(i, 20, 20, prompt=[1] * 20) for i in range(2))
    assert served.can_admit(first)
    run(served, GRAPH.prefill, [first])
    free = served.free_pages
    assert not served.can_admit(second)
    with pytest.raises(OutOfPages, match="free"):
        served.launch(Stage.PREFILL_DRAFT, [second], Stream.MAIN, [])
    assert served.free_pages == free and served.can_admit(first)
    served.release(first)
    serve(served, [second])
    assert len(second.tokens) == 20


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(1, 0, 5), "at least one"),
        (Request(1, 3, 5, prompt=[1, 2]), "says 3"),
        (Request(1, 80, 40), "cache takes 96"),
        (Request(1, 5, 0), "asks for 0"),
        (Request(1, 2, 5, prompt=[1, 64]), "vocabulary of 64"),
        (Request(1, 2, 5, prompt=[-1, 6]), "vocabulary of 64"),
    ],
)
def test_impossible_requests_are_refused(request_: Request, words: str) -> None:
    served = engine(CONFIG, VERIFIER, VERIFIER)
    with pytest.raises(InputError, match=words):
        served.launch(Stage.PREFILL_DRAFT, [request_], Stream.MAIN, [])
    assert served.free_pages == served.pages


def test_decoding_before_prefill_is_refused() -> None:
    with pytest.raises(InputError, match="before its prefill"):
        engine(CONFIG, VERIFIER, VERIFIER).launch(
            Stage.DRAFT, [Request(0, 3, 3, prompt=[1, 2, 3])], Stream.MAIN, []
        )


def test_a_stage_without_its_model_is_refused() -> None:
    request = Request(0, 3, 3, prompt=[1, 2, 3])
    with pytest.raises(InputError, match="does not run draft"):
        engine(CONFIG, VERIFIER, None).launch(Stage.DRAFT, [request], Stream.MAIN, [])


def test_bad_configurations_are_refused() -> None:
    for draft_tokens in (-1, 50):
        with pytest.raises(InputError, match="draft_tokens"):
            GraphConfig(draft_tokens)
    with pytest.raises(InputError, match="test reaches 128"):
        engine(GraphConfig(4, 2, 500), VERIFIER, None)
    with pytest.raises(CapacityError, match="GB"):
        engine(GraphConfig(4, 2, 96, cache_tokens=10**12), VERIFIER, None)


@pytest.mark.slow
def test_ten_thousand_requests_leak_no_page() -> None:
    rng = random.Random(11)
    served = engine(GraphConfig(2, 64, 48, 4), VERIFIER, None)
    for i in range(200):
        requests = [Request(50 * i + j, rng.randint(1, 9), 2) for j in range(50)]
        for request in requests[:3]:
            request.cancelled = rng.random() < 0.5
        serve(served, requests, plain=True)
        assert served.free_pages == served.pages


@pytest.mark.parametrize("draft", sorted(DRAFTS))
@pytest.mark.parametrize("sizes", [Sizes(), PADDED])
def test_every_round_may_have_its_own_length(draft: str, sizes: Sizes) -> None:
    """Also each request of a round; without drafts it is a plain decode."""
    rng = random.Random(8)
    requests = make_requests(rng, 5)
    config = GraphConfig(
        4, draft_lengths=(0, 1, 6), max_requests=5, max_context_tokens=96, page_tokens=4
    )
    served = engine(config, VERIFIER, DRAFTS[draft], sizes=sizes)
    run(served, GRAPH.prefill, requests)
    while alive := [request for request in requests if not request.finished]:
        length = rng.choice(config.lengths)
        before = [request.produced_tokens for request in alive]
        mixed = rng.random() < 0.5
        run(served, ROUND, alive, [rng.randint(0, length) for _ in alive] if mixed else length)
        if not length:
            assert [r.produced_tokens - 1 for r in alive] == before
    assert [request.tokens for request in requests] == alone(requests)
    kept, made = (sum(getattr(r, f"{n}_tokens") for r in requests) for n in ("accepted", "drafted"))
    if draft == "same":
        assert kept == made > 0
    for request in requests:
        served.release(request)
    assert served.free_pages == served.pages


def test_lengths_that_an_engine_does_not_draft_are_refused() -> None:
    request = Request(0, 3, 9, prompt=[1, 2, 3])
    served = engine(CONFIG, VERIFIER, VERIFIER)
    run(served, GRAPH.prefill, [request])
    for lengths, words in ((5, "up to 4"), ([-1], "-1 drafts"), ([1, 2], "2 numbers of drafts")):
        with pytest.raises(InputError, match=words):
            served.launch(Stage.DRAFT, [request], Stream.MAIN, [], lengths)
    with pytest.raises(InputError, match="between 0 and 16"):
        GraphConfig(4, draft_lengths=(0, 17))
