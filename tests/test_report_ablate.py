"""The page of an ablation: parts that make the whole."""

from __future__ import annotations

from typing import Any

import pytest

from reports import ablate
from reports.page import render, spec_of
from reports.verdict import judge
from tests.documents import headings, interval, offline


def ablation(scale: str, whole: float, parts: dict[str, float]) -> dict[str, Any]:
    return {
        "command": "ablate",
        "seed": 0,
        "concurrency": 4,
        "metric": "median_e2el_ms",
        "first": "pd",
        "second": "pdv",
        "scale": scale,
        "whole": interval(whole, 0.01),
        "decided": True,
        "parts": [
            {
                "mechanism": name,
                "part": interval(value, 0.01),
                "share": interval(0.5, 0.01),
                "switched_off_alone": interval(value, 0.02),
                "effect": name != "everything else",
            }
            for name, value in parts.items()
        ],
        "sentence": "pdv over pd: made of <GIL> and locks.",
        "replications": 3,
        "runs": 24,
        "profile": {"name": "made up", "pair": "a:b", "executor": "eager"},
    }


@pytest.fixture
def factors() -> dict[str, Any]:
    return ablation("ratio", 1.2, {"GIL": 1.5, "locks": 0.8, "everything else": 1.0})


@pytest.fixture
def amounts() -> dict[str, Any]:
    return ablation("difference", 30.0, {"GIL": 50.0, "locks": -20.0, "everything else": 0.0})


def test_factors_multiply_to_the_whole(factors: dict[str, Any]) -> None:
    gil, locks, rest, whole = ablate.steps(factors)
    assert (gil["start"], gil["end"]) == (1.0, 1.5)
    assert (locks["start"], locks["end"]) == (1.5, pytest.approx(1.2))
    assert rest["end"] == pytest.approx(whole["end"])
    assert (whole["start"], whole["mechanism"]) == (1.0, ablate.WHOLE)
    assert locks["low"] == pytest.approx(1.5 * 0.79)


def test_amounts_add_up_to_the_whole(amounts: dict[str, Any]) -> None:
    steps = ablate.steps(amounts)
    assert [row["start"] for row in steps] == [0.0, 50.0, 30.0, 0.0]
    assert [row["end"] for row in steps] == [50.0, 30.0, 30.0, 30.0]
    kinds = [row["kind"] for row in steps]
    assert kinds == ["raises it", "lowers it", "without effect", ablate.WHOLE]


def test_the_page_shows_that_the_parts_make_the_whole(
    factors: dict[str, Any], amounts: dict[str, Any]
) -> None:
    page = render(factors)
    assert headings(page) == {"From nothing to the whole", "Parts", "Provenance"}
    assert offline(page)
    assert "<td>product of the parts</td><td>1.2000</td>" in page
    assert "<td>the whole</td><td>1.2000<small>1.1900 to 1.2100</small></td>" in page
    assert "<td>50.0<small>49.0 to 51.0</small></td>" in page  # share of the whole, %
    assert "Without effect worth a word: everything else." in page
    assert "<td>sum of the parts</td><td>30.0</td>" in render(amounts)


def test_the_axis_of_factors_is_logarithmic(
    factors: dict[str, Any], amounts: dict[str, Any]
) -> None:
    kinds = []
    for document in (factors, amounts):
        drawn = ablate.waterfall(document)
        assert drawn is not None
        bar = spec_of(drawn)["layer"][1]
        kinds.append(bar["encoding"]["x"]["scale"].get("type"))
    assert kinds == ["log", None]


def test_shares_of_an_undecided_whole_are_not_shown(factors: dict[str, Any]) -> None:
    factors["decided"] = False
    page = render(factors)
    assert "<td>50.0<small>" not in page
    assert "Shares of a whole that may be none say nothing" in page
    assert "the whole could be chance" in judge(factors).validity


def test_single_runs_are_said_to_have_no_interval(factors: dict[str, Any]) -> None:
    factors["parts"][0]["part"] = interval(1.5)
    factors.update(replications=1, decided=False)
    assert ablate.steps(factors)[0]["text"] == "x 1.5000 (no interval)"
    assert judge(factors).validity == "VALID WITH CARE, because a single run has no interval"


def test_one_architecture_is_held_against_itself(factors: dict[str, Any]) -> None:
    factors.update(first=None)
    drawn = ablate.waterfall(factors)
    assert drawn is not None
    assert "median_e2el_ms of pdv, with against without" in str(spec_of(drawn))


def test_the_headline_is_the_sentence(factors: dict[str, Any]) -> None:
    assert judge(factors).sentence == factors["sentence"]
    assert "made of &lt;GIL&gt; and locks." in render(factors)
