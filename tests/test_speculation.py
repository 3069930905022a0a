"""Acceptance by position and per request, counted again by hand."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdvsim import cli
from pdvsim.acceptance import Acceptance
from pdvsim.core import EAGER, GRAPH, Checked, Executor, Request, settle
from pdvsim.des import simulate
from pdvsim.measured.acceptance import measured_acceptance
from pdvsim.speculation import Speculation
from pdvsim.workload import Lengths, closed_loop
from tests.fakes import FixedCosts, config_of


def served(rounds: list[list[tuple[int, int]]], executor: Executor = GRAPH) -> list[Request]:
    """Requests that had these rounds of (kept, drafted)."""
    requests = []
    for i, each in enumerate(rounds):
        request = Request(i, 4, 10_000)
        for kept, drafted in each:
            found = [Checked(kept, drafted)]
            settle(executor, executor.settles_round, [request], 8, 0.0, found)
        requests.append(request)
    return requests


def test_a_round_without_drafts_counts_for_nothing_but_its_token() -> None:
    requests = served([[(4, 4), (0, 0), (1, 2)], [(0, 0)], []])
    found = Speculation.of(GRAPH, requests)
    assert found is not None
    assert (found.rate, found.drafting) == (5 / 6, 2)
    assert found.conditional == (1.0, 0.5, 1.0, 1.0)
    assert found.unconditional == (1.0, 0.5, 0.5, 0.5)
    assert found.length == (5 + 2) / 2 and found.tokens_per_round == (5 + 1 + 2 + 1) / 4
    assert found.of_requests(found.kept).tolist() == [5, 0, 0]
    assert [request.produced_tokens for request in requests] == [8, 1, 0]
    assert Speculation.of(GRAPH, served([[(0, 0)], []])) is None


def test_without_a_bonus_token_a_round_yields_its_drafts_at_most() -> None:
    found = Speculation.of(EAGER, served([[(4, 4), (1, 4)]], EAGER))
    assert found is not None and found.length == (4 + 2) / 2


a_round = st.integers(0, 8).flatmap(lambda made: st.tuples(st.integers(0, made), st.just(made)))
rounds_of_requests = st.lists(st.lists(a_round, max_size=6), min_size=1, max_size=6)


@given(rounds_of_requests)
def test_positions_are_counted_one_by_one(rounds: list[list[tuple[int, int]]]) -> None:
    every = [each for request in rounds for each in request]
    found = Speculation.of(GRAPH, served(rounds))
    if not any(drafted for _, drafted in every):
        assert found is None
        return
    assert found is not None
    drafting = [(kept, drafted) for kept, drafted in every if drafted]
    for i in range(max(drafted for _, drafted in every)):
        asked = [kept > i for kept, drafted in every if drafted > i and kept >= i]
        share = sum(asked) / len(asked) if asked else None
        assert found.conditional[i] == (None if share is None else pytest.approx(share))
        kept = sum(kept > i for kept, _ in drafting) / len(drafting)
        assert found.unconditional[i] == pytest.approx(kept)
    assert all(a >= b for a, b in pairwise(found.unconditional))
    length = 1 + sum(kept for kept, _ in drafting) / len(drafting)
    assert found.length == pytest.approx(length) == pytest.approx(1 + sum(found.unconditional))


def test_injected_acceptance_is_found_again_and_scatters_as_chance_does() -> None:
    kept = Acceptance((0.9, 0.6, 0.8, 0.3))
    plan = closed_loop(8, Lengths(8, 80), kept, np.random.SeedSequence(3), 40)
    record = simulate(config_of("pd", GRAPH), plan, FixedCosts())
    found = measured_acceptance(record)
    assert found is not None and found.spread is not None
    assert found.conditional == pytest.approx(kept.per_position, abs=0.02)
    assert found.unconditional == pytest.approx(np.cumprod(kept.per_position), abs=0.02)
    assert found.rounds == found.drafting_rounds == sum(found.requests.rounds)
    assert (found.drafted, found.accepted) == tuple(
        sum(getattr(found.requests, name)) for name in ("drafted", "accepted")
    )
    assert found.spread.std == pytest.approx(found.spread.independent_std, rel=0.2)
    assert found.spread.p10 < found.spread.median < found.spread.p90


def test_requests_that_differ_scatter_more_than_chance() -> None:
    rng = np.random.default_rng(1)
    rounds = [
        [(int(rng.binomial(4, rate)), 4) for _ in range(30)]
        for rate in np.tile((0.2, 0.5, 0.9), 20).tolist()
    ]
    requests = served(rounds)
    for request in requests:
        request.completed_s = 1.0
    plan = closed_loop(1, Lengths(8, 8), Acceptance.constant(0.5, 4), np.random.SeedSequence(1))
    record = simulate(config_of("pd", GRAPH), plan, FixedCosts())
    record.requests[:] = requests
    found = measured_acceptance(record)
    assert found is not None and found.spread is not None
    assert found.spread.requests == 60
    assert found.spread.std > 2 * found.spread.independent_std


def test_nothing_drafted_has_no_acceptance() -> None:
    plan = closed_loop(2, Lengths(8, 8), Acceptance.constant(0.5, 4), np.random.SeedSequence(1))
    record = simulate(config_of("plain", GRAPH), plan, FixedCosts())
    assert measured_acceptance(record) is None


@pytest.mark.slow
@pytest.mark.parametrize("pair", ["toy", "ngram:toy-verifier"])
def test_a_bench_says_by_position_and_by_request_what_was_kept(
    pair: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    words = ["bench", "--device", "cpu", "--pair", pair, "--acceptance", "real", "--requests", "6"]
    words += ["--architecture", "pd,plain", "--concurrency", "2", "--output-tokens", "24"]
    assert cli.run([*words, "--json"]) == 0
    speculated, plain = json.loads(capsys.readouterr().out)["cells"]
    assert plain["runs"][0]["acceptance"] is None
    found = speculated["runs"][0]["acceptance"]
    assert (found["rounds"] > found["drafting_rounds"]) is (pair != "toy")
    assert found["drafted"] == sum(found["requests"]["drafted"])
    assert found["drafted"] == 4 * found["rounds"] or pair != "toy"
    metrics = speculated["metrics"]
    assert metrics["spec_decode_acceptance_rate"]["value"] == pytest.approx(found["rate"])
    assert metrics["spec_decode_acceptance_length"]["value"] == pytest.approx(found["length"])
    rates = [rate["value"] for rate in speculated["acceptance_per_position"]]
    assert rates == pytest.approx(found["unconditional"])
    assert found["spread"]["requests"] == 8  # two to warm up, six measured
    assert cli.run(words) == 0
    assert "Acceptance" in (printed := capsys.readouterr().out) and "by chance" in printed
