"""The four protocols."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdvsim.acceptance import Acceptance
from pdvsim.cell import Cell, TraceFile
from pdvsim.errors import InputError
from pdvsim.pdverify.protocol import arrivals_s, pdverify
from pdvsim.source import Source
from pdvsim.workload import (
    Lengths,
    closed_loop,
    poisson,
    trace,
)

ACCEPTANCE = Acceptance.constant(0.7, 4)
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def seed() -> np.random.SeedSequence:
    return np.random.SeedSequence(11)


@pytest.mark.parametrize("concurrency", [1, 2, 16, 128])
def test_pdverify_arrivals_are_those_of_the_published_benchmark(concurrency: int) -> None:
    np.random.seed(42)
    arrivals, now = [], 0.0
    while (now := now + np.random.exponential(1 / (0.05 * concurrency))) <= 30.0:
        arrivals.append(now)
    assert arrivals_s(concurrency).tolist() == arrivals


def test_pdverify_is_cut_at_60_s_and_has_no_warm_up() -> None:
    workload = pdverify(128, Lengths(10, 20), ACCEPTANCE, seed())
    assert (workload.deadline_s, workload.warmup) == (60.0, 0)
    assert len(workload) == 203


def test_a_plan_depends_on_its_seed_alone() -> None:
    for draw in (
        lambda s: closed_loop(4, Lengths(8, 8, 0.5), ACCEPTANCE, s),
        lambda s: poisson(2.0, 30, Lengths(8, 8, 0.5), ACCEPTANCE, s),
        lambda s: pdverify(16, Lengths(8, 8, 0.5), ACCEPTANCE, s),
    ):
        a, b, other = draw(seed()), draw(seed()), draw(np.random.SeedSequence(12))
        assert (a.prompt_tokens, a.output_tokens, a.outcomes, a.arrival_s) == (
            b.prompt_tokens,
            b.output_tokens,
            b.outcomes,
            b.arrival_s,
        )
        assert a.outcomes != other.outcomes


def test_poisson_gaps_have_the_rate() -> None:
    workload = poisson(5.0, 20_000, Lengths(), ACCEPTANCE, seed())
    assert workload.arrival_s is not None
    gaps = np.diff(workload.arrival_s)
    assert gaps.mean() == pytest.approx(0.2, rel=0.03)
    assert gaps.std() == pytest.approx(0.2, rel=0.05)


def test_lengths_stay_within_their_spread() -> None:
    prompts, outputs = Lengths(100, 50, 0.2).draw(2000, np.random.default_rng(0))
    assert (min(prompts), max(prompts)) == (80, 120)
    assert (min(outputs), max(outputs)) == (40, 60)


def test_log_normal_lengths_keep_the_mean() -> None:
    prompts, outputs = Lengths(300, 200, "lognormal:1", output_spread=0.0).draw(
        40_000, np.random.default_rng(0)
    )
    assert np.mean(prompts) == pytest.approx(300, rel=0.03)
    assert np.std(np.log(prompts)) == pytest.approx(1.0, abs=0.02)
    assert set(outputs) == {200}


@given(
    st.integers(1, 5000),
    st.sampled_from([0.0, 0.9, "uniform:0.5", "lognormal:0", "lognormal:3"]),
    st.integers(2, 4096),
)
def test_any_lengths_are_of_requests_that_can_be(mean: int, spread: Any, most: int) -> None:
    lengths = Lengths(mean, mean, spread, max_context_tokens=most)
    prompts, outputs = lengths.draw(50, np.random.default_rng(1))
    assert min(prompts) >= 1 and min(outputs) >= 1
    assert max(p + o for p, o in zip(prompts, outputs, strict=True)) <= most


def test_lengths_are_drawn_from_a_file_together(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n0,10,1\n1,20,2\n2,30,3\n")
    cell = Cell("a:b", "graph", "pd", 4, lengths_from=TraceFile.of(path), requests=300)
    first, again = (cell.plan(seed()) for _ in range(2))
    assert first.prompt_tokens == again.prompt_tokens
    assert [10 * o for o in first.output_tokens] == list(first.prompt_tokens)
    assert set(first.output_tokens) == {1, 2, 3}
    assert not cell.same_lengths
    assert cell.lengths.said.startswith("Lengths: those of one of the 3 requests of trace.csv each")
    assert Lengths(9, 8, 0.5, output_spread="lognormal:1").said == (
        "Lengths: prompts of 9 tokens (+- 50 %), outputs of 8 tokens (log-normal with 1)."
    )


def test_a_closed_loop_releases_one_request_for_each_completion() -> None:
    source = Source(closed_loop(3, Lengths(4, 4), ACCEPTANCE, seed(), measured=8))
    assert [request.id for request in source.initial()] == [0, 1, 2]
    following = source.next(1.5)
    assert following is not None
    assert (following.id, following.arrival_s) == (3, 1.5)
    assert not source.over(10)
    assert source.over(11)


def test_outcomes_last_for_every_round() -> None:
    workload = closed_loop(3, Lengths(4, 40, 0.5), Acceptance.constant(0.0, 4), seed())
    for tokens, outcome in zip(workload.output_tokens, workload.outcomes, strict=True):
        assert len(outcome) >= tokens


def test_a_trace_is_replayed_from_its_first_arrival(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(
        HEADER + "2023-11-16 18:15:46.5,374,44\n2023-11-16 18:15:50.5,5000,109\n"
        "2023-11-16 18:15:51.0,3,1\n"
    )
    workload = trace(path, ACCEPTANCE, seed(), time_scale=2.0, max_context_tokens=2048)
    assert workload.arrival_s == pytest.approx([0.0, 2.0, 2.25])
    assert list(workload.prompt_tokens) == [374, 2048 - 109, 3]
    assert list(workload.output_tokens) == [44, 109, 1]
    assert len(trace(path, ACCEPTANCE, seed(), limit=2)) == 2


def test_a_trace_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        trace(tmp_path / "none.csv", ACCEPTANCE, seed())


@pytest.mark.parametrize("concurrency", [0, -3, 10**9])
def test_bad_concurrency(concurrency: int) -> None:
    with pytest.raises(InputError, match="must be between 1 and"):
        closed_loop(concurrency, Lengths(), ACCEPTANCE, seed())


def test_bad_rates_and_lengths() -> None:
    with pytest.raises(InputError, match="rate is"):
        poisson(0.0, 10, Lengths(), ACCEPTANCE, seed())
    with pytest.raises(InputError, match="output-tokens is 0"):
        Lengths(1, 0)
    with pytest.raises(InputError, match="spread is 1"):
        Lengths(1, 1, 1.0)


def test_more_than_memory_holds_is_refused_before_it_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    rows = ["2023-11-16 18:15:00,4,1000000"] * 101
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows, ""]))
    with pytest.raises(InputError, match="101 requests with 101000000 output tokens in all"):
        trace(path, ACCEPTANCE, seed())
    assert len(trace(path, ACCEPTANCE, seed(), max_context_tokens=64)) == 101
    with pytest.raises(InputError, match="a run of 100200000 requests is too long"):
        closed_loop(100_000, Lengths(), ACCEPTANCE, seed(), cycles=1000)


def test_outcomes_do_not_depend_on_the_blocks_they_are_drawn_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = ACCEPTANCE.draw([5, 0, 40, 7], np.random.default_rng(3))
    monkeypatch.setattr("pdvsim.acceptance._BLOCK", 8)
    assert ACCEPTANCE.draw([5, 0, 40, 7], np.random.default_rng(3)) == whole


def test_columns_of_a_trace_of_another_format_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("when,in,out\n0,10,20\n2000,11,21\n")
    columns = "arrival_ms=when,prompt_tokens=in,output_tokens=out"
    cell = Cell(
        "a:b", "graph", "pd", 4, protocol="trace", trace=TraceFile.of(path, columns), time_scale=2.0
    )
    plan = cell.plan(seed())
    assert plan.arrival_s == [0.0, 1.0]
    assert (plan.prompt_tokens, plan.output_tokens) == ([10, 11], [20, 21])
