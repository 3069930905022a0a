"""A prediction names the limit or the mechanism that decides who is best."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pdvsim import decisive
from pdvsim.architectures.pdv import PREFILL_IN_TURN
from pdvsim.cli import run as pdvsim
from pdvsim.profile import load_profile
from pdvsim.results import ranks
from pdvsim.sweep import sweep
from tests.fakes import cell

# So many drafts are kept that speculation is far ahead, unless it is held back.
LOAD = "--acceptance 0.95 --prompt-tokens 16 --output-tokens 32 --replications 3 --json"


@pytest.fixture
def predicted(capsys: pytest.CaptureFixture[str]) -> Any:
    def predict(options: str) -> Any:
        assert pdvsim(["predict", *options.split(), *LOAD.split()]) == 0
        return json.loads(capsys.readouterr().out)

    return predict


def test_a_limit_that_decides_is_named_beside_the_verdict(predicted: Any) -> None:
    said = predicted("--concurrency 64 --architecture plain,pdv --prefill-batch 1")
    free = predicted("--concurrency 64 --architecture plain,pdv")
    assert said["ranks"][0]["order"] == ["plain", "pdv"] == free["ranks"][0]["order"][::-1]
    (sentence,) = said["ranks"][0]["decided_by"]
    assert sentence.startswith("With --prefill-batch auto it would be pdv (")
    assert sentence.endswith("): that limit decides.")
    assert sentence in said["verdict"]["sentence"]
    assert free["ranks"][0]["decided_by"] == []


def test_a_limit_that_decides_nothing_is_not_named(predicted: Any) -> None:
    said = predicted("--concurrency 4 --architecture plain,pd --prefill-batch 4")
    assert said["ranks"][0]["decided_by"] == []


def test_a_micro_batch_that_decides_against_three_lanes_is_named(predicted: Any) -> None:
    said = predicted("--concurrency 8 --architecture plain,three_lane --verify-batch 1")
    (sentence,) = said["ranks"][0]["decided_by"]
    assert sentence.startswith("With --verify-batch auto it would be three_lane@verify_batch=1 (")


@pytest.mark.parametrize("factor", [0.5, 0.999, 2.0])
def test_a_mechanism_of_the_best_that_decides_is_named(
    factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if `pdv` were so many times as fast with a prefill lane of its own."""
    profile = load_profile("h100_tinyllama-1.1b_llama-2-7b_graph")
    kept = (0.95,) * 4
    cells = [
        cell(name, "graph", pair=profile.pair.name, acceptance=kept) for name in ("plain", "pdv")
    ]
    results = sweep(cells, profile, 2, workers=1)
    (rank,) = ranks(results)
    assert rank.order[0] == "pdv"

    def otherwise(task: Any) -> float:
        assert task.off == {PREFILL_IN_TURN} and task.run.cell.architecture == "pdv"
        return factor * results[1].runs[task.run.index].metrics["output_throughput"]

    monkeypatch.setattr(decisive, "_value", otherwise)
    found = decisive.decided_by(rank, results, profile)
    assert bool(found) is (factor == 0.5)
    if found:
        said = "Without 'prefill in the worker's turn' in pdv it would be plain ("
        assert found[0].startswith(said) and found[0].endswith("): that mechanism decides.")
