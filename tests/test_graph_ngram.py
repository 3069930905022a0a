"""Looking up n-grams in the graph executor: drafts of a plain reference, the verifier's output."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("torch")

from graph_driver import PADDED, ROUND, engine, run, serve, serve_at_random, verifier_weights

from pdvsim.core import GRAPH, Drafter, Request, Stage, Stream
from pdvsim.models import ModelShape
from realengine.graph import GraphConfig, GraphEngine, build_engine
from realengine.graph.ngram import Ngram
from realengine.graph.plan import Sizes

SHAPE = ModelShape("small", 2, 32, 4, 2, 48, 6, 128)
VERIFIER = verifier_weights(SHAPE, sharpness=5.0)


def looked_up(text: list[int], ngram: Ngram, count: int) -> list[int]:
    """Up to `count` drafts after `text`."""
    for size in range(ngram.longest, ngram.shortest - 1, -1):
        for start in range(len(text) - size):
            if text[start : start + size] == text[-size:]:
                return text[start + size :][:count]
    return []


def drafted(served: GraphEngine, request: Request) -> list[int]:
    slot = served._admission.held([request])[request].holding.slot
    return served._state.drafts[slot, : int(served._state.drafted[slot])].tolist()


def requests(rng: random.Random, count: int) -> list[Request]:
    found = []
    for i in range(count):
        prompt = [rng.randrange(6) for _ in range(rng.randint(1, 30))]
        found.append(Request(i, len(prompt), rng.randint(10, 25), prompt=prompt))
    return found


@pytest.mark.parametrize("sizes", [Sizes(), PADDED])
@pytest.mark.parametrize("ngram", [Ngram(), Ngram(3, 1), Ngram(2, 2)])
def test_drafts_are_those_of_a_plain_reference(sizes: Sizes, ngram: Ngram) -> None:
    """With requests coming and going, prompts in chunks, rounds of several lengths."""
    rng = random.Random(3)
    config = GraphConfig(
        4, draft_lengths=(0, 2), max_requests=4, max_context_tokens=80, page_tokens=4,
        chunk_tokens=9,
    )  # fmt: skip
    served = engine(config, VERIFIER, ngram, sizes=sizes)
    assert served.executor is GRAPH.with_drafter(Drafter.NGRAM)
    waiting, active, some, none = requests(rng, 8), list[Request](), 0, 0
    while waiting or active:
        while waiting and len(active) < 3:
            active.append(waiting.pop())
            run(served, served.executor.prefill, active[-1:])
        batch = rng.sample(active, rng.randint(1, len(active)))
        length = rng.choice(config.lengths)
        served.launch(Stage.DRAFT, batch, Stream.MAIN, [], length)
        for request in batch:
            expected = looked_up([*request.prompt, *request.tokens], ngram, length)
            assert drafted(served, request) == expected
            some, none = some + bool(expected), none + (not expected and length > 0)
        run(served, served.executor.check, batch, length)
        for request in [request for request in active if request.finished]:
            served.release(request)
            active.remove(request)
    assert some > 20 and none > 0 and served.free_pages == served.pages


def test_what_was_drafted_is_counted_not_what_was_asked_for() -> None:
    """A round without a match has no drafts; acceptance is over drafts really made."""
    rng = random.Random(5)
    config = GraphConfig(4, draft_lengths=(0, 2), max_requests=4, max_context_tokens=80)
    served, asked = engine(config, VERIFIER, Ngram()), requests(rng, 4)
    run(served, served.executor.prefill, asked)
    made: dict[Request, list[int]] = {request: [] for request in asked}
    for number in range(60):
        alive = [request for request in asked if not request.finished]
        length = (4, 2, 0, 4)[number % 4]
        for request in alive:
            text = [*request.prompt, *request.tokens]
            made[request].append(len(looked_up(text, Ngram(), length)))
        if alive:
            run(served, ROUND, alive, length)
    for request in asked:
        assert request.finished and list(request.drafted_per_round) == made[request]
        assert request.drafted_tokens == sum(made[request])
        assert request.accepted_tokens == sum(request.accepted_per_round)
        pairs = zip(request.accepted_per_round, made[request], strict=True)
        assert all(kept <= drafted for kept, drafted in pairs)
    rounds = [count for each in made.values() for count in each]
    assert 0 < rounds.count(0) < len(rounds)


@pytest.mark.parametrize("seed", range(4))
def test_its_output_is_the_verifiers_own(seed: int) -> None:
    """Over random batch mixes, late arrivals and pre-emptions."""
    rng = random.Random(seed)
    config = GraphConfig(3, max_requests=4, max_context_tokens=80, page_tokens=4, chunk_tokens=9)
    asked = requests(rng, 6)
    served = engine(config, VERIFIER, Ngram())
    serve_at_random(served, asked, rng)
    plain = engine(config, VERIFIER, None)
    for request in asked:
        again = Request(
            request.id, request.prompt_tokens, request.output_tokens, prompt=request.prompt
        )
        serve(plain, [again], plain=True)
        assert request.tokens == again.tokens


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_engine_is_built_by_name_and_takes_injected_outcomes(temperature: float) -> None:
    config = GraphConfig(2, max_requests=2, max_context_tokens=60, temperature=temperature)
    served = build_engine("ngram:tiny", config, "cpu")
    injected = [Request(i, 8, 20, outcomes=[2, 0, 1] * 7) for i in range(2)]
    run(served, served.executor.prefill, injected)
    for _ in range(3):
        run(served, ROUND, injected)
    assert [request.produced_tokens for request in injected] == [7, 7]
    assert all(len(request.tokens) == 7 for request in injected)
