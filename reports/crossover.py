"""`pdvsim crossover`: the ratio of two over an axis, and where it crosses 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import altair as alt

from pdvsim import cli
from reports import charts
from reports.chart_rows import Row, metric, number, stated
from reports.document import Document
from reports.html import Section, interval, items, ratio, said, table

# Axes that are not spaced by their logarithm; the document does not say.
LINEAR = ("acceptance", "draft-tokens")

Look: TypeAlias = dict[str, Any]  # title, scale and axis that layers share


def points(document: Document) -> list[Row]:
    """load, verdict, value, low, high, told: the ratio at each load that has one."""
    return [
        {
            "load": point["load"],
            "verdict": point["verdict"],
            **found,
            "told": said(stated(point, "ratio"), show=ratio),
        }
        for point in document["points"]
        if (found := metric(point, "ratio"))
    ]


def crossings(document: Document) -> list[Row]:
    """value, low, high, text: where the ratio crosses 1."""
    return [
        {**{name: found[name] for name in ("value", "low", "high")}, "text": said(found)}
        for found in document["crossings"]
    ]


def valleys(document: Document) -> list[Row]:
    """start, end, better: stretches of several loads at which one side is certainly worse."""
    sides = (document["first"], document["second"])
    return [
        {
            "start": valley["from"],
            "end": valley["to"],
            "better": sides[valley["worse"] == sides[0]],
        }
        for valley in document["valleys"]
        if valley["from"] < valley["to"]
    ]


def silent(document: Document) -> list[float]:
    """Loads at which the runs could not say."""
    return [point["load"] for point in document["points"] if not metric(point, "ratio")]


def scale(axis: str, values: Sequence[float]) -> alt.Scale:
    """Of an axis that a command varied."""
    return alt.Scale(
        type="linear" if axis in LINEAR else "log",
        domain=[min(values), max(values)],
        nice=False,
    )


def ticks(values: Sequence[float]) -> alt.Axis:
    """At the values that were looked at."""
    return alt.Axis(values=sorted(set(values)), format=".4~g", labelOverlap=True)


def over_load(document: Document) -> alt.TopLevelMixin | None:
    """The ratio with its intervals, the line at 1, crossings as bands, valleys shaded."""
    rows = points(document)
    if not rows:
        return None
    over = document["over"]
    marks = [point["load"] for point in document["points"]]
    spread = [*marks, *(row[name] for row in crossings(document) for name in ("low", "high"))]
    x = {"title": over, "scale": scale(over, _padded(spread, over)), "axis": ticks(marks)}
    ends = [1.0, *(row[name] for row in rows for name in ("low", "high"))]
    room = (max(ends) / min(ends)) ** 0.12
    y: Look = {
        "title": f"{document['second']} / {document['first']}, {document['metric']}",
        "scale": alt.Scale(type="log", domain=[min(ends) / room, max(ends) * room], nice=False),
    }
    one = alt.Chart(charts.data([{"one": 1.0}])).mark_rule(color="#666666")
    layers = [
        *_valleys(document, x),
        *_crossings(document, x),
        one.encode(y=alt.Y("one:Q", **y)),
        *_ratio(rows, x, y, document),
    ]
    return alt.layer(*layers).properties(width=charts.WIDTH, height=320)


def _padded(values: Sequence[float], axis: str) -> tuple[float, float]:
    """A little beyond the first and last value."""
    low, high = min(values), max(values)
    if axis in LINEAR:
        pad = 0.04 * (high - low)
        return low - pad, high + pad
    room = (high / low) ** 0.04
    return low / room, high * room


def _ratio(rows: list[Row], x: Look, y: Look, document: Document) -> list[alt.Chart]:
    base = alt.Chart(charts.data(rows)).encode(x=alt.X("load:Q", **x))
    line = base.mark_line(color="#999999", strokeWidth=1.5).encode(y=alt.Y("value:Q", **y))
    rule = base.mark_rule(strokeWidth=2.5, color=charts.INK, opacity=0.6).encode(
        y=alt.Y("low:Q", **y), y2="high:Q"
    )
    names = [document["first"], document["second"], "alike", "open"]
    colours = charts.colours(names[:2])
    fill = alt.Fill(
        "verdict:N",
        title="better",
        scale=alt.Scale(domain=names, range=[*colours, "#444444", "#ffffff"]),
        legend=alt.Legend(
            orient="top",
            values=[name for name in names if any(row["verdict"] == name for row in rows)],
            symbolType="circle",
            symbolStrokeColor=charts.INK,
            titleOrient="left",
        ),
    )
    point = base.mark_point(size=110, opacity=1, strokeWidth=1.5, stroke=charts.INK).encode(
        y=alt.Y("value:Q", **y),
        fill=fill,
        tooltip=["load:Q", "verdict:N", alt.Tooltip("told:N", title="ratio")],
    )
    return [line, rule, point]


def _valleys(document: Document, x: Look) -> list[alt.Chart]:
    rows = valleys(document)
    sides = [document["first"], document["second"]]
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


def _crossings(document: Document, x: Look) -> list[alt.Chart]:
    rows = crossings(document)
    base = alt.Chart(charts.data(rows)).encode(tooltip=[alt.Tooltip("text:N", title="crossing")])
    band = base.mark_rect(color="#e6c700", opacity=0.22).encode(x=alt.X("low:Q", **x), x2="high:Q")
    at = alt.X("value:Q", **x)
    line = base.mark_rule(color="#8a6d00", strokeDash=[5, 4], strokeWidth=1.5).encode(x=at)
    text = base.mark_text(align="left", baseline="top", dx=5, dy=4, color="#6b5500").encode(
        x=at, y=alt.value(0), text="text:N"
    )
    return [band, line, text] if rows else []


def told(document: Document) -> str | None:
    """Crossings, valleys, and what stays open: the command's own sentences."""
    lines: list[str] = cli.load("crossover").sentences(dict(document))
    over = document["over"]
    lines.extend(f"At {over} {load:.4g} the runs could not say." for load in silent(document))
    if document["alike"]:
        loads = ", ".join(f"{load:.4g}" for load in document["alike"])
        lines.append(f"Certainly alike at {over} {loads}.")
    return items(lines)


def surveyed(document: Document) -> str | None:
    """A line per load."""
    first, second = document["first"], document["second"]
    head = (document["over"], first, second, f"{second} / {first}", "Better", "Pairs of runs")
    lines = [
        (
            f"{point['load']:.4g}",
            number(point["first"]),
            number(point["second"]),
            interval(point["ratio"], show=ratio),
            point["verdict"],
            str(point["replications"]),
        )
        for point in document["points"]
    ]
    return table(head, lines) if lines else None


SECTIONS = (
    Section(
        "Ratio",
        "Lines: 95 % intervals. Filled points: the colour of the side that is certainly better; "
        "white: open, the interval includes 1. Shaded: where one side is better at neighbouring "
        "loads. Yellow: a crossing's interval.",
        over_load,
    ),
    Section("What it says", "", told),
    Section("Survey", "Below each ratio its interval: 95 %, of all together.", surveyed),
)
