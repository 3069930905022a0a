"""The page of a crossover: ratios, crossings, valleys, what stays open, and the map."""

from __future__ import annotations

from typing import Any

import pytest

from reports import crossover, crossover_map
from reports.page import render, spec_of
from reports.verdict import judge
from tests.documents import headings, interval, offline


def point(load: float, ratio: float | None, verdict: str) -> dict[str, Any]:
    return {
        "load": load,
        "ratio": None if ratio is None else interval(ratio, 0.1),
        "verdict": verdict,
        "replications": 4,
        "first": 10.0,
        "second": None if ratio is None else 10.0 * ratio,
    }


def crossing(value: float, half: float) -> dict[str, Any]:
    return {**interval(value, half), "ratio_rises": False, "replications": 8, "loads": [2.0, 16.0]}


@pytest.fixture
def document() -> dict[str, Any]:
    """pdv is better at 1 and 2, and worse at 16 and 32; 4 is open and 64 without an answer."""
    points = [
        point(1.0, 1.3, "pdv"),
        point(2.0, 1.2, "pdv"),
        point(4.0, 1.01, "open"),
        point(16.0, 0.8, "pd"),
        point(32.0, 0.7, "pd"),
        point(64.0, None, "alike"),
    ]
    valleys = [("pd", 1.0, 2.0, 1.0, 1.3), ("pdv", 16.0, 32.0, 32.0, 0.7)]
    return {
        "command": "crossover",
        "seed": 0,
        "first": "pd",
        "second": "pdv",
        "over": "concurrency",
        "metric": "output_throughput",
        "lower_is_better": False,
        "interval": "95 %",
        "points": points,
        "crossings": [crossing(5.0, 1.0)],
        "valleys": [
            {"worse": worse, "from": a, "to": b, "deepest": at, "ratio": interval(ratio, 0.1)}
            for worse, a, b, at, ratio in valleys
        ],
        "alike": [],
        "undecided": [4.0],
        "pairs_of_runs": 24,
        "map": None,
        "profile": {"name": "made up"},
    }


@pytest.fixture
def mapped(document: dict[str, Any]) -> dict[str, Any]:
    """The second axis has another name as a setting than as an axis."""
    rows = [
        {
            "load": load,
            "points": [
                {"rate_per_s": 1.0, "ratio": interval(0.7, 0.1)},
                {"rate_per_s": 4.0, "ratio": interval(1.05, 0.1)},
                {"rate_per_s": 16.0, "ratio": None},
            ],
            "break_even": [crossing(3.0, 0.5)] if even else [],
        }
        for load, even in ((1.0, True), (2.0, True), (4.0, False), (8.0, True))
    ]
    return {**document, "map": {"across": "rate", "rows": rows}}


def test_loads_without_a_ratio_are_said_and_not_drawn(document: dict[str, Any]) -> None:
    assert [row["load"] for row in crossover.points(document)] == [1.0, 2.0, 4.0, 16.0, 32.0]
    assert "At concurrency 64 the runs could not say." in render(document)
    assert "1 load without a ratio" in judge(document).validity


def test_open_loads_have_a_verdict_of_their_own(document: dict[str, Any]) -> None:
    verdicts = {row["load"]: row["verdict"] for row in crossover.points(document)}
    assert verdicts[4.0] == "open"
    assert "1 load left open" in judge(document).validity
    assert "Open at concurrency 4: the difference is within its interval." in render(document)


def test_crossings_are_bands_and_valleys_are_shaded(document: dict[str, Any]) -> None:
    assert crossover.crossings(document) == [
        {"value": 5.0, "low": 4.0, "high": 6.0, "text": "5.00 (4.00 to 6.00)"}
    ]
    assert crossover.valleys(document) == [
        {"start": 1.0, "end": 2.0, "better": "pdv"},
        {"start": 16.0, "end": 32.0, "better": "pd"},
    ]
    drawn = crossover.over_load(document)
    assert drawn is not None
    marks = [layer["mark"]["type"] for layer in spec_of(drawn)["layer"]]
    assert marks.count("rect") == 2


def test_a_crossover_without_crossings_draws(document: dict[str, Any]) -> None:
    document.update(crossings=[], valleys=[])
    drawn = crossover.over_load(document)
    assert drawn is not None
    assert "rect" not in [layer["mark"]["type"] for layer in spec_of(drawn)["layer"]]


def test_the_page_says_what_the_command_says(document: dict[str, Any]) -> None:
    page = render(document)
    assert headings(page) == {"Ratio", "What it says", "Survey", "Provenance"}
    assert offline(page)
    assert "From concurrency 5.00 on (4.00 to 6.00) pd is better." in page
    assert "pdv is worse at concurrency 16 to 32, most at 32" in page
    assert "<td>1.0100<small>0.9100 to 1.1100</small></td><td>open</td>" in page
    assert "n/a" in page


def test_ratios_close_to_1_keep_their_side(document: dict[str, Any]) -> None:
    document["points"][0]["ratio"] = {"value": 1.0002, "low": 1.0001, "high": 1.0003}
    assert crossover.points(document)[0]["told"] == "1.0002 (1.0001 to 1.0003)"


def test_the_headline_is_the_crossing(document: dict[str, Any]) -> None:
    assert judge(document).sentence == (
        "output_throughput of pdv against pd: From concurrency 5.00 on (4.00 to 6.00) pd is better."
    )


def test_the_headline_without_a_crossing(document: dict[str, Any]) -> None:
    document["crossings"] = []
    assert "No crossing is certain in this range." in judge(document).sentence
    document["points"] = document["points"][:3]
    assert "pdv is better wherever one of them certainly is" in judge(document).sentence


def test_a_map_has_a_box_for_each_pair_of_values(mapped: dict[str, Any]) -> None:
    boxes = crossover_map.boxes(mapped)
    assert len(boxes) == 12
    first, second, third = boxes[:3]
    assert (first["across"], first["text"]) == (1.0, "0.700")
    assert second["text"] == "≈ 1.05"
    assert (third["value"], third["text"]) == (None, "n/a")
    assert first["top"] == second["bottom"] == pytest.approx(2.0)


def test_the_contour_breaks_where_there_is_no_break_even(mapped: dict[str, Any]) -> None:
    rows = crossover_map.contour(mapped)
    assert [(row["load"], row["line"]) for row in rows] == [(1.0, 0), (2.0, 0), (8.0, 1)]


def test_a_map_is_rendered(mapped: dict[str, Any]) -> None:
    page = render(mapped)
    assert {"Map", "Break-even"} <= headings(page)
    assert "<td>1</td><td>3.00 (2.50 to 3.50)</td>" in page
    assert "<td>4</td><td>none</td>" in page


@pytest.mark.parametrize(("axis", "middle"), [("concurrency", 4.0), ("acceptance", 8.5)])
def test_boxes_meet_half_way_as_the_axis_goes(axis: str, middle: float) -> None:
    (_, end), (begin, _) = crossover_map.edges([1.0, 16.0], axis)
    assert end == begin == pytest.approx(middle)
    ((low, high),) = crossover_map.edges([5.0], axis)
    assert low < 5.0 < high
