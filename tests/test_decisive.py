"""A prediction names the limit or the mechanism that decides who is best."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pdvsim.cli import run as pdvsim


@pytest.fixture
def predicted(capsys: pytest.CaptureFixture[str]) -> Any:
    def predict(options: str) -> Any:
        shorter = "--replications 3 --prompt-tokens 128 --output-tokens 32 --json"
        assert pdvsim(["predict", *options.split(), *shorter.split()]) == 0
        return json.loads(capsys.readouterr().out)

    return predict


def test_a_limit_that_decides_is_named_beside_the_verdict(predicted: Any) -> None:
    said = predicted("--concurrency 128 --architecture plain,pdv --prefill-batch 1")
    free = predicted("--concurrency 128 --architecture plain,pdv")
    assert said["ranks"][0]["order"] == ["plain", "pdv"] == free["ranks"][0]["order"][::-1]
    (sentence,) = said["ranks"][0]["decided_by"]
    assert sentence.startswith("With --prefill-batch auto it would be pdv (")
    assert sentence.endswith("): that limit decides.")
    assert sentence in said["verdict"]["sentence"]
    assert not any("limit" in sentence for sentence in free["ranks"][0]["decided_by"])


def test_a_mechanism_of_the_best_that_decides_is_named(predicted: Any) -> None:
    said = predicted("--concurrency 128 --architecture plain,pdv")
    (sentence,) = said["ranks"][0]["decided_by"]
    assert sentence.startswith("Without 'prefill in the worker's turn' in pdv it would be plain (")
    assert sentence.endswith("): that mechanism decides.")


def test_a_limit_that_decides_nothing_is_not_named(predicted: Any) -> None:
    said = predicted("--concurrency 4 --architecture plain,pd --prefill-batch 4")
    assert said["ranks"][0]["decided_by"] == []


def test_the_published_micro_batches_decide_against_three_lanes(predicted: Any) -> None:
    said = predicted("--concurrency 64 --architecture plain,three_lane --verify-batch 8")
    (sentence,) = said["ranks"][0]["decided_by"]
    assert "With --verify-batch auto it would be three_lane@verify_batch=8 (" in sentence
