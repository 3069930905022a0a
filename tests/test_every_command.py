"""Every command once on small input: as JSON, as a page made from it, and printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pdvsim import cli, output
from pdvsim.documents import KINDS, Document, read
from tests.documents import body, headings, offline
from tests.published_table import write_published_table

# Those that need an engine are called in test_promise.py, what makes no result elsewhere.
ELSEWHERE = {"architectures", "bench", "calibrate", "validate", "report", "profiles"}
SHORT = "PROFILE --prompt-tokens 8 --output-tokens 8"
TWICE = f"--replications 2 {SHORT}"
CALLS = {
    "predict": f"--concurrency 2 --architecture pd,pdv --slo-ttft-ms 90 --formulas {TWICE}",
    "crossover": f"plain pdv --to 4 --points 3 --map acceptance --replications 4 {SHORT}",
    "explain": f"--concurrency 2 --threads {TWICE}",
    "ablate": f"--concurrency 3 --mechanism GIL {TWICE}",
    "reproduce": "TABLE PROFILE --replications 2",
    "audit": "TABLE",
}
EXIT_CODE = {"audit": 1}  # the table has errors
HEADING = {
    "predict": "Throughput",
    "crossover": "Ratio",
    "explain": "Latency by cause",
    "ablate": "Parts",
    "reproduce": "Predicted against published",
    "audit": "Findings",
}


@pytest.fixture(scope="module")
def places(profile: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    paths = write_published_table(tmp_path_factory.mktemp("published"), (1, 2, 8))
    return {"PROFILE": ["--profile", profile], "TABLE": [str(path) for path in paths]}


def call(name: str, places: dict[str, list[str]]) -> list[str]:
    words = [places.get(word, [word]) for word in CALLS[name].split()]
    return [name, *(word for several in words for word in several)]


def without_date(document: Document) -> Document:
    return document.model_copy(update={"created": None, "command": ""})


def test_every_command_is_called() -> None:
    assert CALLS.keys() | ELSEWHERE == cli.COMMANDS.keys()


@pytest.mark.parametrize("name", CALLS)
def test_a_command_makes_a_document_and_a_page(
    name: str, places: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*call(name, places), "--json"]) == EXIT_CODE.get(name, 0)
    captured = capsys.readouterr()
    assert captured.err == ""
    document = json.loads(captured.out)
    assert document["kind"] == name
    result, page = tmp_path / "result.json", tmp_path / "page.html"
    files = ["-o", str(result), "--report", str(page)]
    assert cli.run([*call(name, places), *files]) == EXIT_CODE.get(name, 0)
    assert f"Report: {page}" in capsys.readouterr().out or name == "audit"
    assert without_date(read(result)) == without_date(read(captured.out))
    page.unlink()
    assert cli.run(["report", str(result), "-o", str(page)]) == 0
    html = page.read_text(encoding="utf-8")
    assert HEADING[name] in headings(html)
    assert offline(html)
    assert "undefined" not in body(html) and "None" not in body(html)


@pytest.mark.parametrize("name", CALLS)
def test_a_command_prints_on_80_columns(
    name: str,
    places: dict[str, list[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(output, "PAGE_WIDTH", 80)
    assert cli.run(call(name, places)) == EXIT_CODE.get(name, 0)
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert len(lines) > 3
    # Nothing is cut, and only a word that is longer itself is wider than the page.
    assert "…" not in captured.out
    assert [one for one in lines if len(one) > 80 and " " in one.strip()] == []


@pytest.mark.parametrize("name", KINDS)
def test_every_document_can_be_kept_and_drawn(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([name, "--help"]) == 0
    printed = capsys.readouterr().out
    assert "--report PATH" in printed and "-o, --output PATH" in printed
