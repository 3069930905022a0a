"""`pdvsim explain`: latency by cause, differences, and predicted less measured."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from pdvsim.documents.explanation import Cause, ExplainedRow, Explanation
from pdvsim.output import number
from pdvsim.quantities import CAUSES, MEMOS
from reports import charts
from reports.chart_rows import Record
from reports.chart_rows import ends as drawn
from reports.html import Cell, Section, ends, folded, heading, interval, items, said, table

SEEN = 5e-4  # causes with a smaller share of the latency in every cell are only named
REACH = 1.5  # of the longest bar of a load: no interval is drawn beyond
WORLDS = ("simulated", "real")
COLOURS = {
    "queueing": "#56b4e9",
    "admission hold": "#f0e442",
    "KV cache full": "#882255",
    "lock wait": "#cc79a7",
    "GIL wait": "#d55e00",
    "launch": "#e69f00",
    "device": "#0072b2",
    "device slow-down": "#003f63",
    "wake-up and polling": "#999999",
    "batch mates": "#009e73",
}


def seen(document: Explanation) -> list[str]:
    """The causes that have a share worth showing in any cell."""
    return [
        name
        for name in CAUSES
        if any(row.causes[name].share.value >= SEEN for row in document.cells)
    ]


def causes(document: Explanation) -> list[Record]:
    """architecture, world, concurrency, cause, order, seconds, told and share (with intervals):
    a row per seen cause."""
    return [
        {
            **_place(row),
            "cause": cause,
            "order": order,
            "seconds": row.causes[cause].seconds.value,
            "told": said(row.causes[cause].seconds),
            "share": said(row.causes[cause].share, 100.0),
        }
        for row in document.cells
        for order, cause in enumerate(seen(document))
    ]


def wholes(document: Explanation) -> list[Record]:
    """architecture, world, concurrency, value, low, high, end, text, told: mean E2E latency,
    seconds. `end` is `high`, but not so far out that the bars could not be read; the text then
    says where the interval ends."""
    rows = [{**_place(row), **drawn(row.e2e_s), "told": said(row.e2e_s)} for row in document.cells]
    for row in rows:
        beside = [other["value"] for other in rows if other["concurrency"] == row["concurrency"]]
        row["end"] = min(row["high"], REACH * max(beside))
        cut = f", up to {number(row['high'])}" if row["end"] < row["high"] else ""
        row["text"] = f"{number(row['value'])} s{cut}"
    return rows


def _place(row: ExplainedRow) -> Record:
    return {"architecture": row.label, "world": row.world, "concurrency": row.concurrency}


def gaps(document: Explanation) -> list[Record]:
    """cell, cause, points, text: predicted less measured share of the latency."""
    shown = seen(document)
    return [
        {
            "cell": f"{gap.label} · C = {gap.concurrency}",
            "cause": cause,
            "points": gap.points[cause],
            "text": f"{gap.points[cause]:+.1f}" if abs(gap.points[cause]) >= 0.05 else "0",
        }
        for gap in sorted(document.predicted_less_measured, key=lambda gap: gap.concurrency)
        for cause in shown
    ]


def stacks(document: Explanation) -> alt.TopLevelMixin | None:
    """A row of panels per load, a column per world, a bar per architecture."""
    rows, totals = causes(document), wholes(document)
    if not rows:
        return None
    loads = sorted({row["concurrency"] for row in totals})
    worlds = [world for world in WORLDS if any(row["world"] == world for row in totals)]
    shown = seen(document)
    colour = alt.Color(
        "cause:N",
        scale=alt.Scale(domain=shown, range=[COLOURS.get(name, "#000000") for name in shown]),
        legend=alt.Legend(orient="top", title=None, columns=5),
    )
    lines = []
    for load in loads:
        here = [row for row in totals if row["concurrency"] == load]
        names = list(dict.fromkeys(row["architecture"] for row in here))
        width = (charts.WIDTH - 20) // len(worlds)
        most = (1 + 110 / width) * max(row["end"] for row in here)
        panels = [
            _stack(
                [row for row in rows if (row["concurrency"], row["world"]) == (load, world)],
                [row for row in here if row["world"] == world],
                alt.Y(
                    "architecture:N",
                    title=None,
                    scale=alt.Scale(domain=names),
                    axis=alt.Axis(labels=world == worlds[0], ticks=False),
                ),
                alt.Scale(domain=[0, most], nice=False),
                colour,
            ).properties(
                title=alt.TitleParams(f"C = {load}, {world}", anchor="start"),
                width=width,
                height=26 * len(names),
            )
            for world in worlds
        ]
        lines.append(alt.hconcat(*panels, spacing=20))
    return alt.vconcat(*lines, spacing=14)


def _stack(
    parts: list[Record], totals: list[Record], y: alt.Y, scale: alt.Scale, colour: alt.Color
) -> charts.Layers:
    bar = (
        alt.Chart(charts.data(parts))
        .mark_bar(height={"band": 0.7})
        .encode(
            x=alt.X("seconds:Q", title="seconds of a request", scale=scale, stack="zero"),
            y=y,
            color=colour,
            order="order:Q",
            tooltip=[
                "architecture:N",
                "cause:N",
                alt.Tooltip("told:N", title="seconds"),
                alt.Tooltip("share:N", title="% of latency"),
            ],
        )
    )
    base = alt.Chart(charts.data(totals)).encode(
        y=y, tooltip=["architecture:N", alt.Tooltip("told:N", title="E2E latency, s")]
    )
    rule = base.mark_rule(strokeWidth=1.5, color=charts.INK).encode(
        x=alt.X("low:Q", scale=scale), x2="end:Q"
    )
    text = base.mark_text(align="left", dx=6, color=charts.INK, fontSize=12).encode(
        x=alt.X("end:Q", scale=scale), text="text:N"
    )
    return alt.layer(bar, rule, text)


def gap_map(document: Explanation) -> alt.TopLevelMixin | None:
    """Points of share, a line per cell and a column per cause."""
    rows = gaps(document)
    if not rows:
        return None
    most = max(5.0, *(abs(row["points"]) for row in rows))
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    base = alt.Chart(charts.data(rows)).encode(
        x=alt.X(
            "cause:N",
            sort=seen(document),
            title=None,
            axis=alt.Axis(orient="top", labelAngle=0, labelPadding=6, domain=False, ticks=False),
        ),
        y=alt.Y(
            "cell:N",
            sort=cells,
            title=None,
            axis=alt.Axis(labelPadding=6, domain=False, ticks=False),
        ),
    )
    box = base.mark_rect(stroke="white").encode(
        color=alt.Color("points:Q", scale=charts.diverging(-most, 0.0, most), legend=None),
        tooltip=["cell:N", "cause:N", "points:Q"],
    )
    strong = alt.condition(
        f"abs(datum.points) > {0.6 * most}", alt.value("white"), alt.value(charts.INK)
    )
    text = base.mark_text(fontSize=12).encode(text="text:N", color=strong)
    return alt.layer(box, text).properties(width=charts.WIDTH - 60, height=22 * len(cells))


def largest_gaps(document: Explanation) -> str | None:
    """A line per cause, where the document has any."""
    lines = [
        f"{gap.cause}: {gap.largest_points:+.3g} points, for {gap.label} at C = "
        f"{gap.concurrency}; within 5 points in {gap.within_5_points} of the {gap.cells} cells "
        f"where it has more than 5 % of the latency"
        for gap in document.largest_gaps
    ]
    return items(lines) if lines else None


def sentences(document: Explanation) -> str | None:
    """What the differences are made of: first those from the first architecture."""
    found = sorted(document.differences, key=lambda one: one.concurrency)
    if not found:
        return None
    first = document.cells[0].label
    near = [difference.sentence for difference in found if difference.first == first]
    far = [difference.sentence for difference in found if difference.first != first]
    return items(near) + (folded(f"{len(far)} between the others", items(far)) if far else "")


def seconds(document: Explanation) -> str | None:
    """A table per load: causes below each other, cells beside each other."""
    shown = seen(document)
    tables = []
    for load in sorted({row.concurrency for row in document.cells}):
        group = [row for row in document.cells if row.concurrency == load]
        tables.append(heading(f"C = {load}") + _seconds(group, shown))
    small = [name for name in CAUSES if name not in shown]
    if tables and small:
        tables.append(
            items([f"Below {100 * SEEN:g} % of the latency everywhere: {', '.join(small)}."])
        )
    return "".join(tables) or None


def _seconds(group: Sequence[ExplainedRow], shown: Sequence[str]) -> str:
    head = ("", *(f"{row.label}, {row.world}" for row in group))
    lines: list[Sequence[Cell]] = [
        (cause, *(_part(row.causes[cause]) for row in group)) for cause in shown
    ]
    lines.append(("sum: E2E latency", *(interval(row.e2e_s) for row in group)))
    lines.extend(
        (f"of it, {memo}", *(interval(row.memos[memo]) for row in group)) for memo in MEMOS
    )
    return table(head, lines)


def _part(part: Cause) -> Cell:
    found, share = part.seconds, part.share
    return (
        f"{number(found.value)} ({100 * share.value:.1f} %)",
        ends(found) if found.low is None else f"{ends(found)} ({ends(share, 100.0)} %)",
    )


SECTIONS = (
    Section(
        "Latency by cause",
        "Mean E2E latency of a completed request; the parts of a bar add up to it. The line at "
        "the end of a bar is the 95 % interval of the whole for one run; one that is too long is "
        "cut, and the text says where it ends.",
        stacks,
    ),
    Section(
        "What the differences are made of",
        "In brackets: share of the difference, and 95 % interval.",
        sentences,
    ),
    Section(
        "Predicted less measured",
        "Points of share of the latency: 0 where a cause takes the same part in both.",
        gap_map,
    ),
    Section("Largest gaps", "Causes above 5 % of the latency.", largest_gaps),
    Section(
        "Seconds by cause",
        "Seconds of a request and, in brackets, share of its latency; below, 95 % intervals for "
        "one run.",
        seconds,
    ),
)
