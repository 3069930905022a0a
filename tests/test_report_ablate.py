"""The page of an ablation: parts that make the whole."""

from __future__ import annotations

from typing import Any

import pytest

from pdvsim.documents.ablation import Ablation
from reports import ablate
from reports.page import render, spec_of
from tests.documents import CALIBRATION, headings, interval, made, offline

FACTORS = {"GIL": 1.5, "locks": 0.8, "everything else": 1.0}
AMOUNTS = {"GIL": 50.0, "locks": -20.0, "everything else": 0.0}


def ablation(
    scale: str,
    whole: float,
    parts: dict[str, float],
    half: float | None = 0.01,
    **changes: Any,
) -> Ablation:
    fields = {
        "seed": 0,
        "concurrency": 4,
        "metric": "median_e2el_ms",
        "scale": scale,
        "first": "pd",
        "second": "pdv",
        "cells": None,
        "published": None,
        "length": None,
        "whole": interval(whole, half),
        "decided": True,
        "parts": [
            {
                "mechanism": name,
                "part": interval(value, half),
                "share": interval(0.5, 0.01),
                "switched_off_alone": interval(value, 0.02),
                "effect": name != "everything else",
            }
            for name, value in parts.items()
        ],
        "sentence": "pdv over pd: made of <GIL> and locks.",
        "replications": 3,
        "runs": 24,
        "profile": CALIBRATION,
    }
    document = made("ablate", **{**fields, **changes})
    assert isinstance(document, Ablation)
    return document


@pytest.fixture
def factors() -> Ablation:
    return ablation("ratio", 1.2, FACTORS)


@pytest.fixture
def amounts() -> Ablation:
    return ablation("difference", 30.0, AMOUNTS)


def test_factors_multiply_to_the_whole(factors: Ablation) -> None:
    gil, locks, rest, whole = ablate.steps(factors)
    assert (gil["start"], gil["end"]) == (1.0, 1.5)
    assert (locks["start"], locks["end"]) == (1.5, pytest.approx(1.2))
    assert rest["end"] == pytest.approx(whole["end"])
    assert (whole["start"], whole["mechanism"]) == (1.0, ablate.WHOLE)
    assert locks["low"] == pytest.approx(1.5 * 0.79)


def test_amounts_add_up_to_the_whole(amounts: Ablation) -> None:
    steps = ablate.steps(amounts)
    assert [row["start"] for row in steps] == [0.0, 50.0, 30.0, 0.0]
    assert [row["end"] for row in steps] == [50.0, 30.0, 30.0, 30.0]
    kinds = [row["kind"] for row in steps]
    assert kinds == ["raises it", "lowers it", "without effect", ablate.WHOLE]


def test_the_page_shows_that_the_parts_make_the_whole(factors: Ablation, amounts: Ablation) -> None:
    page = render(factors)
    assert headings(page) == {"From nothing to the whole", "Parts", "Provenance"}
    assert offline(page)
    assert "<td>product of the parts</td><td>1.2000</td>" in page
    assert "<td>the whole</td><td>1.2000<small>1.1900 to 1.2100</small></td>" in page
    assert "<td>50.0<small>49.0 to 51.0</small></td>" in page  # share of the whole, %
    assert "Without effect worth a word: everything else." in page
    assert "<td>sum of the parts</td><td>30.0</td>" in render(amounts)


def test_the_axis_of_factors_is_logarithmic(factors: Ablation, amounts: Ablation) -> None:
    kinds = []
    for document in (factors, amounts):
        drawn = ablate.waterfall(document)
        assert drawn is not None
        bar = spec_of(drawn)["layer"][1]
        kinds.append(bar["encoding"]["x"]["scale"].get("type"))
    assert kinds == ["log", None]


def test_shares_of_an_undecided_whole_are_not_shown() -> None:
    document = ablation("ratio", 1.2, FACTORS, decided=False)
    page = render(document)
    assert "<td>50.0<small>" not in page
    assert "Shares of a whole that may be none say nothing" in page
    assert "the whole could be chance" in document.verdict.badge


def test_single_runs_are_said_to_have_no_interval() -> None:
    document = ablation("ratio", 1.2, FACTORS, half=None, decided=False, replications=1)
    assert ablate.steps(document)[-1]["text"] == "x 1.2000 (no interval)"
    assert document.verdict.badge == "VALID WITH CARE, because a single run has no interval"


def test_one_architecture_is_held_against_itself() -> None:
    drawn = ablate.waterfall(ablation("ratio", 1.2, FACTORS, first=None))
    assert drawn is not None
    assert "median_e2el_ms of pdv, with against without" in str(spec_of(drawn))


def test_the_headline_is_the_sentence(factors: Ablation) -> None:
    assert factors.verdict.sentence == factors.sentence
    assert "made of &lt;GIL&gt; and locks." in render(factors)
