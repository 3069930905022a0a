"""Altair charts over the rows of `reports.chart_rows`. Each function returns None without rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import altair as alt

from pdvsim.architectures import ARCHITECTURES, by_name
from pdvsim.documents.cells import CellsDocument
from pdvsim.documents.tables import Reproduction
from pdvsim.pdverify.tables import ARCHITECTURE_OF
from reports import chart_rows
from reports.chart_rows import Record

# Of Okabe and Ito's palette, as the architectures' own: told apart with every common colour vision.
SPARE_COLOURS = ("#cc79a7", "#000000", "#a6761d", "#f0e442")
BLUE, RED = "#0072b2", "#d55e00"
STAGE_COLOURS = {
    "prefill draft": "#f5c97a",
    "draft": "#e69f00",
    "commit draft": "#a66f00",
    "prefill verifier": "#9ad0f0",
    "verify": "#0072b2",
    "commit verifier": "#003f63",
    "decode": "#009e73",
    "mixed": "#cc79a7",
}
CAUSE_COLOURS = {
    "device": "#0072b2",
    "launch": "#e69f00",
    "gil": "#d55e00",
    "lock": "#cc79a7",
    "wake": "#999999",
}
Layers: TypeAlias = alt.LayerChart | alt.FacetChart

WIDTH = 740
INK, GRID = "#333333", "#e8e8e8"


def palette(rows: Iterable[Record], name: str = "architecture") -> alt.Scale:
    """One colour per architecture, the same in every chart."""
    domain = list(dict.fromkeys(row[name] for row in rows))
    return alt.Scale(domain=domain, range=colours(domain))


def colours(names: Sequence[str]) -> list[str]:
    """Of architectures, also under their published names and with what sets them apart behind
    their name; where several are alike, of one after the other."""
    spare = iter(SPARE_COLOURS * len(names))
    found = [_own_colour(item) or next(spare) for item in names]
    if len(set(found)) < len(found):
        own = [one.colour for one in ARCHITECTURES.values() if one.colour]
        found = [*own, *SPARE_COLOURS * len(names)][: len(names)]
    return found


def _own_colour(text: str) -> str | None:
    name = re.split(" · |@", text)[0]
    found = by_name(ARCHITECTURE_OF.get(name, name))
    return None if found is None else found.colour


def diverging(
    low: float,
    middle: float,
    high: float,
    kind: Literal["linear", "log"] = "linear",
    colours: tuple[str, str] = (BLUE, RED),
) -> alt.Scale:
    """The first colour below `middle`, white at it, the second above."""
    ends = [colours[0], "#ffffff", colours[1]]
    return alt.Scale(type=kind, domain=[low, middle, high], range=ends, interpolate="lab")


def architecture_colour(
    rows: list[Record], name: str = "architecture", legend: bool = True
) -> alt.Color:
    """Colour by architecture. All layers of a chart must agree on `legend`, or there is none."""
    key = alt.Legend(orient="top", title=None, symbolType="circle") if legend else None
    return alt.Color(f"{name}:N", scale=palette(rows, name), legend=key)


def data(rows: list[Record]) -> alt.InlineData:
    """Rows as a chart takes them."""
    return alt.InlineData(values=rows)


def _several_loads(rows: Iterable[Record]) -> bool:
    return len({row["concurrency"] for row in rows}) > 1


def throughput(document: CellsDocument) -> alt.TopLevelMixin | None:
    """One load: a bar per architecture with its interval. Several: a line with its band."""
    rows = chart_rows.throughput(document)
    if not rows:
        return None
    if _several_loads(rows):
        return _over_load(rows, "value", "output tokens/s").properties(width=WIDTH, height=300)
    names = [row["architecture"] for row in rows]
    y = alt.Y("architecture:N", sort=names, title=None)
    base = alt.Chart(data(rows)).encode(y=y, color=architecture_colour(rows, legend=False))
    most = 1.3 * max(row["high"] for row in rows)
    x = alt.X("value:Q", title="output tokens/s", scale=alt.Scale(domain=[0, most], nice=False))
    bar = base.mark_bar(opacity=0.35, height={"band": 0.62}).encode(x=x)
    interval = base.mark_rule(strokeWidth=2.5).encode(
        x=alt.X("low:Q", title="output tokens/s"), x2="high:Q"
    )
    point = base.mark_point(filled=True, size=55, opacity=1).encode(x="value:Q", tooltip="text:N")
    text = base.mark_text(align="left", dx=9, color=INK, fontSize=12).encode(
        x="high:Q", text="text:N", color=alt.value(INK)
    )
    return alt.layer(bar, interval, point, text).properties(width=WIDTH, height=46 * len(rows))


def _over_load(rows: list[Record], value: str, title: str) -> Layers:
    """Lines over concurrency, with their bands."""
    loads = sorted({row["concurrency"] for row in rows})
    axis = alt.Axis(values=loads, format="d")
    scale = alt.Scale(type="log", base=2, nice=False)
    x = alt.X("concurrency:Q", title="concurrency", scale=scale, axis=axis)
    base = alt.Chart(data(rows)).encode(x=x)
    colour = architecture_colour(rows)
    band = base.mark_area(opacity=0.18).encode(
        y=alt.Y("low:Q", title=title), y2="high:Q", color=colour
    )
    line = base.mark_line(strokeWidth=2, point=True).encode(
        y=alt.Y(f"{value}:Q", title=title), color=colour
    )
    return alt.layer(band, line)


def latency(document: CellsDocument) -> alt.TopLevelMixin | None:
    """TTFT, TPOT and E2E latency side by side: median (filled) and p99 (hollow), intervals."""
    rows = chart_rows.latency(document)
    if not rows:
        return None
    panels: list[Layers] = []
    for title in dict.fromkeys(row["latency"] for row in rows):
        part = [row for row in rows if row["latency"] == title]
        if _several_loads(part):
            middle = [row for row in part if row["statistic"] == "median"]
            panels.append(_over_load(middle, "value", f"median {title}"))
        else:
            panels.append(_dots(part, title, first=not panels))
        panels[-1] = panels[-1].properties(width=WIDTH // 3 - 20, height=46 * 5)
    return alt.hconcat(*panels, spacing=24)


def _dots(rows: list[Record], title: str, first: bool) -> Layers:
    names = list(dict.fromkeys(row["architecture"] for row in rows))
    axis = alt.Axis(labels=first, ticks=False, domain=first)
    base = alt.Chart(data(rows)).encode(
        y=alt.Y("architecture:N", sort=names, title=None, axis=axis),
        yOffset=alt.YOffset("statistic:N", sort=["median", "p99"]),
        color=architecture_colour(rows, legend=False),
    )
    scale = alt.Scale(zero=True, nice=True)
    interval = base.mark_rule(strokeWidth=2.5, opacity=0.6).encode(
        x=alt.X("low:Q", title=title, scale=scale), x2="high:Q"
    )
    fill = alt.FillOpacity(
        "statistic:N",
        scale=alt.Scale(domain=["median", "p99"], range=[1, 0]),
        legend=None,
    )
    point = base.mark_point(size=60, strokeWidth=2, opacity=1).encode(
        x=alt.X("value:Q", title=title, scale=scale),
        fill=alt.Fill("architecture:N", scale=palette(rows), legend=None),
        fillOpacity=fill,
        tooltip=["architecture:N", "statistic:N", "value:Q", "low:Q", "high:Q"],
    )
    return alt.layer(interval, point)


def pareto(document: CellsDocument) -> alt.TopLevelMixin | None:
    """Throughput against median E2E latency; a line joins what nothing beats in both."""
    rows = chart_rows.pareto(document)
    if not rows:
        return None
    base = alt.Chart(data(rows)).encode(color=architecture_colour(rows))
    x = alt.X("latency_s:Q", title="median E2E latency, s", scale=alt.Scale(zero=False, padding=30))
    y = alt.Y("tokens_per_s:Q", title="output tokens/s", scale=alt.Scale(zero=False, padding=24))
    frontier = alt.Chart(data([row for row in rows if row["frontier"]]))
    line = frontier.mark_line(
        color="#bbbbbb", strokeDash=[4, 4], interpolate="step-after", strokeWidth=1.5
    ).encode(x=x, y=y)
    wide = base.mark_rule(strokeWidth=2, opacity=0.45).encode(
        x=alt.X("latency_low:Q", title="median E2E latency, s"), x2="latency_high:Q", y=y
    )
    tall = base.mark_rule(strokeWidth=2, opacity=0.45).encode(
        x=x, y=alt.Y("tokens_low:Q", title="output tokens/s"), y2="tokens_high:Q"
    )
    tip = ["architecture:N", "concurrency:Q", "latency_s:Q", "tokens_per_s:Q"]
    point = base.mark_point(filled=True, size=90, opacity=1).encode(x=x, y=y, tooltip=tip)
    layers = [line, wide, tall, point]
    if _several_loads(rows):
        load = base.mark_text(align="left", dx=9, dy=-9, fontSize=11)
        layers.append(load.encode(x=x, y=y, text="concurrency:Q"))
    return alt.layer(*layers).properties(width=WIDTH, height=320)


def stage_time(document: CellsDocument) -> alt.TopLevelMixin | None:
    """Mean milliseconds of one execution of each stage, split by cause; a panel a piece."""
    rows = chart_rows.stage_time(document)
    if not rows:
        return None
    stages = [stage for stage in STAGE_COLOURS if any(row["stage"] == stage for row in rows)]
    scale = alt.Scale(domain=list(CAUSE_COLOURS), range=list(CAUSE_COLOURS.values()))
    names = list(dict.fromkeys(row["architecture"] for row in rows))
    panels: list[alt.Chart] = []
    for name in names:
        part = [row for row in rows if row["architecture"] == name]
        axis = alt.Axis(labels=not panels, ticks=False)
        panels.append(
            alt.Chart(data(part), title=name)
            .mark_bar(height={"band": 0.7})
            .encode(
                x=alt.X("milliseconds:Q", title="ms per execution"),
                y=alt.Y("stage:N", scale=alt.Scale(domain=stages), title=None, axis=axis),
                color=alt.Color(
                    "cause:N", scale=scale, legend=alt.Legend(orient="top", title=None)
                ),
                order="order:Q",
                tooltip=["stage:N", "cause:N", "milliseconds:Q", "executions:Q"],
            )
            .properties(width=(WIDTH - 40 - 16 * len(names)) // len(names), height=24 * len(stages))
        )
    shared: alt.HConcatChart = alt.hconcat(*panels, spacing=16)
    return shared.resolve_scale(x="shared", color="shared")  # type: ignore[no-any-return]


def timeline(document: CellsDocument) -> alt.TopLevelMixin | None:
    """What ran where after the warm-up: threads (launching) above, streams (device) below."""
    rows = chart_rows.timeline(document)
    if not rows:
        return None
    used = [stage for stage in STAGE_COLOURS if any(row["stage"] == stage for row in rows)]
    scale = alt.Scale(domain=used, range=[STAGE_COLOURS[stage] for stage in used])
    panels = []
    for name in dict.fromkeys(row["architecture"] for row in rows):
        part = [row for row in rows if row["architecture"] == name]
        tracks = sorted({row["track"] for row in part}, reverse=True)
        panels.append(
            alt.Chart(data(part), title=alt.TitleParams(name, anchor="start"))
            .mark_bar(height={"band": 0.75})
            .encode(
                x=alt.X("start_ms:Q", title="ms", axis=alt.Axis(grid=False)),
                x2="end_ms:Q",
                y=alt.Y("track:N", scale=alt.Scale(domain=tracks), title=None),
                color=alt.Color(
                    "stage:N", scale=scale, legend=alt.Legend(orient="top", title=None)
                ),
                tooltip=["stage:N", "batch:Q", "start_ms:Q", "end_ms:Q"],
            )
            .properties(width=WIDTH - 30, height=22 * len(tracks))
        )
    return alt.vconcat(*panels, spacing=12)


def compared(document: CellsDocument | Reproduction) -> alt.TopLevelMixin | None:
    """Predicted against measured on a log-log diagonal, and the residuals over load."""
    rows = chart_rows.compared(document)
    truth = "published" if isinstance(document, Reproduction) else "measured"
    quantities = dict.fromkeys(row["quantity"] for row in rows)
    panels = [
        alt.hconcat(
            _diagonal([row for row in rows if row["quantity"] == quantity], quantity, truth),
            _residuals([row for row in rows if row["quantity"] == quantity], truth),
        )
        for quantity in quantities
    ]
    return alt.vconcat(*panels, spacing=28) if panels else None


def _diagonal(rows: list[Record], quantity: str, truth: str) -> Layers:
    rows = [row for row in rows if min(row["measured"], row["predicted"]) > 0]
    for row in rows:
        row["low"] = row["low"] if row["low"] > 0 else row["predicted"]
    colour = architecture_colour(rows, "series")
    ends = [row[name] for row in rows for name in ("measured", "low", "high")] or [1.0]
    span = [min(ends) * 0.9, max(ends) * 1.1]
    scale = alt.Scale(type="log", domain=span, nice=False)
    x = alt.X("measured:Q", title=f"{truth} {quantity}", scale=scale)
    base = alt.Chart(data(rows)).encode(x=x)
    equal = alt.Chart(data([{"measured": end, "predicted": end} for end in span]))
    y = alt.Y("predicted:Q", title=f"predicted {quantity}", scale=scale)
    line = equal.mark_line(color="#bbbbbb", strokeDash=[4, 4], strokeWidth=1.5).encode(x=x, y=y)
    rule = base.mark_rule(strokeWidth=2, opacity=0.5).encode(
        y=alt.Y("low:Q", title=f"predicted {quantity}", scale=scale), y2="high:Q", color=colour
    )
    tip = ["series:N", "concurrency:Q", "measured:Q", "predicted:Q", "low:Q", "high:Q"]
    point = base.mark_point(filled=True, size=50, opacity=1).encode(y=y, color=colour, tooltip=tip)
    return alt.layer(line, rule, point).properties(width=WIDTH // 2 - 60, height=260)


def _residuals(rows: list[Record], truth: str) -> Layers:
    rows = [row for row in rows if row["error_percent"] is not None]
    colour = architecture_colour(rows, "series")
    loads = sorted({row["concurrency"] for row in rows})
    x = alt.X("concurrency:O", title="concurrency", sort=loads, axis=alt.Axis(labelAngle=0))
    offset = alt.XOffset("series:N")
    title = f"predicted / {truth} - 1, %"
    base = alt.Chart(data(rows)).encode(x=x, xOffset=offset, color=colour)
    zero = alt.Chart(data([{"zero": 0}])).mark_rule(color="#888888").encode(y="zero:Q")
    rule = base.mark_rule(strokeWidth=2, opacity=0.5).encode(
        y=alt.Y("error_low:Q", title=title), y2="error_high:Q"
    )
    tip = ["series:N", "concurrency:Q", "error_percent:Q", "error_low:Q", "error_high:Q"]
    point = base.mark_point(filled=True, size=45, opacity=1).encode(
        y=alt.Y("error_percent:Q", title=title), tooltip=tip
    )
    return alt.layer(zero, rule, point).properties(width=WIDTH // 2 - 20, height=260)


def gains(document: Reproduction) -> alt.TopLevelMixin | None:
    """The ratio of two engines over load, published and predicted."""
    rows = chart_rows.gains(document)
    if not rows:
        return None
    scale = alt.Scale(domain=["published", "predicted"], range=["#000000", "#d55e00"])
    colour = alt.Color("which:N", scale=scale, legend=alt.Legend(orient="top", title=None))
    loads = sorted({row["concurrency"] for row in rows})
    base = alt.Chart(data(rows)).encode(
        x=alt.X("concurrency:O", title="C", sort=loads, axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("which:N", sort=["published", "predicted"]),
        color=colour,
    )
    y = alt.Y("gain:Q", title="gain, PDV / PD throughput", scale=alt.Scale(type="log"))
    one = alt.Chart(data([{"gain": 1.0}])).mark_rule(color="#888888").encode(y="gain:Q")
    rule = base.mark_rule(strokeWidth=2, opacity=0.5).encode(
        y=alt.Y("low:Q", title="gain, PDV / PD throughput"), y2="high:Q"
    )
    point = base.mark_point(filled=True, size=55, opacity=1).encode(
        y=y, tooltip=["concurrency:O", "which:N", "gain:Q", "low:Q", "high:Q"]
    )
    return alt.layer(one, rule, point).properties(width=WIDTH, height=280)


def check_fields(spec: Mapping[str, Any]) -> None:
    """Every field that an encoding uses must be in the data it is drawn from: the schema does
    not notice one that is not, and the chart is then silently empty.

    Raises:
        ValueError: names the missing field.
    """
    _check(spec, [{}], spec.get("datasets", {}))


def _check(
    node: Mapping[str, Any], inherited: list[Record], datasets: Mapping[str, list[Record]]
) -> None:
    data = node.get("data")
    rows = inherited
    if isinstance(data, Mapping):
        rows = data["values"] if "values" in data else datasets[data["name"]]
    if len(rows) > chart_rows.MOST_ROWS:
        raise ValueError(f"{len(rows)} rows in one chart; aggregate to {chart_rows.MOST_ROWS}")
    for channel, definition in node.get("encoding", {}).items():
        for part in definition if isinstance(definition, list) else [definition]:
            field = part.get("field") if isinstance(part, Mapping) else None
            if field is not None and any(field not in row for row in rows):
                raise ValueError(f"{channel} uses the field {field!r}, which is not in the data")
    for group in ("layer", "hconcat", "vconcat", "concat"):
        for child in node.get(group, []):
            _check(child, rows, datasets)
