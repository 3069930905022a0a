"""One self-contained HTML page: charts, tables and the JavaScript that draws them.

Nothing is fetched: the libraries are in the page once, and its content policy refuses the network.
"""

from __future__ import annotations

import json
from html import escape
from typing import Any

import altair as alt
from altair.utils.schemapi import debug_mode

from pdvsim.documents import Document
from reports import charts
from reports.html import facts
from reports.provenance import provenance
from reports.script import script
from reports.sections import SECTIONS

LONG = 200  # characters of a headline that is set smaller

STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #f6f6f4; color: #222; line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 32px 24px 64px; }
header p.kicker { margin: 0; color: #666; font-size: 13px; letter-spacing: .02em; }
h1 { font-size: 24px; line-height: 1.3; font-weight: 600; margin: 4px 0 10px; }
h1.long { font-size: 19px; line-height: 1.4; }
h2 { font-size: 17px; font-weight: 600; margin: 0; }
h3 { font-size: 13px; font-weight: 600; margin: 18px 0 4px; }
h3:first-child { margin-top: 0; }
section { background: #fff; border: 1px solid #e4e4e0; border-radius: 8px; margin-top: 20px;
  padding: 18px 22px; overflow-x: auto; }
section > p { margin: 2px 0 14px; color: #666; font-size: 13px; max-width: 76ch; }
.severity { font-size: 12px; padding: 2px 8px; border-radius: 9px; color: #fff; background: #777; }
.severity.error { background: #b3261e; }
.severity.warning { background: #b26a00; }
section > h3 + p { margin: 2px 0 6px; color: #222; }
.validity { display: inline-block; font-size: 13px; padding: 3px 10px; border-radius: 12px;
  background: #e3f1ea; color: #11563d; }
.validity.invalid { background: #f9dedc; color: #8c1d18; border-radius: 8px; }
.validity.care { background: #fdf1dc; color: #6e4800; border-radius: 8px; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 500; color: #666; }
th, td { padding: 5px 14px 5px 0; vertical-align: top; border-bottom: 1px solid #eee; }
th:first-child, td:first-child { text-align: left; }
td { text-align: right; white-space: nowrap; }
th.words, td.words { text-align: left; white-space: normal; }
td.words { min-width: 9ch; max-width: 52ch; }
td small { display: block; color: #888; font-size: 11px; }
table.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
table.facts td:first-child { color: #666; white-space: nowrap; }
details { font-size: 13px; } summary { cursor: pointer; color: #666; }
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


def render(document: Document) -> str:
    """The page for `document`.

    Raises:
        ValueError: a chart names a field that its data lacks.
    """
    verdict = document.verdict
    look = {"valid": "", "valid with care": " care", "invalid": " invalid"}[verdict.validity]
    long = ' class="long"' if len(verdict.sentence) > LONG else ""
    body = [
        f'<header><p class="kicker">{escape(_subject(document))}</p>'
        f"<h1{long}>{escape(verdict.sentence)}</h1>"
        f'<span class="validity{look}">{escape(verdict.badge)}</span></header>'
    ]
    with debug_mode(False):  # altair would check each part of each chart again and again
        for title, caption, content in SECTIONS[document.kind]:
            made = content(document)
            if made is not None:
                figure = made if isinstance(made, str) else _figure(made)
                body.append(_section(title, caption, figure))
    origin = facts(provenance(document))
    body.append(_section("Provenance", "Where these numbers come from.", origin))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>pdvsim: {escape(_subject(document))}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main>\n{_scripts(body)}</body></html>\n"
    )


def _scripts(body: list[str]) -> str:
    """The libraries and what draws with them; a page of words needs neither."""
    if not any('class="spec"' in part for part in body):
        return ""
    return f"<script>{script()}</script>\n<script>{SCRIPT}</script>"


def _subject(document: Document) -> str:
    return f"pdvsim {document.kind} · {document.subject}"


def _section(title: str, caption: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p>{escape(caption)}</p>{content}</section>"


def _figure(chart: alt.TopLevelMixin) -> str:
    spec = spec_of(chart)
    # "<" in a string must not close the script element.
    text = json.dumps(spec, separators=(",", ":")).replace("<", "\\u003c")
    return f'<div></div><script type="application/json" class="spec">{text}</script>'


def styled(chart: alt.TopLevelMixin) -> alt.TopLevelMixin:
    """`chart` in the page's look."""
    font = 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif'
    axis = alt.AxisConfig(
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
    looked: alt.TopLevelMixin = chart.configure(  # at once, for it copies the chart
        font=font,
        background="transparent",
        view=alt.ViewConfig(stroke=None),
        axis=axis,
        title=alt.TitleConfig(fontSize=13, fontWeight=600, color=charts.INK),
    )
    return looked


def spec_of(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """The checked Vega-Lite specification of `chart`, in the page's look."""
    spec: dict[str, Any] = styled(chart).to_dict(context={"pre_transform": False})
    charts.check_fields(spec)
    return spec
