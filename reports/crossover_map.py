"""`pdvsim crossover --map`: the ratio of two over two axes, and the break-even contour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import exp, log
from typing import Any

import altair as alt

from reports import charts
from reports.chart_rows import Row, number, stated
from reports.crossover import LINEAR, Look, scale, ticks
from reports.document import Document
from reports.html import Section, ratio, said, table


def boxes(document: Document) -> list[Row]:
    """left, right, bottom, top, load, across, value, text, told: the map's cells; `value` is None
    where the runs could not say."""
    lines = document["map"]["rows"]
    across = document["map"]["across"]
    widths = edges([line["load"] for line in lines], document["over"])
    rows = []
    for (left, right), line in zip(widths, lines, strict=True):
        values = [_place(point) for point in line["points"]]
        heights = edges(values, across)
        for (bottom, top), value, point in zip(heights, values, line["points"], strict=True):
            found = stated(point, "ratio")
            rows.append(
                {
                    **{"left": left, "right": right, "bottom": bottom, "top": top},
                    **{"load": line["load"], "across": value},
                    "value": found and found["value"],
                    "text": _text(found),
                    "told": said(found, show=ratio),
                }
            )
    return rows


def _place(point: Mapping[str, Any]) -> float:
    """The value on the second axis; its key is the name of a setting, not that of the axis."""
    return next(float(value) for name, value in point.items() if name != "ratio")


def _text(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "n/a"
    low, high = found["low"], found["high"]
    sure = low is not None and high is not None and not low <= 1.0 <= high
    return ("" if sure else "≈ ") + number(found["value"])


def edges(values: Sequence[float], axis: str) -> list[tuple[float, float]]:
    """Where each value's cell begins and ends: half way to its neighbours."""
    forth, back = (float, float) if axis in LINEAR else (log, exp)
    places = [forth(value) for value in values]
    inner = [(a + b) / 2 for a, b in pairwise(places)] or [places[0] + 0.5]
    ends = [2 * places[0] - inner[0], *inner]
    if len(places) > 1:
        ends.append(2 * places[-1] - inner[-1])
    return [(back(a), back(b)) for a, b in pairwise(ends)]


def contour(document: Document) -> list[Row]:
    """load, line, value, low, high: break-evens; those of neighbouring loads that go the same
    way are one line."""
    rows: list[Row] = []
    lines: dict[tuple[bool, int], int] = {}
    made = 0
    for row in document["map"]["rows"]:
        here: dict[tuple[bool, int], int] = {}
        for found in row["break_even"]:
            way = found["ratio_rises"]
            key = (way, sum(other[0] == way for other in here))
            if key in lines:
                here[key] = lines[key]
            else:
                here[key], made = made, made + 1
            ends = {name: found[name] for name in ("value", "low", "high")}
            rows.append({"load": row["load"], "line": here[key], **ends, "told": said(found)})
        lines = here
    return rows


def heat(document: Document) -> alt.TopLevelMixin | None:
    """The ratio over both axes, and through it the break-even contour."""
    if not document.get("map"):
        return None
    rows = boxes(document)
    over, across = document["over"], document["map"]["across"]
    x = {
        "title": over,
        "scale": scale(over, [row[name] for row in rows for name in ("left", "right")]),
        "axis": ticks([row["load"] for row in rows]),
    }
    y = {
        "title": across,
        "scale": scale(across, [row[name] for row in rows for name in ("bottom", "top")]),
        "axis": ticks([row["across"] for row in rows]),
    }
    layers = [*_boxes(rows, x, y), *_contour(document, x, y)]
    height = 60 * len({row["across"] for row in rows})
    return alt.layer(*layers).properties(width=charts.WIDTH, height=min(height, 480))


def _boxes(rows: list[Row], x: Look, y: Look) -> list[alt.Chart]:
    known = [row["value"] for row in rows if row["value"] is not None]
    most = max([1.02, *known, *(1.0 / value for value in known)])
    colour = alt.Color("value:Q", scale=charts.diverging(1.0 / most, 1.0, most, "log"), legend=None)
    base = alt.Chart(charts.data(rows)).encode(
        tooltip=["load:Q", "across:Q", alt.Tooltip("told:N", title="ratio")]
    )
    box = base.mark_rect(stroke="white").encode(
        x=alt.X("left:Q", **x),
        x2="right:Q",
        y=alt.Y("bottom:Q", **y),
        y2="top:Q",
        color=colour,
    )
    strong = f"datum.value !== null && abs(log(datum.value)) > {0.75 * log(most)}"
    # In the corner, where the contour seldom is.
    text = base.mark_text(align="left", baseline="top", dx=6, dy=6).encode(
        x=alt.X("left:Q", **x),
        y=alt.Y("top:Q", **y),
        text="text:N",
        color=alt.condition(strong, alt.value("white"), alt.value(charts.INK)),
    )
    return [box, text]


def _contour(document: Document, x: Look, y: Look) -> list[alt.Chart]:
    rows = contour(document)
    base = alt.Chart(charts.data(rows)).encode(x=alt.X("load:Q", **x))
    line = base.mark_line(color="black", strokeWidth=2).encode(
        y=alt.Y("value:Q", **y), detail="line:N"
    )
    rule = base.mark_rule(color="black", strokeWidth=2).encode(y=alt.Y("low:Q", **y), y2="high:Q")
    tip = ["load:Q", alt.Tooltip("told:N", title="break-even")]
    point = base.mark_point(filled=True, color="black", size=40, opacity=1).encode(
        y=alt.Y("value:Q", **y), tooltip=tip
    )
    return [line, rule, point] if rows else []


def break_evens(document: Document) -> str | None:
    """A line per load of the map."""
    if not document.get("map"):
        return None
    lines = [
        (f"{row['load']:.4g}", ", ".join(said(found) for found in row["break_even"]) or "none")
        for row in document["map"]["rows"]
    ]
    return table((document["over"], f"{document['map']['across']} at break-even"), lines)


SECTIONS = (
    Section(
        "Map",
        "Ratio at each pair of values; ≈ where its interval includes 1. Black: break-even, with "
        "95 % intervals.",
        heat,
    ),
    Section("Break-even", "95 % intervals in brackets.", break_evens),
)
