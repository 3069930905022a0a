"""Pages from documents: complete, self-contained, and drawn from fields that exist."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import altair as alt
import pytest

from pdvsim import cli
from pdvsim.sweep import sweep
from reports import chart_rows, charts
from reports.page import render, spec_of
from reports.sections import CELL_SECTIONS
from reports.verdict import judge
from tests.documents import headings, offline
from tests.fakes import FakeModel, cell


def predicted(loads: tuple[int, ...] = (4,)) -> dict[str, Any]:
    cells = [
        cell(name, concurrency=load, slo_ttft_ms=100.0)
        for load in loads
        for name in ("plain", "pd", "pdv")
    ]
    results = sweep(cells, FakeModel(), 3, workers=1)
    return {
        "command": "predict",
        "seed": 0,
        "replications": 3,
        "cells": [result.to_dict() for result in results],
        "profile": {"name": "fake <script>", "gpu": "none"},
    }


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return predicted()


@pytest.fixture(scope="module")
def loads() -> dict[str, Any]:
    return predicted((2, 4, 8))


def reproduced() -> dict[str, Any]:
    cells = [
        {
            "engine": engine,
            "concurrency": load,
            "published_tps": 2.0 * load,
            "predicted_tps": 2.02 * load,
            "predicted_tps_low": 1.9 * load,
            "predicted_tps_high": 2.1 * load,
            "published_latency_ms": 900.0 * load,
            "predicted_latency_ms": 880.0 * load,
        }
        for engine in ("PD", "PDV")
        for load in (1, 2, 4)
    ]
    gains = [{"concurrency": 4, "published": 1.1, "predicted": 1.2, "predicted_low": 1.0}]
    return {"command": "reproduce", "cells": cells, "gains": gains}


def validated(document: dict[str, Any]) -> dict[str, Any]:
    """The same predictions with measurements that are 5 % lower."""
    found = copy.deepcopy(document)
    for one in found["cells"]:
        measured = {key: one[key] for key, _, _ in chart_rows.COMPARED}
        one["measured"] = {key: {"value": 0.95 * v["value"]} for key, v in measured.items()}
    return {**found, "command": "validate"}


def test_a_prediction_is_rendered_whole(document: dict[str, Any]) -> None:
    page = render(document)
    expected = {
        "Throughput",
        "Latency",
        "Throughput against latency",
        "Where the time of a stage goes",
        "Timeline",
        "Figures",
        "To keep in mind",
        "Provenance",
    }
    assert headings(page) == expected
    assert page.count('class="spec"') == 5


def test_a_page_fetches_nothing(document: dict[str, Any]) -> None:
    page = render(document)
    assert offline(page)
    assert len(page) < 2_000_000


def test_text_is_escaped(document: dict[str, Any]) -> None:
    page = render(document)
    assert "fake &lt;script&gt;" in page
    assert "fake <script>" not in page


def test_specs_are_whole_json(document: dict[str, Any]) -> None:
    specs = re.findall(r'class="spec">(.*?)</script>', render(document), re.DOTALL)
    for text in specs:
        assert json.loads(text)["$schema"].startswith("https://vega.github.io/schema/vega-lite/")


# By section: which of a prediction, its validation and a reproduction it draws.
DRAWN = {
    "Predicted against measured": (False, True, True),
    "Gain": (False, False, True),
    "Throughput": (True, True, False),
    "Latency": (True, True, False),
    "Throughput against latency": (True, True, False),
    "Where the time of a stage goes": (True, True, False),
    "Timeline": (True, True, False),
}
IN_WORDS = {"Closed forms", "Figures", "To keep in mind"}


def test_every_section_is_drawn_or_in_words() -> None:
    assert {section.title for section in CELL_SECTIONS} == DRAWN.keys() | IN_WORDS


@pytest.mark.parametrize("title", DRAWN)
def test_every_chart_draws_over_several_loads(title: str, loads: dict[str, Any]) -> None:
    content = next(section.content for section in CELL_SECTIONS if section.title == title)
    for document, expected in zip(
        (loads, validated(loads), reproduced()), DRAWN[title], strict=True
    ):
        drawn = content(document)
        if expected:
            assert isinstance(drawn, alt.TopLevelMixin)
            assert spec_of(drawn)
        else:
            assert drawn is None


def test_closed_forms_stand_beside_the_simulation(document: dict[str, Any]) -> None:
    line = {
        "architecture": "pd",
        "formula": "closed MVA",
        "quantity": "requests/s",
        "value": 12.0,
        "simulated": {"value": 10.0, "low": 9.0, "high": 11.0},
        "error": 0.2,
        "why": "a batch shares its passes",
    }
    silent = {**line, "formula": "a bound", "simulated": None, "error": None}
    page = render({**document, "formulas": [line, silent]})
    assert "Closed forms" in headings(page)
    assert "closed MVA<small>requests/s</small>" in page
    assert "<td>12.0</td><td>10.0<small>9.00 to 11.0</small></td><td>+20%</td>" in page
    assert "<td>12.0</td><td>n/a</td><td>n/a</td>" in page
    assert "a batch shares its passes" in page


def test_a_single_run_has_no_interval_in_the_table(document: dict[str, Any]) -> None:
    changed = copy.deepcopy(document)
    changed["cells"][0]["output_throughput"] = {"value": 5.0, "low": None, "high": None}
    assert "5.00<small>no interval</small>" in render(changed)


def test_comparisons_are_rendered(document: dict[str, Any]) -> None:
    assert "Predicted against measured" in headings(render(validated(document)))
    assert {"Predicted against measured", "Gain"} <= headings(render(reproduced()))


def test_residuals_are_relative_to_the_measurement() -> None:
    row = chart_rows.compared(reproduced())[0]
    assert row["error_percent"] == pytest.approx(1.0)
    assert row["error_low"] == pytest.approx(-5.0)


def test_the_verdict_on_a_prediction(document: dict[str, Any]) -> None:
    verdict = judge(document)
    assert verdict.sentence.startswith("At concurrency 4, ")
    assert "plain" in verdict.sentence
    assert verdict.validity == "VALID"


def test_the_verdict_says_what_it_rests_on(document: dict[str, Any]) -> None:
    changed = copy.deepcopy(document)
    changed["cells"][0]["extrapolated"] = ["batch 9 is outside 1 to 8"]
    changed["cells"][1]["replications"] = 1
    validity = judge(changed).validity
    assert validity.startswith("VALID WITH CARE, because plain left the calibrated range")
    assert "a single run has no interval" in validity


def test_the_verdict_on_a_comparison() -> None:
    verdict = judge(reproduced())
    assert "off by 1.00 % in the median of 6 cells" in verdict.sentence
    assert "6 of 6 measured values lie inside" in verdict.sentence
    wrong = reproduced()
    for one in wrong["cells"]:
        one["published_tps"] *= 2
    assert "outside" in judge(wrong).validity


def test_a_missing_metric_is_not_drawn_as_zero(document: dict[str, Any]) -> None:
    changed = copy.deepcopy(document)
    changed["cells"][0]["p99_e2el_ms"] = None
    rows = [row for row in chart_rows.latency(changed) if row["architecture"] == "plain"]
    assert not [row for row in rows if "E2E" in row["latency"] and row["statistic"] == "p99"]
    assert "n/a" in render(changed)


def test_a_field_that_is_not_in_the_data_is_refused() -> None:
    data = alt.InlineData(values=[{"a": 1, "b": 2}])
    good = alt.Chart(data).mark_point().encode(x="a:Q", tooltip=["a:Q", "b:Q"])
    charts.check_fields(good.to_dict())
    bad = alt.Chart(data).mark_point().encode(x="a:Q", y="c:Q")
    with pytest.raises(ValueError, match="y uses the field 'c'"):
        charts.check_fields(alt.hconcat(good, bad).to_dict())


def test_too_many_rows_are_refused() -> None:
    data = alt.InlineData(values=[{"a": i} for i in range(chart_rows.MOST_ROWS + 1)])
    with pytest.raises(ValueError, match="aggregate"):
        charts.check_fields(alt.Chart(data).mark_point().encode(x="a:Q").to_dict())


def test_long_timelines_are_merged() -> None:
    spans = [
        {
            "architecture": "pdv",
            "track": f"stream {i % 3}",
            "stage": ("draft", "verify")[i % 2],
            "start_ms": float(i),
            "end_ms": i + 0.9,
            "batch": 1,
        }
        for i in range(20_000)
    ]
    rows = chart_rows.merged(spans)
    assert 0 < len(rows) <= chart_rows.MOST_ROWS
    assert max(row["end_ms"] for row in rows) == spans[-1]["end_ms"]
    assert chart_rows.merged(spans[:10]) == spans[:10]


def test_the_report_command(
    document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, page = tmp_path / "result.json", tmp_path / "out.html"
    result.write_text(json.dumps(document))
    assert cli.run(["report", str(result), "-o", str(page), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(page)
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; the output of a pdvsim command is needed"),
        ("[1, 2]", "no list of cells"),
        ('{"cells": [3]}', "no list of cells"),
        ('{"command": "predict"}', "no list of cells"),
        ('{"command": "crossover", "cells": []}', "no list of cells, nor points"),
        ('{"command": "ablate", "parts": [{}]}', "it is not as pdvsim writes it"),
        ('{"command": "explain", "cells": [{}]}', "it is not as pdvsim writes it"),
        ('{"command": "explain", "cells": [], "differences": 3}', "it is not as pdvsim writes it"),
        ('{"findings": [{}]}', "it is not as pdvsim writes it"),
        ('{"name": "h100", "stages": {}}', "not the output of a pdvsim command"),
        ("3", "not the output of a pdvsim command"),
        ('{"cells": [{"architecture": "pd", "output_throughput": {"value": "x"}}]}', "it is not"),
    ],
)
def test_a_bad_document_is_one_sentence(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "result.json"
    result.write_text(text)
    assert cli.run(["report", str(result), "-o", str(tmp_path / "out.html")]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
