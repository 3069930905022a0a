"""The page of an explanation: causes that stack up, differences, predicted less measured."""

from __future__ import annotations

import copy
from typing import Any

import altair as alt
import pytest

from reports import explain
from reports.page import render, spec_of
from reports.verdict import judge
from tests.documents import body, headings, interval, offline


def cell(
    architecture: str,
    causes: dict[str, float],
    load: int = 8,
    world: str = "simulated",
    half: float | None = 0.5,
) -> dict[str, Any]:
    whole = sum(causes.values())
    return {
        "architecture": architecture,
        "world": world,
        "concurrency": load,
        "replications": 1 if half is None else 3,
        "e2e_s": interval(whole, half),
        "causes": {
            name: {"seconds": interval(value, half), "share": interval(value / whole, half)}
            for name, value in causes.items()
        },
        "memos": {"wasted drafts": interval(0.25, half)},
    }


def difference(first: str, second: str, load: int, seconds: float, decided: bool) -> dict[str, Any]:
    return {
        "first": first,
        "second": second,
        "world": "simulated",
        "concurrency": load,
        "whole_s": interval(seconds, 0.1),
        "decided": decided,
        "sentence": f"At C = {load} {second} takes {seconds} s longer than {first}.",
    }


@pytest.fixture
def document() -> dict[str, Any]:
    """Two architectures at two loads; `device` is never worth showing."""
    cells = [
        cell(name, {"queueing": wait * load, "launch": 2.0, "device": 0.0}, load)
        for load in (8, 16)
        for name, wait in (("pd", 1.0), ("pdv", 2.0))
    ]
    return {
        "command": "explain",
        "seed": 0,
        "cells": cells,
        "differences": [
            difference("pd", "pdv", 16, 16.0, True),
            difference("pd", "pdv", 8, 8.0, True),
        ],
        "predicted_less_measured": [],
        "largest_gaps": {},
        "profile": {"name": "made up", "pair": "a:b", "executor": "eager"},
    }


@pytest.fixture
def both(document: dict[str, Any]) -> dict[str, Any]:
    """One cell in both worlds, measured once."""
    real = cell("pd", {"queueing": 7.0, "launch": 3.0, "device": 0.0}, 8, "real", None)
    gap = {
        "architecture": "pd",
        "concurrency": 8,
        "points": {"queueing": 10.0, "launch": -10.0, "device": 0.0},
        "worst": "queueing",
        "worst_points": 10.0,
    }
    largest = {
        "queueing": {
            "cells": 1,
            "within_5_points": 0,
            "largest_points": 10.0,
            "at": {"architecture": "pd", "concurrency": 8},
        }
    }
    return {
        **document,
        "cells": [document["cells"][0], real],
        "differences": [],
        "predicted_less_measured": [gap],
        "largest_gaps": largest,
    }


def test_the_parts_of_each_bar_add_up_to_its_whole(document: dict[str, Any]) -> None:
    for whole in explain.wholes(document):
        place = {name: whole[name] for name in ("architecture", "world", "concurrency")}
        parts = [row for row in explain.causes(document) if place.items() <= row.items()]
        assert sum(row["seconds"] for row in parts) == pytest.approx(whole["value"])


def test_causes_that_never_show_are_named_but_not_drawn(document: dict[str, Any]) -> None:
    assert explain.seen(document) == ["queueing", "launch"]
    assert {row["cause"] for row in explain.causes(document)} == {"queueing", "launch"}
    assert "Below 0.05 % of the latency everywhere: device." in render(document)


def test_the_page_has_bars_sentences_and_seconds(document: dict[str, Any]) -> None:
    page = render(document)
    assert headings(page) == {
        "Latency by cause",
        "What the differences are made of",
        "Seconds by cause",
        "Provenance",
    }
    assert offline(page)
    for found in document["differences"]:
        assert f"<li>{found['sentence']}</li>" in page
    assert "<td>10.0<small>9.50 to 10.5</small></td>" in page  # E2E of pd at C = 8
    assert "made up" in page


def test_differences_between_the_others_are_folded(document: dict[str, Any]) -> None:
    document["differences"].append(difference("pdv", "baseline", 8, 1.0, True))
    shown = body(render(document))
    assert shown.index("than pdv.") > shown.index("<summary>1 between the others</summary>")


def test_both_worlds_and_what_is_between_them(both: dict[str, Any]) -> None:
    page = render(both)
    assert {"Predicted less measured", "Largest gaps"} <= headings(page)
    assert "queueing: +10 points, for pd at C = 8; within 5 points in 0 of the 1" in page
    assert {row["text"] for row in explain.gaps(both)} == {"+10.0", "-10.0"}
    drawn = explain.stacks(both)
    assert isinstance(drawn, alt.VConcatChart)
    titles = [panel["title"]["text"] for panel in spec_of(drawn)["vconcat"][0]["hconcat"]]
    assert titles == ["C = 8, simulated", "C = 8, real"]


def test_a_single_run_is_said_to_have_no_interval(both: dict[str, Any]) -> None:
    assert "<small>no interval</small>" in render(both)
    assert "a single run has no interval" in judge(both).validity


def test_a_long_interval_is_cut_and_said(document: dict[str, Any]) -> None:
    document["cells"][0]["e2e_s"]["high"] = 1000.0
    row = explain.wholes(document)[0]
    assert row["end"] == pytest.approx(1.5 * 18.0)
    assert row["text"] == "10.0 s, up to 1,000"


def test_a_missing_part_is_not_drawn_as_zero(document: dict[str, Any]) -> None:
    document["cells"][0]["causes"]["launch"] = {"seconds": None, "share": None}
    first = [row for row in explain.causes(document) if row["concurrency"] == 8]
    assert [row["cause"] for row in first if row["architecture"] == "pd"] == ["queueing"]
    assert "<td>n/a</td>" in render(document)


def test_the_headline_is_the_difference_at_the_highest_load(document: dict[str, Any]) -> None:
    assert judge(document).sentence == "At C = 16 pdv takes 16.0 s longer than pd."
    assert judge(document).validity == "VALID"
    undecided = copy.deepcopy(document)
    undecided["differences"][0]["decided"] = False
    assert "the difference could be chance" in judge(undecided).validity


def test_the_headline_of_both_worlds_is_the_largest_gap(both: dict[str, Any]) -> None:
    assert judge(both).sentence == (
        "Predicted shares of the latency are at most 10.0 points off the measured ones in 1 cell: "
        "farthest for queueing in pd at C = 8."
    )


def test_the_headline_of_one_architecture_is_its_largest_part(document: dict[str, Any]) -> None:
    document.update(cells=document["cells"][:1], differences=[])
    assert judge(document).sentence == (
        "At C = 8 (simulated) a request takes 10.0 (9.50 to 10.5) s in pd; the largest part is "
        "queueing, 8.00 (7.50 to 8.50) s."
    )
