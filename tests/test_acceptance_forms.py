"""Acceptance as people state it, as it differs between requests, and as it was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pdvsim.acceptance import Acceptance, Replayed
from pdvsim.acceptance_file import REQUESTS, measured_acceptance
from pdvsim.acceptance_forms import Stated, stated, tokens_per_round
from pdvsim.api import closed_loop
from pdvsim.asked import with_draft_tokens
from pdvsim.cell import Cell
from pdvsim.cell_values import AcceptanceFile
from pdvsim.documents import read
from pdvsim.documents.benchmark import Benchmark
from pdvsim.errors import InputError
from pdvsim.machine import Replication
from pdvsim.measured.acceptance import measured_acceptance as measured_of
from pdvsim.models import pair
from tests.fakes import FakeModel

CELL = Cell("tiny:tiny", "graph", "pd", 4, prompt_tokens=8, output_tokens=40)


def positions(text: str, draft_tokens: int = 4, **differing: Any) -> tuple[float, ...]:
    found = stated(text)
    assert isinstance(found, Stated)
    return found.per_position(draft_tokens, **differing)


@pytest.mark.parametrize(
    "text",
    [
        "0.7",
        "70%",
        "0.7,0.7,0.7,0.7",
        "unconditional:0.7,0.49,0.343,0.2401",
        "rate:0.443275",
        "rate:44.3275%",
        "length:2.7731",
    ],
)
def test_all_ways_to_say_the_same(text: str) -> None:
    assert positions(text) == pytest.approx((0.7,) * 4, abs=1e-6)


def test_lists_say_how_many_drafts_there_are() -> None:
    asked = closed_loop(acceptance="unconditional:0.8,0.6,0.3").asked("pd")
    (cell,) = asked.cells(pair("tiny:tiny"), "graph")
    assert cell.draft_tokens == 3 and cell.acceptance == pytest.approx((0.8, 0.75, 0.5))


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=8))
def test_unconditional_rates_are_products(kept: list[float]) -> None:
    products = np.cumprod(kept)
    text = "unconditional:" + ",".join(f"{p:.17g}" for p in products)
    assert positions(text) == pytest.approx(kept, rel=1e-9)
    assert tokens_per_round(tuple(kept)) == pytest.approx(1 + products.sum())


@given(st.floats(0.0, 1.0), st.integers(1, 16))
def test_rate_and_length_come_back(probability: float, drafts: int) -> None:
    length = tokens_per_round((probability,) * drafts)
    for text in (f"length:{length:.17g}", f"rate:{(length - 1) / drafts:.17g}"):
        again = tokens_per_round(positions(text, drafts))
        assert again == pytest.approx(length, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rate:1.2", "--acceptance is 1.2; it must be between 0 and 1"),
        ("length:0.5", "'length:0.5'; with --draft-tokens 4 it must be between 1 and 5"),
        ("length:6", "it must be between 1 and 5"),
        ("unconditional:0.5,0.6", "cannot be more with one further position (0.6 after 0.5)"),
        ("rate:0.4,0.5", "write a number from 0 to 1"),
        ("speed:0.4", "write a number from 0 to 1"),
        ("length:nan", "it must be between 1 and 5"),
        ("", "write a number from 0 to 1"),
        ("rate:", "write a number from 0 to 1"),
    ],
)
def test_what_no_verifier_can_have_is_refused(text: str, says: str) -> None:
    with pytest.raises(InputError) as refused:
        positions(text)
    assert says in str(refused.value) and "\n" not in str(refused.value)


def measured(acceptance: Acceptance, count: int = 4000, tokens: int = 120) -> tuple[Any, float]:
    """Kept drafts of requests of so many tokens each, and tokens a round over all rounds."""
    drawn = acceptance.draw([tokens] * count, np.random.default_rng(5))
    kept, total, rounds = [], 0, 0
    for outcome in drawn:
        left = tokens
        mine = []
        while left > 0:
            mine.append(outcome[len(mine)])
            left -= mine[-1] + 1
        kept.append(np.array(mine))
        total += sum(mine) + len(mine)
        rounds += len(mine)
    return kept, total / rounds


def test_requests_differ_by_the_stated_deviation() -> None:
    kept, _ = measured(Acceptance((0.7,), spread=0.2), tokens=400)
    own = [request.mean() for request in kept]
    assert np.std(own) == pytest.approx(0.2, rel=0.05)
    assert np.mean(own) == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize("spread", [0.1, 0.25])
def test_a_rate_holds_where_requests_differ(spread: float) -> None:
    """vLLM's rate is over all rounds, of which requests that keep little have more."""
    found = Acceptance(positions("rate:0.44", spread=spread), spread)
    _, length = measured(found)
    assert (length - 1) / 4 == pytest.approx(0.44, abs=0.006)
    assert found.per_position[0] > positions("rate:0.44")[0]


def test_a_length_holds_where_requests_change() -> None:
    found = Acceptance(positions("length:2.8", spread=0.2, lasts=2), 0.2, 2)
    assert measured(found, tokens=400)[1] == pytest.approx(2.8, rel=0.02)


def test_levels_last_for_the_stated_rounds() -> None:
    """The correlation of neighbouring rounds is that of a level that is kept with 1 - 1/lasts."""
    rounds = [2000] * 200
    for lasts in (5, 50):
        drawn = Acceptance((0.5,), 0.4, lasts).draw(rounds, np.random.default_rng(1))
        table = np.array([list(one) for one in drawn], dtype=float)
        table -= table.mean()
        variance = (table**2).mean()
        for lag in (1, 5):
            found = (table[:, :-lag] * table[:, lag:]).mean() / variance
            assert found == pytest.approx(0.64 * (1 - 1 / lasts) ** lag, abs=0.02)


def test_differing_outcomes_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    acceptance = Acceptance((0.9, 0.5), 0.2, 3)
    whole = acceptance.draw([5, 0, 40, 7], np.random.default_rng(3))
    assert [len(one) for one in whole] == [5, 0, 40, 7]
    monkeypatch.setattr("pdvsim.acceptance._BLOCK", 8)
    assert acceptance.draw([5, 0, 40, 7], np.random.default_rng(3)) == whole


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"acceptance_spread": 0.46}, "--acceptance-spread is 0.46; of probabilities round 0.7"),
        ({"acceptance_spread": 0.6}, "--acceptance-spread is 0.6; it must be between 0 and 0.49"),
        (
            {"acceptance_spread": 1e-9},
            "--acceptance-spread is 1e-09; it must be 0, or at least 0.001",
        ),
        ({"acceptance_lasts": 5}, "give --acceptance-spread too"),
        ({"acceptance": "real", "acceptance_spread": 0.1}, "only for injected acceptance"),
        (
            {"acceptance_from": AcceptanceFile("x", "0"), "acceptance_spread": 0.1},
            "leave --acceptance-spread out",
        ),
    ],
)
def test_cells_that_cannot_differ_so(changes: dict[str, Any], says: str) -> None:
    from dataclasses import replace

    with pytest.raises(InputError, match=says):
        replace(CELL, **changes)


@given(st.floats(1e-6, 1.0 - 1e-6), st.floats(0.001, 0.49))
def test_levels_have_the_mean_and_the_deviation(mean: float, spread: float) -> None:
    assume(spread < (mean * (1.0 - mean)) ** 0.5)
    quantiles = (np.arange(4000) + 0.5) / 4000
    found = Acceptance((mean,), spread).levels(quantiles)[:, 0]
    assert found.mean() == pytest.approx(mean, abs=1e-3)
    assert found.std() == pytest.approx(spread, rel=0.03, abs=2e-3)
    assert (np.diff(found) >= -1e-9).all()


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """The request file of a simulated run of four drafts."""
    run = Replication(CELL, FakeModel(), 0).run()
    run.write(tmp_path, "run", CELL.to_dict())
    return tmp_path / f"run{REQUESTS}"


def test_measured_rounds_are_replayed(record: Path) -> None:
    found = measured_acceptance(AcceptanceFile.of(record))
    assert found.draft_tokens == 4
    drawn = Replayed(found.rounds, 4).draw([300] * 50, np.random.default_rng(0))
    for outcome in drawn:
        assert any(outcome.startswith(one) for one in found.rounds)
        assert len(outcome) == 300
    short = Replayed(found.rounds, 2).draw([300] * 50, np.random.default_rng(0))
    assert short == [bytes(min(kept, 2) for kept in outcome) for outcome in drawn]


def test_a_cell_of_measured_acceptance_says_what_was_kept(record: Path) -> None:
    asked = closed_loop(4, acceptance_from=record, output_tokens=40).asked("pd")
    (cell,) = asked.cells(pair("tiny:tiny"), "graph")
    assert cell.draft_tokens == 4 and cell.acceptance_from is not None
    assert cell.acceptance == pytest.approx((0.7,) * 4, abs=0.2)
    assert Cell.read(json.loads(json.dumps(cell.to_dict()))) == cell
    assert cell.plan(np.random.SeedSequence(1)).outcomes == (
        cell.plan(np.random.SeedSequence(1)).outcomes
    )
    assert cell.acceptance_text.startswith(f"replayed from run{REQUESTS}, where 0.")
    shorter = with_draft_tokens(cell, 2)
    assert shorter.acceptance == cell.acceptance[:2]
    assert max(max(one) for one in shorter.plan(np.random.SeedSequence(1)).outcomes) == 2
    with pytest.raises(InputError, match="leaves open"):
        with_draft_tokens(cell, 5)
    with pytest.raises(InputError, match="measured 4 draft positions; give no more"):
        closed_loop(4, acceptance_from=record, draft_tokens=6).asked("pd").cells(
            pair("tiny:tiny"), "graph"
        )


def test_files_without_measured_rounds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("")
    (tmp_path / "b.json").write_text("{}")
    for name, says in (("a.parquet", "is called .._requests"), ("b.json", "not the output of")):
        with pytest.raises(InputError, match=says):
            measured_acceptance(AcceptanceFile.of(tmp_path / name))
    with pytest.raises(InputError, match="cannot read the file of acceptance"):
        AcceptanceFile.of(tmp_path / "none.json")


def test_the_committed_benches_say_where_their_records_are() -> None:
    root = Path(__file__).parents[1] / "results"
    found = measured_acceptance(AcceptanceFile.of(root / "eager" / "h100_bench_0_c16.json"))
    assert (found.draft_tokens, len(found.rounds)) == (4, 76)


def test_a_shorter_draft_keeps_its_first_positions() -> None:
    from dataclasses import replace

    cell = replace(CELL, acceptance=(0.9, 0.8, 0.7), draft_tokens=3)
    assert with_draft_tokens(cell, 2).acceptance == (0.9, 0.8)
    with pytest.raises(InputError, match="leaves open"):
        with_draft_tokens(cell, 4)


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_a_bench_without_records_tells_acceptance_and_spread(spread: float, tmp_path: Path) -> None:
    from dataclasses import replace

    cell = replace(CELL, output_tokens=200, requests=400, acceptance_spread=spread)
    run = measured_of(Replication(cell, FakeModel(), 0).run())
    assert run is not None
    bench = read(Path(__file__).parents[1] / "results" / "eager" / "h100_bench_0_c16.json")
    assert isinstance(bench, Benchmark)
    (row, *_) = bench.cells
    known = row.runs[0].model_copy(update={"acceptance": run, "records": "gone"})
    told = bench.model_copy(update={"cells": (row.model_copy(update={"runs": (known,)}),)})
    path = told.save(tmp_path / "bench.json")
    asked = closed_loop(4, acceptance_from=path, output_tokens=200).asked("pd")
    (again,) = asked.cells(pair("tiny:tiny"), "graph")
    assert again.acceptance_from is None
    assert again.acceptance_spread == pytest.approx(spread, abs=0.03)
    assert again.acceptance == pytest.approx((0.7,) * 4, abs=0.05)
    length = tokens_per_round(again.acceptance, again.acceptance_spread)
    assert length == pytest.approx(run.tokens_per_round, rel=0.02)


def test_a_bench_that_tells_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text((Path(__file__).parents[1] / "results/graph/h100_bench_c1.json").read_text())
    with pytest.raises(InputError, match="tells nothing of accepted drafts"):
        closed_loop(acceptance_from=path).asked("pd").cells(pair("tiny:tiny"), "graph")
