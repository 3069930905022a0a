"""From a machine to a page: calibrate, predict, bench, validate, explain, report."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pdvsim import cli, output
from pdvsim.models import SHIPPED
from tests.documents import body, headings

pytest.importorskip("torch")

# Names that cells have in common over all documents.
PLACES = {("pd", 2), ("pdv", 2)}


@pytest.fixture
def short_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at the machine that takes two seconds."""
    from calibration import plan as plans

    plan = plans.Plan((16, 48), (1, 2), 3, 2, race_seconds=0.05, race_rounds=2, lengths=(1, 4))
    plan = replace(plan, prefills=((1, 16), (2, 24)), mixed=3)
    monkeypatch.setattr(plans, "quick", lambda _: plan)


def pair_of(kind: str, folder: Path) -> str:
    """Each way to refer to a pair."""
    if kind == "directories":
        from tests.checkpoints import FAMILIES, make_checkpoint

        models = [make_checkpoint(folder / n, FAMILIES["qwen3"], i) for i, n in enumerate("ab")]
        return f"{models[0]}:verifier={models[1]}"
    if kind == "config.json":
        file = folder / "config.json"
        file.write_text((SHIPPED / "tiny.json").read_text())
        return f"small={file}:tiny"
    return kind


@pytest.mark.slow
@pytest.mark.usefixtures("short_plan")
@pytest.mark.parametrize("kind", ["Toy", "directories", "config.json"])
def test_a_machine_is_measured_predicted_run_and_explained(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def file(name: str) -> str:
        return str(tmp_path / name)

    def pdvsim(*words: str) -> dict[str, Any]:
        assert cli.run([*words, "--json"]) == 0, capsys.readouterr().err
        document = json.loads(capsys.readouterr().out)
        assert isinstance(document, dict)
        return document

    pair = ["--pair", pair_of(kind, tmp_path), "--executor", "graph"]
    load = ["--architecture", "pd,pdv", "--concurrency", "2"]
    load += ["--prompt-tokens", "24", "--output-tokens", "16"]
    pdvsim("calibrate", "--device", "cpu", *pair, "--quick", "-o", file("profile.json"))
    profile = ["--profile", file("profile.json")]
    predicted = pdvsim("predict", *load, *profile, "--replications", "2")
    measured = pdvsim(
        *("bench", "--device", "cpu", *pair, *load, "--requests", "8"),
        *("-o", file("bench.json"), "--records", str(tmp_path)),
    )
    if kind == "directories":  # documents hold what they need of the models
        for folder in tmp_path.glob("[ab]"):
            shutil.rmtree(folder)
        assert cli.run(["validate", *profile, "--device", "cpu"]) == 2
        assert "say with --pair where they are" in capsys.readouterr().err
    bench = ["--bench", file("bench.json")]
    validated = pdvsim("validate", *bench, *profile, "--predictions", "2")
    assert pdvsim("audit", file("bench.json"))["findings"] is not None
    explained = pdvsim("explain", *bench, *profile, "--replications", "2")

    documents = {"predict": predicted, "bench": measured, "validate": validated}
    for document in documents.values():
        assert {(c["label"], c["concurrency"]) for c in document["cells"]} == PLACES
    for cell in validated["cells"]:
        assert cell["errors"]["output_throughput"] is not None
        assert cell["measured"]["output_throughput"]["value"] > 0.0
    worlds = {(c["label"], c["world"]) for c in explained["cells"]}
    assert worlds == {(name, world) for name, _ in PLACES for world in ("simulated", "real")}
    for cell in explained["cells"]:
        shares = [cause["share"]["value"] for cause in cell["causes"].values()]
        assert sum(shares) == pytest.approx(1.0)
    for name, document in {**documents, "explain": explained}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
        pdvsim("report", file(f"{name}.json"), "-o", file(f"{name}.html"))
        assert "pdv" in body((tmp_path / f"{name}.html").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.usefixtures("short_plan")
def test_what_the_engine_answers_is_printed_on_80_columns_and_made_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "PAGE_WIDTH", 80)
    on = ["--device", "cpu", "--pair", "toy", "--executor", "graph"]
    load = [
        "--architecture",
        "pd,pdv",
        "--concurrency",
        "2",
        "--prompt-tokens",
        "16",
        "--output-tokens",
        "8",
    ]
    files = {name: str(tmp_path / f"{name}.json") for name in ("calibrate", "bench", "validate")}
    calls = {
        "calibrate": [*on, "--quick"],
        "bench": [*on, *load, "--requests", "6"],
        "validate": ["--bench", files["bench"], "--profile", files["calibrate"]],
    }
    for name, words in calls.items():
        page = tmp_path / f"{name}.html"
        report = [] if name == "calibrate" else ["--report", str(page)]
        assert cli.run([name, *words, "-o", files[name], *report]) == 0
        printed = capsys.readouterr().out.splitlines()
        assert len(printed) > 3
        assert [one for one in printed if len(one) > 80 and " " in one.strip()] == []
        if report:
            assert {"Throughput", "Provenance"} <= headings(page.read_text(encoding="utf-8"))
