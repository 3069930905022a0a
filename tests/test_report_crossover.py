"""The page of a crossover: ratios, crossings, valleys, what stays open, and the map."""

from __future__ import annotations

from typing import Any

import pytest

from pdvsim.cell import Cell
from pdvsim.documents.crossover import Axis, Crossover
from reports import crossover, crossover_map
from reports.page import render, spec_of
from tests.documents import CALIBRATION, headings, interval, made, offline

CONCURRENCY = {"name": "concurrency", "logarithmic": True, "whole": True}


def point(at: float, ratio: float | None, answer: str, half: float | None = 0.1) -> dict[str, Any]:
    return {
        "at": at,
        "ratio": None if ratio is None else interval(ratio, half),
        "answer": answer,
        "pairs_of_runs": 4,
        "first": 10.0,
        "second": None if ratio is None else 10.0 * ratio,
    }


def crossing(value: float, half: float) -> dict[str, Any]:
    return {
        "at": interval(value, half),
        "ratio_rises": False,
        "better": "first",
        "pairs_of_runs": 8,
        "places": [2.0, 16.0],
    }


def side(name: str) -> dict[str, Any]:
    return {"label": name, "cell": Cell("tiny:tiny", "eager", name, 32).to_dict()}


# pdv is better at 1 and 2, and worse at 16 and 32; 4 is open and 64 without an answer.
POINTS = [
    point(1.0, 1.3, "second"),
    point(2.0, 1.2, "second"),
    point(4.0, 1.01, "open"),
    point(16.0, 0.8, "first"),
    point(32.0, 0.7, "first"),
    point(64.0, None, "unknown"),
]
VALLEYS = [("first", 1.0, 2.0, 1.0, 1.3), ("second", 16.0, 32.0, 32.0, 0.7)]


def crossed(**changes: Any) -> Crossover:
    fields = {
        "first": side("pd"),
        "second": side("pdv"),
        "axis": CONCURRENCY,
        "metric": "output_throughput",
        "better": "higher",
        "length": {"runs": 48, "seconds": 2.0, "requests": 100.0},
        "points": POINTS,
        "crossings": [crossing(5.0, 1.0)],
        "valleys": [
            {"worse": worse, "start": a, "end": b, "deepest": at, "ratio": interval(ratio, 0.1)}
            for worse, a, b, at, ratio in VALLEYS
        ],
        "pairs_of_runs": 24,
        "sentences": [],
        "map": None,
        "profile": CALIBRATION,
    }
    document = made("crossover", **{**fields, **changes})
    assert isinstance(document, Crossover)
    return document


@pytest.fixture
def document() -> Crossover:
    return crossed()


@pytest.fixture
def mapped() -> Crossover:
    rows = [
        {
            "at": at,
            "points": [
                {"at": 1.0, "ratio": interval(0.7, 0.1)},
                {"at": 4.0, "ratio": interval(1.05, 0.1)},
                {"at": 16.0, "ratio": None},
            ],
            "break_even": [crossing(3.0, 0.5)] if even else [],
        }
        for at, even in ((1.0, True), (2.0, True), (4.0, False), (8.0, True))
    ]
    return crossed(
        map={"axis": {"name": "rate", "logarithmic": True, "whole": False}, "rows": rows}
    )


def test_points_without_a_ratio_are_said_and_not_drawn(document: Crossover) -> None:
    assert [row["at"] for row in crossover.points(document)] == [1.0, 2.0, 4.0, 16.0, 32.0]
    assert "Unknown at concurrency 64: the runs gave no ratio with an interval." in render(document)
    assert "1 point without a ratio or its interval" in document.verdict.badge


def test_open_points_have_an_answer_of_their_own(document: Crossover) -> None:
    answers = {row["at"]: row["answer"] for row in crossover.points(document)}
    assert answers[4.0] == "open"
    assert "1 point left open" in document.verdict.badge
    assert "It depends on the machine at concurrency 4." in render(document)


def test_crossings_are_bands_and_valleys_are_shaded(document: Crossover) -> None:
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


def test_a_ratio_without_an_interval_is_not_called_open() -> None:
    document = crossed(points=[*POINTS[:2], point(4.0, 116.0, "unknown", None)])
    assert "Unknown at concurrency 4" in render(document)
    assert "interval includes 1" not in document.verdict.badge


def test_a_crossover_without_crossings_draws() -> None:
    document = crossed(crossings=[], valleys=[])
    drawn = crossover.over_load(document)
    assert drawn is not None
    assert "rect" not in [layer["mark"]["type"] for layer in spec_of(drawn)["layer"]]


def test_the_page_says_what_the_command_says(document: Crossover) -> None:
    page = render(document)
    assert headings(page) == {"Ratio", "What it says", "Survey", "Provenance"}
    assert offline(page)
    assert "From concurrency 5 on (4 to 6) pd is better." in page
    assert "pdv is worse at concurrency 16 to 32, most at 32" in page
    assert "<td>1.0100<small>0.9100 to 1.1100</small></td><td>open</td>" in page
    assert "n/a" in page


def test_ratios_close_to_1_keep_their_side() -> None:
    close = {"value": 1.0002, "low": 1.0001, "high": 1.0003}
    document = crossed(points=[{**POINTS[0], "ratio": close}])
    assert crossover.points(document)[0]["told"] == "1.0002 (1.0001 to 1.0003)"


def test_the_headline_is_the_crossing(document: Crossover) -> None:
    assert document.verdict.sentence == (
        "output_throughput of pdv against pd: From concurrency 5 on (4 to 6) pd is better."
    )


def test_the_headline_without_a_crossing() -> None:
    document = crossed(crossings=[])
    assert "No crossing is certain in this range." in document.verdict.sentence
    document = crossed(crossings=[], points=POINTS[:3])
    assert "pdv is better wherever machines agree" in document.verdict.sentence


def test_a_map_has_a_box_for_each_pair_of_values(mapped: Crossover) -> None:
    assert mapped.map is not None
    boxes = crossover_map.boxes(mapped.map, mapped.axis)
    assert len(boxes) == 12
    first, second, third = boxes[:3]
    assert (first["across"], first["text"]) == (1.0, "0.700")
    assert second["text"] == "≈ 1.05"
    assert (third["value"], third["text"]) == (None, "n/a")
    assert first["top"] == second["bottom"] == pytest.approx(2.0)


def test_the_contour_breaks_where_there_is_no_break_even(mapped: Crossover) -> None:
    assert mapped.map is not None
    rows = crossover_map.contour(mapped.map)
    assert [(row["at"], row["line"]) for row in rows] == [(1.0, 0), (2.0, 0), (8.0, 1)]


def test_a_map_is_rendered(mapped: Crossover) -> None:
    page = render(mapped)
    assert {"Map", "Break-even"} <= headings(page)
    assert "<td>1</td><td>3.00 (2.50 to 3.50)</td>" in page
    assert "<td>4</td><td>none</td>" in page


@pytest.mark.parametrize(("logarithmic", "middle"), [(True, 4.0), (False, 8.5)])
def test_boxes_meet_half_way_as_the_axis_goes(logarithmic: bool, middle: float) -> None:
    axis = Axis(name="it", logarithmic=logarithmic, whole=False)
    (_, end), (begin, _) = crossover_map.edges([1.0, 16.0], axis)
    assert end == begin == pytest.approx(middle)
    ((low, high),) = crossover_map.edges([5.0], axis)
    assert low < 5.0 < high


def test_machines_that_cross_elsewhere_are_said() -> None:
    at = {"value": 5.0, "low": 4.0, "high": 8.0}
    found = [{**crossing(5.0, 1.0), "at": at, "beyond": 0.12}]
    assert crossed(crossings=found).sentences[0] == (
        "From concurrency 5 on (4 to beyond 8) pd is better; not up to 8 on 12 % of machines."
    )


def test_where_machines_differ_their_share_is_said() -> None:
    points = [{**point, "share": 0.3} if point["answer"] == "open" else point for point in POINTS]
    (told,) = (one for one in crossed(points=points).sentences if one.startswith("It depends"))
    assert "(pd is better on 70 % of machines)" in told
