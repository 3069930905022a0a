"""Pairs whose first half is no model, from the option to the document, in both worlds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pdvsim import cli
from pdvsim.cell import Cell
from pdvsim.core import Drafter
from pdvsim.drafters import HeadShape, NoModel, difference
from pdvsim.errors import InputError
from pdvsim.models import SHIPPED_HEADS, FoundHead, Pair, pair, resolve_pair
from pdvsim.profile_file import ProfileFile


def pdvsim(*words: str) -> None:
    assert cli.run(words) == 0


@pytest.mark.parametrize(
    ("reference", "drafter"),
    [
        ("tiny:tiny", Drafter.MODEL),
        ("eagle3:llama-2-7b", Drafter.EAGLE3),
        ("EAGLE3:llama-2-7b", Drafter.EAGLE3),
        ("ngram:llama-2-7b", Drafter.NGRAM),
        ("none:llama-2-7b", Drafter.NONE),
        ("toy-eagle3", Drafter.EAGLE3),
    ],
)
def test_a_pair_knows_its_drafter_and_its_name_means_it_again(
    reference: str, drafter: Drafter
) -> None:
    found = pair(reference)
    assert found.drafter is drafter
    assert pair(found.name) == found and not found.difference(pair(found.name))


def test_a_heads_directory_or_file_is_a_drafter(tmp_path: Path) -> None:
    config = (SHIPPED_HEADS / "toy-eagle3.json").read_text()
    (tmp_path / "config.json").write_text(config)
    for reference in (f"{tmp_path}:toy-verifier", f"mine={tmp_path}:toy-verifier"):
        draft, _ = resolve_pair(reference)
        assert isinstance(draft, FoundHead) and draft.folder == tmp_path
    draft, _ = resolve_pair(f"mine={tmp_path}/config.json:toy-verifier")
    assert isinstance(draft, FoundHead) and draft.folder is None and draft.shape.name == "mine"
    with pytest.raises(InputError, match="vocab_size is 256"):
        resolve_pair(f"{tmp_path}:llama-2-7b")


def test_heads_differ_by_what_takes_time() -> None:
    head = pair("eagle3:llama-2-7b").draft
    assert isinstance(head, HeadShape)
    assert not difference(head, replace(head, layer=replace(head.layer, name="another")))
    assert "vocabulary 32000 against 16" in difference(head, replace(head, vocabulary=16))
    assert difference(head, NoModel("none")) == "eagle3 against none"


@pytest.mark.parametrize("drafter", ["eagle3", "ngram", "none"])
def test_the_eager_executor_refuses_other_drafters_in_one_sentence(
    drafter: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", "--pair", f"{drafter}:tiny", "--executor", "eager", "--device", "cpu"]
    assert cli.run(words) == 2
    assert "drafts with a model only" in " ".join(capsys.readouterr().err.split())


def test_a_cell_says_its_drafter_and_old_cells_have_a_model() -> None:
    cell = Cell("eagle3:tiny", "graph", "pd", 2, drafter="eagle3")
    assert Cell.read(cell.to_dict()) == cell
    assert cell.config().executor.drafter is Drafter.EAGLE3
    old = {name: value for name, value in cell.to_dict().items() if name != "drafter"}
    assert Cell.read(old).drafter == "model"


@pytest.mark.slow
@pytest.mark.parametrize("reference", ["toy-eagle3", "none:toy-verifier"])
def test_a_calibration_of_an_engine_predicts_it(reference: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out, predicted = tmp_path / "mine.json", tmp_path / "predicted.json"
    pdvsim("calibrate", "--pair", reference, "--device", "cpu", "--quick", "-o", str(out))
    file = json.loads(out.read_text())
    file.pop("digest")
    profile = ProfileFile.model_validate(file)
    models: Pair = pair(reference)
    assert profile.pair == models
    drafts = {"draft", "verify"} if models.drafter is Drafter.EAGLE3 else set()
    drafts.add("mixed")
    assert {*profile.stages} == {"prefill_verifier", "decode"} | drafts
    words = ["--profile", str(out), "--concurrency", "2", "-o", str(predicted)]
    pdvsim("predict", *words, "--replications", "2")
    cells = [row["cell"] for row in json.loads(predicted.read_text())["cells"]]
    assert {cell["drafter"] for cell in cells} == {str(models.drafter)}
    validated = [*words[:4], "--device", "cpu", "--architecture", "pd", "--cycles", "1"]
    pdvsim("validate", *validated, "--pair", reference, "--output-tokens", "8")


@pytest.mark.slow
def test_the_shipped_head_is_benched_with_real_acceptance(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "bench.json"
    words = "--pair toy-eagle3 --acceptance real --device cpu --concurrency 2 --architecture pd"
    pdvsim("bench", *words.split(), "--cycles", "2", "-o", str(out))
    document = json.loads(out.read_text())
    assert document["models"]["draft"]["layer"]["name"] == "toy-eagle3"
    (row,) = document["cells"]
    assert all(rate["value"] > 0.4 for rate in row["acceptance_per_position"])


def test_the_shapes_of_the_shipped_head_are_its_checkpoints() -> None:
    pytest.importorskip("torch")
    from realengine import toy

    shipped = (SHIPPED_HEADS / "toy-eagle3.json").read_text()
    assert json.loads(shipped) == json.loads((toy.HEAD / "config.json").read_text())
