"""`pdvsim crossover`: the ratio of two over an axis, and where it crosses 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import altair as alt

from pdvsim.documents.crossover import Axis, Crossover
from reports import charts
from reports.chart_rows import Record, ends
from reports.html import Section, items, ratio, said
from reports.tables import html

Look: TypeAlias = dict[str, Any]  # title, scale and axis that layers share


def points(document: Crossover) -> list[Record]:
    """at, answer (a side's label, alike, open or unknown), value, low, high, told: the ratio at
    each point that has one."""
    return [
        {
            "at": point.at,
            "answer": document.name(point.answer),
            **ends(point.ratio),
            "told": said(point.ratio, show=ratio),
        }
        for point in document.points
        if point.ratio is not None
    ]


def crossings(document: Crossover) -> list[Record]:
    """value, low, high, text: where the ratio crosses 1."""
    return [{**ends(found.at), "text": said(found.at)} for found in document.crossings]


def valleys(document: Crossover) -> list[Record]:
    """start, end, better: stretches of several points at which one side is certainly worse."""
    return [
        {
            "start": valley.start,
            "end": valley.end,
            "better": document.name("second" if valley.worse == "first" else "first"),
        }
        for valley in document.valleys
        if valley.start < valley.end
    ]


def scale(axis: Axis, values: Sequence[float]) -> alt.Scale:
    """Of an axis that a command varied."""
    return alt.Scale(
        type="log" if axis.logarithmic else "linear",
        domain=[min(values), max(values)],
        nice=False,
    )


def ticks(values: Sequence[float]) -> alt.Axis:
    """At the values that were looked at."""
    return alt.Axis(values=sorted(set(values)), format=".4~g", labelOverlap=True)


def over_load(document: Crossover) -> alt.TopLevelMixin | None:
    """The ratio with its intervals, the line at 1, crossings as bands, valleys shaded."""
    rows = points(document)
    if not rows:
        return None
    axis = document.axis
    marks = [point.at for point in document.points]
    spread = [*marks, *(row[name] for row in crossings(document) for name in ("low", "high"))]
    x = {"title": axis.name, "scale": scale(axis, _padded(spread, axis)), "axis": ticks(marks)}
    places = [1.0, *(row[name] for row in rows for name in ("low", "high"))]
    room = (max(places) / min(places)) ** 0.12
    y: Look = {
        "title": f"{document.second.label} / {document.first.label}, {document.metric}",
        "scale": alt.Scale(type="log", domain=[min(places) / room, max(places) * room], nice=False),
    }
    one = alt.Chart(charts.data([{"one": 1.0}])).mark_rule(color="#666666")
    layers = [
        *_valleys(document, x),
        *_crossings(document, x),
        one.encode(y=alt.Y("one:Q", **y)),
        *_ratio(rows, x, y, document),
    ]
    return alt.layer(*layers).properties(width=charts.WIDTH, height=320)


def _padded(values: Sequence[float], axis: Axis) -> tuple[float, float]:
    """A little beyond the first and last value."""
    low, high = min(values), max(values)
    if not axis.logarithmic:
        pad = 0.04 * (high - low)
        return low - pad, high + pad
    room = (high / low) ** 0.04
    return low / room, high * room


def _ratio(rows: list[Record], x: Look, y: Look, document: Crossover) -> list[alt.Chart]:
    base = alt.Chart(charts.data(rows)).encode(x=alt.X("at:Q", **x))
    line = base.mark_line(color="#999999", strokeWidth=1.5).encode(y=alt.Y("value:Q", **y))
    rule = base.mark_rule(strokeWidth=2.5, color=charts.INK, opacity=0.6).encode(
        y=alt.Y("low:Q", **y), y2="high:Q"
    )
    names = [document.first.label, document.second.label, "alike", "open", "unknown"]
    colours = charts.colours(names[:2])
    fill = alt.Fill(
        "answer:N",
        title="better",
        scale=alt.Scale(domain=names, range=[*colours, "#444444", "#ffffff", "#ffffff"]),
        legend=alt.Legend(
            orient="top",
            values=[name for name in names if any(row["answer"] == name for row in rows)],
            symbolType="circle",
            symbolStrokeColor=charts.INK,
            titleOrient="left",
        ),
    )
    point = base.mark_point(size=110, opacity=1, strokeWidth=1.5, stroke=charts.INK).encode(
        y=alt.Y("value:Q", **y),
        fill=fill,
        tooltip=["at:Q", "answer:N", alt.Tooltip("told:N", title="ratio")],
    )
    return [line, rule, point]


def _valleys(document: Crossover, x: Look) -> list[alt.Chart]:
    rows = valleys(document)
    sides = [document.first.label, document.second.label]
    shade = (
        alt.Chart(charts.data(rows))
        .mark_rect(opacity=0.09)
        .encode(
            x=alt.X("start:Q", **x),
            x2="end:Q",
            color=alt.Color(
                "better:N",
                scale=alt.Scale(domain=sides, range=charts.colours(sides)),
                legend=None,
            ),
        )
    )
    return [shade] if rows else []


def _crossings(document: Crossover, x: Look) -> list[alt.Chart]:
    rows = crossings(document)
    base = alt.Chart(charts.data(rows)).encode(tooltip=[alt.Tooltip("text:N", title="crossing")])
    band = base.mark_rect(color="#e6c700", opacity=0.22).encode(x=alt.X("low:Q", **x), x2="high:Q")
    at = alt.X("value:Q", **x)
    line = base.mark_rule(color="#8a6d00", strokeDash=[5, 4], strokeWidth=1.5).encode(x=at)
    text = base.mark_text(align="left", baseline="top", dx=5, dy=4, color="#6b5500").encode(
        x=at, y=alt.value(0), text="text:N"
    )
    return [band, line, text] if rows else []


def told(document: Crossover) -> str | None:
    """Crossings, valleys, and what stays open."""
    return items(document.sentences)


def surveyed(document: Crossover) -> str | None:
    """A line per point."""
    return html(document.survey())


SECTIONS = (
    Section(
        "Ratio",
        "Lines: 95 % of machines. Filled points: the colour of the side that is better on nearly "
        "all of them; white: open, machines differ, or unknown, there is no interval. Shaded: "
        "where one side is better at neighbouring points. Yellow: a crossing's interval.",
        over_load,
    ),
    Section("What it says", "", told),
    Section(
        "Survey", "Below each ratio where that of 95 % of machines lies, in one run.", surveyed
    ),
)
