"""`pdvsim ablate`: parts that add up, or factors that multiply, to the whole."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import add, mul

import altair as alt

from pdvsim.documents.ablation import Ablation
from pdvsim.output import number
from pdvsim.statistics import Interval
from reports import charts
from reports.chart_rows import Record, ends
from reports.html import Cell, Section, interval, items, ratio, said, table

WHOLE = "the whole"
STEP_COLOURS = {
    "raises it": "#d55e00",
    "lowers it": "#0072b2",
    "without effect": "#aaaaaa",
    WHOLE: "#444444",
}


def steps(document: Ablation) -> list[Record]:
    """mechanism, start, end, low, high, kind, text: each part begins where the one before ended,
    from none (1 or 0); the whole begins there too. `low` and `high` are the interval of `end`."""
    factors = document.scale == "ratio"
    join, none = (mul, 1.0) if factors else (add, 0.0)
    starts = accumulate((part.part.value for part in document.parts), join, initial=none)
    rows = []
    for start, part in zip(starts, document.parts, strict=False):
        found = ends(part.part)
        kind = "raises it" if found["value"] > none else "lowers it"
        rows.append(
            {
                "mechanism": part.mechanism,
                "start": start,
                "end": join(start, found["value"]),
                "low": join(start, found["low"]),
                "high": join(start, found["high"]),
                "kind": kind if part.effect else "without effect",
                "text": amount(part.part, factors),
            }
        )
    whole = ends(document.whole)
    whole["end"] = whole.pop("value")
    text = amount(document.whole, factors)
    rows.append({"mechanism": WHOLE, "start": none, **whole, "kind": WHOLE, "text": text})
    return rows


def amount(found: Interval, factors: bool) -> str:
    """With its interval; factors are marked as such."""
    return f"x {said(found, show=ratio)}" if factors else said(found)


def waterfall(document: Ablation) -> alt.TopLevelMixin | None:
    """A bar per mechanism, and last the whole."""
    rows = steps(document)
    factors = document.scale == "ratio"
    names = [row["mechanism"] for row in rows]
    places = [row[name] for row in rows for name in ("start", "end", "low", "high")]
    x = alt.X("start:Q", title=_title(document), scale=_scale(places, factors))
    base = alt.Chart(charts.data(rows)).encode(
        y=alt.Y("mechanism:N", sort=names, title=None),
        tooltip=["mechanism:N", alt.Tooltip("text:N", title="part")],
    )
    colour = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=list(STEP_COLOURS), range=list(STEP_COLOURS.values())),
        legend=alt.Legend(orient="top", title=None),
    )
    none = alt.Chart(charts.data([{"start": 1.0 if factors else 0.0}]))
    line = none.mark_rule(color="#999999", strokeDash=[4, 4]).encode(x=x)
    bar = base.mark_bar(height={"band": 0.6}, opacity=0.55).encode(x=x, x2="end:Q", color=colour)
    # A part too small to be a bar is still a mark.
    mark = base.mark_tick(thickness=2.5, height={"band": 0.6}).encode(x="end:Q", color=colour)
    rule = base.mark_rule(strokeWidth=1.5, color=charts.INK).encode(x="low:Q", x2="high:Q")
    width = charts.WIDTH - 280
    text = base.mark_text(align="left", color=charts.INK, fontSize=12).encode(
        x=alt.value(width + 10), text="text:N"
    )
    return alt.layer(line, bar, mark, rule, text).properties(width=width, height=30 * len(names))


def _title(document: Ablation) -> str:
    if document.first is None:
        return f"{document.metric} of {document.second}, with against without"
    words = "over that of" if document.scale == "ratio" else "less that of"
    return f"{document.metric} of {document.second} {words} {document.first}"


def _scale(ends: Sequence[float], factors: bool) -> alt.Scale:
    low, high = min(ends), max(ends)
    if factors:
        room = (high / low) ** 0.04
        return alt.Scale(type="log", domain=[low / room, high * room], nice=False)
    room = 0.04 * (high - low)
    return alt.Scale(domain=[low - room, high + room], nice=False)


def parts(document: Ablation) -> str | None:
    """A line per mechanism, then what the parts make together, and the whole."""
    if not document.parts:
        return None
    factors = document.scale == "ratio"
    show = ratio if factors else number
    word = "Factor" if factors else "Amount"
    lines: list[Sequence[Cell]] = [
        (
            part.mechanism,
            interval(part.part, show=show),
            interval(part.share, 100.0) if document.decided else "n/a",
            interval(part.switched_off_alone, show=show),
        )
        for part in document.parts
    ]
    *parts, whole = steps(document)
    name = "product of the parts" if factors else "sum of the parts"
    lines.append((name, show(parts[-1]["end"]), "", ""))
    lines.append((whole["mechanism"], interval(document.whole, show=show), "", ""))
    head = ("", word, "Share of the whole, %", f"{word}, it alone switched off")
    return table(head, lines) + items(_remarks(document))


def _remarks(document: Ablation) -> list[str]:
    lines = [] if document.decided else ["Shares of a whole that may be none say nothing: n/a."]
    without = [part.mechanism for part in document.parts if not part.effect]
    return [*lines, *([f"Without effect worth a word: {', '.join(without)}."] if without else [])]


SECTIONS = (
    Section(
        "From nothing to the whole",
        "Each bar begins where the one above ends, so that together they make the whole: factors "
        "multiply, amounts add up. Lines are 95 % intervals of each part for one run.",
        waterfall,
    ),
    Section("Parts", "Below each value its 95 % interval for one run.", parts),
)
