"""Pages from documents: complete, self-contained, and drawn from fields that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import altair as alt
import pytest

from pdvsim import cli
from pdvsim.documents import Document
from pdvsim.documents.cells import CellsDocument, Prediction, Row
from pdvsim.documents.reading import parse
from pdvsim.documents.tables import Reproduction
from pdvsim.documents.validation import Validation, ValidationRow
from pdvsim.quantities import COMPARED
from pdvsim.results import ranked, row
from pdvsim.statistics import Interval
from pdvsim.sweep import sweep
from pdvsim.verdict import judged
from reports import chart_rows, charts, script
from reports.page import render, spec_of
from reports.sections import CELL_SECTIONS, REPRODUCED
from tests.documents import CALIBRATION, headings, made, offline
from tests.fakes import FakeModel, cell
from tests.kinds import plain

PROFILE = {**CALIBRATION, "name": "fake <script>"}


def predicted(loads: tuple[int, ...] = (4,)) -> Prediction:
    cells = [
        cell(name, concurrency=load, slo_ttft_ms=100.0)
        for load in loads
        for name in ("plain", "pd", "pdv")
    ]
    results = sweep(cells, FakeModel(), 5, workers=1)
    rows = [Row(**row(result)) for result in results]
    answer = ranked(results, rows, ["A note."], "delivers")
    document = made("predict", **answer, formulas=[], profile=PROFILE)
    assert isinstance(document, Prediction)
    return document


@pytest.fixture(scope="module")
def document() -> Prediction:
    return predicted()


@pytest.fixture(scope="module")
def loads() -> Prediction:
    return predicted((2, 4, 8))


def reproduced(factor: float = 1.0) -> Reproduction:
    cells = [
        {
            "engine": engine,
            "concurrency": load,
            "published": {
                "tps": 2.0 * factor * load,
                "latency_ms": 900.0 * load,
                "completed": 3,
            },
            "predicted": {
                "tps": {"value": 2.02 * load, "low": 1.9 * load, "high": 2.1 * load},
                "latency_ms": {"value": 880.0 * load, "low": None, "high": None},
                "completed": 3.0,
            },
            "inside_interval": factor == 1.0,
        }
        for engine in ("PD", "PDV")
        for load in (1, 2, 4)
    ]
    gain = {
        "concurrency": 4,
        "published": 1.1,
        "predicted": {"value": 1.2, "low": 1.0, "high": None},
        "published_latency_ratio": 0.9,
        "predicted_latency_ratio": None,
    }
    document = made(
        "reproduce",
        seed=0,
        replications=3,
        files=["summary.csv", "detailed.csv"],
        length=None,
        cells=cells,
        gains=[gain],
        median_abs_error_tps=0.01,
        inside_interval=6 if factor == 1.0 else 0,
        calibrated_from={"rows": [], "rounds": [], "prefill_ms": 1.0, "run_spread": 0.1},
        profile=PROFILE,
    )
    assert isinstance(document, Reproduction)
    return document


def validated(document: Prediction) -> Validation:
    """The same predictions with measurements that are 5 % lower."""
    rows = []
    for one in document.cells:
        known = {name: one.metrics[name] for name in COMPARED}
        seen = {
            name: Interval(0.95 * found.value, None, None) for name, found in known.items() if found
        }
        error = dict.fromkeys(COMPARED, 1 / 0.95 - 1)
        rows.append(
            ValidationRow(
                **dict(one),
                measured=seen,
                errors=error,
                errors_as_calibrated=error,
                host_factors=(),
                gil_speeds=(),
                telemetry=(),
            )
        )
    found = made(
        "validate",
        cells=rows,
        ranks=document.ranks,
        as_calibrated=[],
        at_run_speed=[],
        measured_on=[],
        profile=PROFILE,
    )
    assert isinstance(found, Validation)
    return found


def changed(document: Prediction, at: int, **changes: Any) -> Document:
    """With another row."""
    content = plain(document)
    content["cells"][at] |= changes
    return judged(parse(content, "it"))


def test_a_prediction_is_rendered_whole(document: Prediction) -> None:
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


def test_a_page_fetches_nothing(document: Prediction) -> None:
    page = render(document)
    assert offline(page)
    assert len(page) < 2_000_000


def test_text_is_escaped(document: Prediction) -> None:
    page = render(document)
    assert "fake &lt;script&gt;" in page
    assert "fake <script>" not in page


def test_specs_are_whole_json(document: Prediction) -> None:
    specs = re.findall(r'class="spec">(.*?)</script>', render(document), re.DOTALL)
    for text in specs:
        assert json.loads(text)["$schema"].startswith("https://vega.github.io/schema/vega-lite/")


DRAWN = {
    "Throughput": "layer",
    "Latency": "hconcat",
    "Throughput against latency": "layer",
    "Where the time of a stage goes": "hconcat",
    "Timeline": "vconcat",
    "Predicted against measured": "vconcat",
    "Predicted against published": "vconcat",
    "Gain": "layer",
}


IN_WORDS = {
    "Errors",
    "At each load",
    "Closed forms",
    "Acceptance",
    "Figures",
    "To keep in mind",
}


def test_every_section_is_drawn_or_in_words() -> None:
    titles = {section.title for section in (*CELL_SECTIONS, *REPRODUCED)}
    assert titles == DRAWN.keys() | IN_WORDS


@pytest.mark.parametrize("title", DRAWN)
def test_every_chart_draws_over_several_loads(title: str, loads: Prediction) -> None:
    sections = {section.title: section.content for section in (*CELL_SECTIONS, *REPRODUCED)}
    document: CellsDocument | Reproduction = validated(loads)
    drawn = sections[title](
        reproduced() if title in ("Gain", "Predicted against published") else document
    )
    assert isinstance(drawn, alt.TopLevelMixin)
    assert DRAWN[title] in spec_of(drawn)


def test_closed_forms_stand_beside_the_simulation(document: Prediction) -> None:
    line = {
        "label": "pd",
        "formula": "closed MVA",
        "quantity": "requests/s",
        "value": 12.0,
        "simulated": {"value": 10.0, "low": 9.0, "high": 11.0},
        "error": 0.2,
        "why": "a batch shares its passes",
    }
    silent = {**line, "formula": "a bound", "simulated": None, "error": None}
    page = render(parse({**plain(document), "formulas": [line, silent]}, "it"))
    assert "Closed forms" in headings(page)
    assert "closed MVA<small>requests/s</small>" in page
    assert "<td>12.0</td><td>10.0<small>9.00 to 11.0</small></td><td>+20%</td>" in page
    assert "<td>12.0</td><td>n/a</td><td>n/a</td>" in page
    assert "a batch shares its passes" in page


def test_a_single_run_has_no_interval_in_the_table(document: Prediction) -> None:
    alone = {"value": 5.0, "low": None, "high": None}
    metrics = plain(document)["cells"][0]["metrics"] | {"output_throughput": alone}
    assert "5.00<small>no interval</small>" in render(changed(document, 0, metrics=metrics))


def test_comparisons_are_rendered(document: Prediction) -> None:
    assert "Predicted against measured" in headings(render(validated(document)))
    assert {"Predicted against published", "Gain"} <= headings(render(reproduced()))


def test_residuals_are_relative_to_the_measurement() -> None:
    first = chart_rows.compared(reproduced())[0]
    assert first["error_percent"] == pytest.approx(1.0)
    assert first["error_low"] == pytest.approx(-5.0)


def test_the_headline_is_the_stored_verdict(document: Prediction) -> None:
    page = render(document)
    assert f"<h1>{document.verdict.sentence}</h1>" in page
    assert f">{document.verdict.badge}</span>" in page


def test_the_verdict_says_what_it_rests_on(document: Prediction) -> None:
    badge = changed(document, 0, extrapolated=["batch 9 is outside 1 to 8"]).verdict.badge
    assert badge.startswith("VALID WITH CARE, because plain left the calibrated range")
    alone = {"runs": 1, "seconds": 1.0, "requests": 9.0}
    assert "a single run has no interval" in changed(document, 1, length=alone).verdict.badge


def test_the_verdict_on_a_comparison() -> None:
    sentence = reproduced().verdict.sentence
    assert "off by 1.00 % in the median of 6 cells" in sentence
    assert "6 of 6 published values lie inside" in sentence
    assert "outside" in reproduced(2.0).verdict.badge


def test_a_missing_metric_is_not_drawn_as_zero(document: Prediction) -> None:
    metrics = plain(document)["cells"][0]["metrics"] | {"p99_e2el_ms": None}
    found = changed(document, 0, metrics=metrics)
    assert isinstance(found, Prediction)
    rows = [one for one in chart_rows.latency(found) if one["architecture"] == "plain"]
    assert not [one for one in rows if "E2E" in one["latency"] and one["statistic"] == "p99"]
    assert "n/a" in render(found)


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


@pytest.mark.parametrize("standard_input", [False, True])
def test_the_report_command(
    standard_input: bool,
    document: Prediction,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result, page = document.save(tmp_path / "result.json"), tmp_path / "out.html"
    with result.open() as file:
        monkeypatch.setattr("sys.stdin", file)
        name = "-" if standard_input else str(result)
        assert cli.run(["report", name, "-o", str(page), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(page)
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; a document of pdvsim is needed"),
        ("[1, 2]", "not a document of pdvsim, which is a JSON object"),
        ('{"cells": [3]}', "not the output of a pdvsim command"),
        ('{"kind": "predict", "schema_version": 1}', "lacks the key 'pdvsim'"),
        ('{"name": "h100", "stages": {}}', "not the output of a pdvsim command"),
        ("3", "not a document of pdvsim"),
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


def test_charts_have_names(document: Prediction) -> None:
    chart = document.chart("throughput")
    assert spec_of(chart)["$schema"].startswith("https://vega.github.io/schema/vega-lite/")
    from pdvsim.errors import InputError

    with pytest.raises(InputError, match="no chart 'nonsense' in this prediction; there is: thr"):
        document.chart("nonsense")


@pytest.mark.slow
def test_the_script_that_ships_is_what_vl_convert_makes() -> None:
    import vl_convert

    if vl_convert.__version__ != script.WRITTEN_BY:
        pytest.skip(f"the script that ships is of vl-convert {script.WRITTEN_BY}")
    assert script.script() == script.made()


def test_a_page_for_another_vega_lite_than_ships_has_its_script_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(script, "version", lambda: "5.8")
    monkeypatch.setattr(script, "made", lambda: "made for it")
    assert script.script.__wrapped__() == "made for it"
