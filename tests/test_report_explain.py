"""The page of an explanation: causes that stack up, differences, predicted less measured."""

from __future__ import annotations

from typing import Any

import altair as alt
import pytest

from pdvsim.documents.explanation import Explanation
from pdvsim.quantities import CAUSES, MEMOS
from reports import explain
from reports.page import render, spec_of
from tests.documents import CALIBRATION, body, headings, interval, made, offline


def cell(
    label: str,
    causes: dict[str, float],
    load: int = 8,
    world: str = "simulated",
    half: float | None = 0.5,
) -> dict[str, Any]:
    whole = sum(causes.values())
    every = dict.fromkeys(CAUSES, 0.0) | causes
    return {
        "label": label,
        "world": world,
        "concurrency": load,
        "cell": None,
        "length": None,
        "replications": 1 if half is None else 3,
        "completed": 10,
        "e2e_s": interval(whole, half),
        "causes": {
            name: {"seconds": interval(value, half), "share": interval(value / whole, half)}
            for name, value in every.items()
        },
        "memos": {name: interval(0.25, half) for name in MEMOS},
        "threads": [],
        "streams": [],
    }


def difference(
    first: str, second: str, load: int, seconds: float, decided: bool = True
) -> dict[str, Any]:
    return {
        "first": first,
        "second": second,
        "world": "simulated",
        "concurrency": load,
        "whole_s": interval(seconds, 0.1),
        "decided": decided,
        "parts_s": {name: interval(0.0, 0.1) for name in CAUSES},
        "sentence": f"At C = {load} {second} takes {seconds} s longer than {first}.",
    }


# Two architectures at two loads; only two causes are worth showing.
CELLS = [
    cell(name, {"queueing": wait * load, "launch": 2.0}, load)
    for load in (8, 16)
    for name, wait in (("pd", 1.0), ("pdv", 2.0))
]
DIFFERENCES = [difference("pd", "pdv", 16, 16.0), difference("pd", "pdv", 8, 8.0)]


def explained(**changes: Any) -> Explanation:
    fields = {
        "seed": 0,
        "replications": 3,
        "cells": CELLS,
        "differences": DIFFERENCES,
        "predicted_less_measured": [],
        "largest_gaps": [],
        "profile": CALIBRATION,
    }
    document = made("explain", **{**fields, **changes})
    assert isinstance(document, Explanation)
    return document


@pytest.fixture
def document() -> Explanation:
    return explained()


@pytest.fixture
def both() -> Explanation:
    """One cell in both worlds, measured once."""
    gap = {
        "label": "pd",
        "concurrency": 8,
        "points": {**dict.fromkeys(CAUSES, 0.0), "queueing": 10.0, "launch": -10.0},
        "worst": "queueing",
        "worst_points": 10.0,
    }
    largest = {
        "cause": "queueing",
        "cells": 1,
        "within_5_points": 0,
        "largest_points": 10.0,
        "label": "pd",
        "concurrency": 8,
    }
    return explained(
        cells=[CELLS[0], cell("pd", {"queueing": 7.0, "launch": 3.0}, 8, "real", None)],
        differences=[],
        predicted_less_measured=[gap],
        largest_gaps=[largest],
    )


def test_the_parts_of_each_bar_add_up_to_its_whole(document: Explanation) -> None:
    for whole in explain.wholes(document):
        place = {name: whole[name] for name in ("architecture", "world", "concurrency")}
        parts = [row for row in explain.causes(document) if place.items() <= row.items()]
        assert sum(row["seconds"] for row in parts) == pytest.approx(whole["value"])


def test_causes_that_never_show_are_named_but_not_drawn(document: Explanation) -> None:
    assert explain.seen(document) == ["queueing", "launch"]
    assert {row["cause"] for row in explain.causes(document)} == {"queueing", "launch"}
    assert (
        "Below 0.05 % of the latency everywhere: admission hold, KV cache full, lock wait, GIL wait"
        in render(document)
    )


def test_the_page_has_bars_sentences_and_seconds(document: Explanation) -> None:
    page = render(document)
    assert headings(page) == {
        "Latency by cause",
        "What the differences are made of",
        "Seconds by cause",
        "Provenance",
    }
    assert offline(page)
    for found in document.differences:
        assert f"<li>{found.sentence}</li>" in page
    assert "<td>10.0<small>9.50 to 10.5</small></td>" in page  # E2E of pd at C = 8
    assert "made up" in page


def test_differences_between_the_others_are_folded() -> None:
    document = explained(differences=[*DIFFERENCES, difference("pdv", "baseline", 8, 1.0)])
    shown = body(render(document))
    assert shown.index("than pdv.") > shown.index("<summary>1 between the others</summary>")


def test_both_worlds_and_what_is_between_them(both: Explanation) -> None:
    page = render(both)
    assert {"Predicted less measured", "Largest gaps"} <= headings(page)
    assert "queueing: +10 points, for pd at C = 8; within 5 points in 0 of the 1" in page
    assert {row["text"] for row in explain.gaps(both)} == {"+10.0", "-10.0"}
    drawn = explain.stacks(both)
    assert isinstance(drawn, alt.VConcatChart)
    titles = [panel["title"]["text"] for panel in spec_of(drawn)["vconcat"][0]["hconcat"]]
    assert titles == ["C = 8, simulated", "C = 8, real"]


def test_a_single_run_is_said_to_have_no_interval(both: Explanation) -> None:
    assert "<small>no interval</small>" in render(both)
    assert "a single run has no interval" in both.verdict.badge


def test_a_long_interval_is_cut_and_said() -> None:
    wide = {"value": 10.0, "low": 9.5, "high": 1000.0}
    document = explained(cells=[{**CELLS[0], "e2e_s": wide}, *CELLS[1:]])
    row = explain.wholes(document)[0]
    assert row["end"] == pytest.approx(1.5 * 18.0)
    assert row["text"] == "10.0 s, up to 1,000"


def test_the_headline_is_the_difference_at_the_highest_load(document: Explanation) -> None:
    assert document.verdict.sentence == "At C = 16 pdv takes 16.0 s longer than pd."
    assert document.verdict.badge == "VALID"
    undecided = explained(differences=[difference("pd", "pdv", 16, 16.0, decided=False)])
    assert "the difference could be chance" in undecided.verdict.badge


def test_the_headline_of_both_worlds_is_the_largest_gap(both: Explanation) -> None:
    assert both.verdict.sentence == (
        "Predicted shares of the latency are at most 10.0 points off the measured ones in 1 cell: "
        "farthest for queueing in pd at C = 8."
    )


def test_the_headline_of_one_architecture_is_its_largest_part() -> None:
    document = explained(cells=CELLS[:1], differences=[])
    assert document.verdict.sentence == (
        "At C = 8 (simulated) a request takes 10.0 s in pd; the largest part is queueing, 8.00 s."
    )
