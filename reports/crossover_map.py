"""`pdvsim crossover --map`: the ratio of two over two axes, and the break-even contour."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import exp, log

import altair as alt

from pdvsim.documents.crossover import Axis, Crossover, Map
from pdvsim.output import number
from pdvsim.statistics import Interval
from reports import charts
from reports.chart_rows import Record, ends
from reports.crossover import Look, scale, ticks
from reports.html import Section, ratio, said, table


def boxes(drawn: Map, over: Axis) -> list[Record]:
    """left, right, bottom, top, at, across, value, text, told: the map's cells; `value` is None
    where the runs could not say."""
    widths = edges([row.at for row in drawn.rows], over)
    rows = []
    for (left, right), row in zip(widths, drawn.rows, strict=True):
        heights = edges([point.at for point in row.points], drawn.axis)
        for (bottom, top), point in zip(heights, row.points, strict=True):
            rows.append(
                {
                    **{"left": left, "right": right, "bottom": bottom, "top": top},
                    **{"at": row.at, "across": point.at},
                    "value": point.ratio and point.ratio.value,
                    "text": _text(point.ratio),
                    "told": said(point.ratio, show=ratio),
                }
            )
    return rows


def _text(found: Interval | None) -> str:
    if found is None:
        return "n/a"
    low, high = found.low, found.high
    sure = low is not None and high is not None and not low <= 1.0 <= high
    return ("" if sure else "≈ ") + number(found.value)


def edges(values: Sequence[float], axis: Axis) -> list[tuple[float, float]]:
    """Where each value's cell begins and ends: half way to its neighbours."""
    forth, back = (log, exp) if axis.logarithmic else (float, float)
    places = [forth(value) for value in values]
    inner = [(a + b) / 2 for a, b in pairwise(places)] or [places[0] + 0.5]
    sides = [2 * places[0] - inner[0], *inner]
    if len(places) > 1:
        sides.append(2 * places[-1] - inner[-1])
    return [(back(a), back(b)) for a, b in pairwise(sides)]


def contour(drawn: Map) -> list[Record]:
    """at, line, value, low, high: break-evens; those of neighbouring rows that go the same way
    are one line."""
    rows: list[Record] = []
    lines: dict[tuple[bool, int], int] = {}
    made = 0
    for row in drawn.rows:
        here: dict[tuple[bool, int], int] = {}
        for found in row.break_even:
            way = found.ratio_rises
            key = (way, sum(other[0] == way for other in here))
            if key in lines:
                here[key] = lines[key]
            else:
                here[key], made = made, made + 1
            line = {"at": row.at, "line": here[key], **ends(found.at), "told": said(found.at)}
            rows.append(line)
        lines = here
    return rows


def heat(document: Crossover) -> alt.TopLevelMixin | None:
    """The ratio over both axes, and through it the break-even contour."""
    if document.map is None:
        return None
    rows = boxes(document.map, document.axis)
    over, across = document.axis, document.map.axis
    x = {
        "title": over.name,
        "scale": scale(over, [row[name] for row in rows for name in ("left", "right")]),
        "axis": ticks([row["at"] for row in rows]),
    }
    y = {
        "title": across.name,
        "scale": scale(across, [row[name] for row in rows for name in ("bottom", "top")]),
        "axis": ticks([row["across"] for row in rows]),
    }
    layers = [*_boxes(rows, x, y, _colours(document)), *_contour(document.map, x, y)]
    height = 60 * len({row["across"] for row in rows})
    return alt.layer(*layers).properties(width=charts.WIDTH, height=min(height, 480))


def _colours(document: Crossover) -> tuple[str, str]:
    """Of the side that is better where the ratio is below 1, and above."""
    first, second = charts.colours([document.first.label, document.second.label])
    return (first, second) if document.better == "higher" else (second, first)


def _boxes(rows: list[Record], x: Look, y: Look, colours: tuple[str, str]) -> list[alt.Chart]:
    known = [row["value"] for row in rows if row["value"] is not None]
    most = max([1.02, *known, *(1.0 / value for value in known)])
    blend = charts.diverging(1.0 / most, 1.0, most, "log", colours)
    colour = alt.Color("value:Q", scale=blend, legend=None)
    base = alt.Chart(charts.data(rows)).encode(
        tooltip=["at:Q", "across:Q", alt.Tooltip("told:N", title="ratio")]
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


def _contour(drawn: Map, x: Look, y: Look) -> list[alt.Chart]:
    rows = contour(drawn)
    base = alt.Chart(charts.data(rows)).encode(x=alt.X("at:Q", **x))
    line = base.mark_line(color="black", strokeWidth=2).encode(
        y=alt.Y("value:Q", **y), detail="line:N"
    )
    rule = base.mark_rule(color="black", strokeWidth=2).encode(y=alt.Y("low:Q", **y), y2="high:Q")
    tip = ["at:Q", alt.Tooltip("told:N", title="break-even")]
    point = base.mark_point(filled=True, color="black", size=40, opacity=1).encode(
        y=alt.Y("value:Q", **y), tooltip=tip
    )
    return [line, rule, point] if rows else []


def break_evens(document: Crossover) -> str | None:
    """A line per row of the map."""
    if document.map is None:
        return None
    lines = [
        (f"{row.at:.4g}", ", ".join(said(found.at) for found in row.break_even) or "none")
        for row in document.map.rows
    ]
    return table((document.axis.name, f"{document.map.axis.name} at break-even"), lines)


SECTIONS = (
    Section(
        "Map",
        "Ratio at each pair of values, in the colour of the side that is better; ≈ where its "
        "interval includes 1. Black: break-even, with 95 % intervals.",
        heat,
    ),
    Section("Break-even", "95 % intervals in brackets.", break_evens),
)
