"""One self-contained HTML page: charts, tables and the JavaScript that draws them.

Nothing is fetched: the libraries are in the page once, and its content policy refuses the network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from html import escape
from typing import Any

import altair as alt

from reports import charts, frames
from reports.frames import Document
from reports.verdict import judge

Chart = Callable[[Document], alt.TopLevelMixin | None]

SECTIONS: tuple[tuple[str, str, Chart], ...] = (
    (
        "Predicted against measured",
        "Left: each cell against the diagonal of equality. Right: the error of each cell. "
        "Lines are 95 % intervals of the prediction.",
        charts.compared,
    ),
    ("Gain", "Ratio of the two engines at each load, with 95 % intervals.", charts.gains),
    ("Throughput", "Output tokens per second, with 95 % intervals for one run.", charts.throughput),
    (
        "Latency",
        "Filled: median. Hollow: 99th percentile. Lines are 95 % intervals for one run.",
        charts.latency,
    ),
    (
        "Throughput against latency",
        "Up and to the left is better; the dashed line joins what nothing beats in both.",
        charts.pareto,
    ),
    (
        "Where the time of a stage goes",
        "Mean of one execution. Lock: waiting for the model's lock. Launch: host time alone. "
        "Gil: launch time added by other threads. Device: from the end of the launch to the end "
        "of the kernels. Wake: until the thread knows.",
        charts.stage_time,
    ),
    (
        "Timeline",
        "The first stage executions after the warm-up: what threads launch and streams run.",
        charts.timeline,
    ),
)

STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #f6f6f4; color: #222; line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 32px 24px 64px; }
header p.kicker { margin: 0; color: #666; font-size: 13px; letter-spacing: .02em; }
h1 { font-size: 24px; line-height: 1.3; font-weight: 600; margin: 4px 0 10px; }
h2 { font-size: 17px; font-weight: 600; margin: 0; }
section { background: #fff; border: 1px solid #e4e4e0; border-radius: 8px; margin-top: 20px;
  padding: 18px 22px; overflow-x: auto; }
section > p { margin: 2px 0 14px; color: #666; font-size: 13px; max-width: 76ch; }
.validity { display: inline-block; font-size: 13px; padding: 3px 10px; border-radius: 12px;
  background: #e3f1ea; color: #11563d; }
.validity.care { background: #fdf1dc; color: #6e4800; border-radius: 8px; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 500; color: #666; }
th, td { padding: 5px 14px 5px 0; vertical-align: top; border-bottom: 1px solid #eee; }
th:first-child, td:first-child { text-align: left; }
td { text-align: right; white-space: nowrap; }
td small { display: block; color: #888; font-size: 11px; }
table.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
table.facts td:first-child { color: #666; white-space: nowrap; }
ul { margin: 6px 0; padding-left: 20px; font-size: 13px; }
.vega-embed summary { opacity: .25; }
"""

SCRIPT = """
(function () {
  "use strict";
  const options = { actions: { export: true, source: false, compiled: false, editor: false },
                    renderer: "svg" };
  for (const spec of document.querySelectorAll("script.spec")) {
    window.vegaEmbed(spec.previousElementSibling, JSON.parse(spec.textContent), options)
      .catch(function (error) { spec.previousElementSibling.textContent = String(error); });
  }
})();
"""

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:"
)

TABLE = (
    ("Output tokens/s", "output_throughput", 1.0),
    ("Requests/s", "request_throughput", 1.0),
    ("Goodput requests/s", "request_goodput", 1.0),
    ("TTFT p50, s", "median_ttft_ms", 1e-3),
    ("TPOT p50, ms", "median_tpot_ms", 1.0),
    ("E2E p50, s", "median_e2el_ms", 1e-3),
    ("E2E p99, s", "p99_e2el_ms", 1e-3),
    ("GPU busy, %", "gpu_busy", 100.0),
)


def render(document: Document) -> str:
    """The page for `document`.

    Raises:
        ValueError: a chart names a field that its data lacks.
    """
    verdict = judge(document)
    care = " care" if verdict.caveats else ""
    body = [
        f'<header><p class="kicker">{escape(_subject(document))}</p>'
        f"<h1>{escape(verdict.sentence)}</h1>"
        f'<span class="validity{care}">{escape(verdict.validity)}</span></header>'
    ]
    for title, caption, chart in SECTIONS:
        drawn = chart(document)
        if drawn is not None:
            body.append(_section(title, caption, _figure(drawn)))
    among = frames.cells(document)
    if among:
        body.append(_section("Figures", "95 % intervals for one run below.", _metrics(among)))
    body.extend(_notes(among))
    facts = [(escape(name), escape(value)) for name, value in frames.provenance(document)]
    body.append(_section("Provenance", "Where these numbers come from.", _facts(facts)))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>pdvsim: {escape(_subject(document))}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main>\n<script>{_bundle()}</script>\n"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _subject(document: Document) -> str:
    among = document.get("cells") or [{}]
    parts = [f"pdvsim {document.get('command', '')}".strip()]
    for name in ("pair", "executor", "protocol"):
        values = dict.fromkeys(str(cell[name]) for cell in among if cell.get(name))
        if values:
            parts.append(", ".join(values))
    loads = sorted({cell["concurrency"] for cell in among if "concurrency" in cell})
    if loads:
        parts.append("C = " + ", ".join(map(str, loads)))
    return " · ".join(parts)


def _section(title: str, caption: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p>{escape(caption)}</p>{content}</section>"


def _figure(chart: alt.TopLevelMixin) -> str:
    spec = spec_of(chart)
    # "<" in a string must not close the script element.
    text = json.dumps(spec, separators=(",", ":")).replace("<", "\\u003c")
    return f'<div></div><script type="application/json" class="spec">{text}</script>'


def spec_of(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """The checked Vega-Lite specification of `chart`, in the page's look."""
    font = 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif'
    styled = chart.configure(font=font, background="transparent")
    styled = styled.configure_view(stroke=None).configure_axis(
        gridColor=charts.GRID,
        domainColor="#cccccc",
        tickColor="#cccccc",
        labelColor="#444444",
        titleColor="#666666",
        titleFontWeight="normal",
        labelFontSize=12,
        titleFontSize=12,
        labelLimit=220,
    )
    styled = styled.configure_title(fontSize=13, fontWeight=600, color=charts.INK)
    spec: dict[str, Any] = styled.to_dict(context={"pre_transform": False})
    charts.check_fields(spec)
    return spec


@cache
def _bundle() -> str:
    import vl_convert

    version = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", version)
    return bundle.replace("</script", "<\\/script")


def _metrics(among: Sequence[frames.Row | Any]) -> str:
    columns = [column for column in TABLE if any(cell.get(column[1]) for cell in among)]
    several = len({cell.get("concurrency") for cell in among}) > 1
    head = "".join(f"<th>{escape(title)}</th>" for title, _, _ in columns)
    lines = []
    for cell in among:
        name = frames.label(cell, among) + (f" · C = {cell['concurrency']}" if several else "")
        values = "".join(_value(frames.metric(cell, key, scale)) for _, key, scale in columns)
        lines.append(f"<tr><td>{escape(name)}</td>{values}</tr>")
    return f"<table><tr><th></th>{head}</tr>{''.join(lines)}</table>"


def _value(found: frames.Row | None) -> str:
    if found is None:
        return "<td>n/a</td>"
    value, low, high = (frames.number(found[name]) for name in ("value", "low", "high"))
    return f"<td>{value}<small>{low} to {high}</small></td>"


def _notes(among: Sequence[frames.Row | Any]) -> list[str]:
    """What is extrapolated, censored or unknown."""
    notes: list[str] = []
    for cell in among:
        name = frames.label(cell, among)
        notes.extend(f"Extrapolated, {name}: {reason}" for reason in cell.get("extrapolated", []))
        known = {key for _, key, _ in TABLE} - {"request_goodput"}
        reasons = {why for key, why in (cell.get("reasons") or {}).items() if key in known}
        notes.extend(f"Not known, {name}: {why}" for why in sorted(reasons))
    censored = frames.censored(among)
    if censored:
        notes.append(censored)
    if not notes:
        return []
    items = "".join(f"<li>{escape(note)}</li>" for note in dict.fromkeys(notes))
    return [_section("To keep in mind", "", f"<ul>{items}</ul>")]


def _facts(rows: Sequence[tuple[str, str]]) -> str:
    lines = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in rows)
    return f'<table class="facts">{lines}</table>'
