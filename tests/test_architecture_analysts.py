"""An architecture is written once, for its analysts too: they ask it, and never its name.

Every architecture gives the same answers under another name; a sixth one, a file outside the
package, works in every command; and no other file names an architecture.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pdvsim import cli
from pdvsim.ablate import Setting, Subject, ablate, mechanisms
from pdvsim.architectures import ARCHITECTURES, Config, architecture, registry
from pdvsim.asked import Reference
from pdvsim.core import EXECUTORS, Executor, Stage
from pdvsim.des import simulate
from pdvsim.des.contention import Speeds
from pdvsim.errors import InputError
from pdvsim.explain import explain_run, of_record
from pdvsim.invariants import check
from pdvsim.pdverify.protocol import pdverify
from pdvsim.profile import Profile
from pdvsim.record_files import read
from pdvsim.sweep import sweep
from pdvsim.theory.closed_forms import closed_forms
from pdvsim.workload import Lengths, closed_loop
from tests.fakes import ACCEPTANCE, HOST, FixedCosts, cell, config_of, profile_file

ROOT = Path(__file__).parents[1]
SIXTH = Path(__file__).with_name("joining.py")
EVERY = pytest.mark.parametrize("name", list(ARCHITECTURES))
BOTH = pytest.mark.parametrize("executor", list(EXECUTORS.values()), ids=list(EXECUTORS))
BESIDE = {(a, b): Speeds.constant(0.8) for a in Stage for b in Stage}


@pytest.fixture
def alias(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same programs under another name."""
    monkeypatch.setitem(ARCHITECTURES, "other", replace(ARCHITECTURES[name], name="other"))
    return "other"


def setting(name: str, executor: Executor, seed: int = 0) -> Setting:
    seeds = np.random.SeedSequence(seed)
    plan = closed_loop(4, Lengths(8, 6, 0.5), ACCEPTANCE, seeds, cycles=1, measured=6)
    return Setting(config_of(name, executor, 3), plan, FixedCosts(), HOST, BESIDE)


@BOTH
@EVERY
def test_another_name_is_explained_alike(name: str, alias: str, executor: Executor) -> None:
    plan = pdverify(16, Lengths(10, 30), ACCEPTANCE, np.random.SeedSequence(1))
    costs = FixedCosts(0.02, 0.01)
    one, other = (
        explain_run(
            of_record(
                simulate(config_of(who, executor, 4, prefill_batch=2), plan, costs, HOST, BESIDE)
            )
        )
        for who in (name, alias)
    )
    assert one == other


@BOTH
@EVERY
def test_another_name_is_ablated_alike(name: str, alias: str, executor: Executor) -> None:
    one, other = (
        ablate(
            [Subject("it", [lambda who=who: setting(who, executor)])],  # type: ignore[misc]
            "median_e2el_ms",
            workers=1,
        )
        for who in (name, alias)
    )
    assert one == other


@EVERY
def test_another_name_has_the_same_formulas_and_colour(name: str, alias: str) -> None:
    charts = pytest.importorskip("reports.charts")
    assert charts.colours([name]) == charts.colours([alias])
    profile = Profile(profile_file(executor="graph"))
    lines = []
    for who in (name, alias):
        cells = [cell(each, "graph", seed=1, output_tokens=8) for each in ("plain", who)]
        found = closed_forms(sweep(cells, profile, 1, workers=1), profile)
        lines.append([(line.formula, line.value, line.why) for line in found])
    assert lines[0] == lines[1]


def test_no_other_file_names_an_architecture() -> None:
    """But the published tables, whose engines have names of their own."""
    named = re.compile(rf"[\"']({'|'.join(ARCHITECTURES)})[\"']")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for package in ("pdvsim", "reports", "realengine", "calibration")
        for path in (ROOT / package).rglob("*.py")
        if not path.is_relative_to(ROOT / "pdvsim" / "architectures")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if named.search(line) and "ARCHITECTURE_OF" not in line
    ]
    assert found == []


def test_the_switched_off_side_starts_from_the_users_parameters() -> None:
    """Prefills in a lane of their own keep the batch that the user asked for."""
    plan = closed_loop(12, Lengths(16, 12), ACCEPTANCE, np.random.SeedSequence(0))
    config = config_of("pdv", EXECUTORS["graph"], 12, prefill_batch=4)
    start = Setting(config, plan, FixedCosts(), HOST, {})
    off = ["prefill in the worker's turn"]
    found = ablate([Subject("it", [lambda: start])], "output_throughput", off, workers=1)
    lane = replace(config, switched_off=frozenset(off))
    speeds = [
        sum(r.produced_tokens for r in record.requests) / record.end_s
        for record in (simulate(c, plan, FixedCosts(), HOST) for c in (config, lane))
    ]
    assert np.exp(found.parts[0].alone.value) == pytest.approx(speeds[0] / speeds[1], rel=0.05)
    assert architecture("pdv").lanes(lane).parameters.prefill_batch == 4


# The sixth


@BOTH
def test_the_sixth_keeps_its_books_in_the_simulated_world(executor: Executor) -> None:
    config = Config(str(SIXTH), executor, batch_cap=4)
    plan = closed_loop(6, Lengths(16, 12, 0.5), ACCEPTANCE, np.random.SeedSequence(2))
    record = simulate(config, plan, FixedCosts(), HOST)
    check(record)
    assert len(record.shut_s) > 0  # six in flight, four in service
    assert explain_run(of_record(record)).causes["admission hold"] > 0.0


@BOTH
def test_the_sixth_keeps_its_books_in_the_real_world(executor: Executor) -> None:
    world = pytest.importorskip("realengine.world")
    from tests.engines import ScriptedEngine
    from tests.fakes import TableCosts

    engine = ScriptedEngine(executor, 4, TableCosts(dict.fromkeys(Stage, 5e-4)))
    plan = closed_loop(6, Lengths(16, 12, 0.5), ACCEPTANCE, np.random.SeedSequence(2))
    record = world.run(Config(str(SIXTH), executor, batch_cap=4), plan, engine)
    check(record)
    assert len(record.shut_s) > 0
    assert sum(explain_run(of_record(record)).causes.values()) > 0.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        "predict --concurrency 3 --architecture plain,SIXTH --formulas",
        "explain --concurrency 3 --architecture pd,SIXTH",
        "ablate --concurrency 3 --architecture pd,SIXTH",
        "crossover pd SIXTH@prefill_batch=2 --to 4 --points 2",
    ],
)
def test_the_sixth_works_in_every_command(
    arguments: str, profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = f"--prompt-tokens 8 --output-tokens 8 --replications 4 --profile {profile}"
    call = [*arguments.replace("SIXTH", str(SIXTH)).split(), *short.split()]
    assert cli.run([*call, "--json"]) == 0
    text = capsys.readouterr().out
    assert "joining" in text
    (tmp_path / "result.json").write_text(text)
    page = tmp_path / "page.html"
    assert cli.run(["report", str(tmp_path / "result.json"), "-o", str(page)]) == 0
    assert "joining" in page.read_text(encoding="utf-8")
    if arguments.startswith(("predict", "explain")):
        assert architecture(str(SIXTH)).colour in page.read_text(encoding="utf-8")
    capsys.readouterr()
    assert cli.run(call) == 0
    assert "joining" in capsys.readouterr().out


def test_no_code_is_run_to_read_the_sixths_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = closed_loop(3, Lengths(8, 8), ACCEPTANCE, np.random.SeedSequence(2))
    record = simulate(Config(str(SIXTH), EXECUTORS["eager"]), plan, FixedCosts(), HOST)
    record.write(tmp_path, "run")
    assert read(tmp_path / "run")[0].config == record.config
    monkeypatch.setattr(registry, "_of_file", None)
    monkeypatch.setattr(registry, "_BY_REFERENCE", {})  # as in another process
    assert cli.run(["explain", "--records", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cells"][0]["label"] == "joining"


def test_the_documentation_shows_the_sixth() -> None:
    text = (ROOT / "docs" / "add_an_architecture.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert block is not None and block[1] == SIXTH.read_text(encoding="utf-8")
    code = re.sub(r'^""".*?"""|^from [^(\n]*\(.*?\)$|^from .*?$', "", block[1], flags=re.M | re.S)
    assert len([line for line in code.splitlines() if line.strip()]) < 40


def test_a_side_shows_its_name() -> None:
    assert Reference.parse(f"{SIXTH}@prefill_batch=2").text == "joining@prefill_batch=2"
    assert Reference.parse("PDV").text == "pdv"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no Architecture; a file names it ARCHITECTURE"),
        ("ARCHITECTURE = 7", "holds no Architecture"),
        ("import nothing_like_that", "ModuleNotFoundError: No module named 'nothing_like_that'"),
        ("1 +", "SyntaxError"),
        (
            "from pdvsim.architectures.pd import ARCHITECTURE",
            "calls its architecture 'pd', as another is called; rename it",
        ),
    ],
)
def test_a_file_that_holds_none_is_refused(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(says)):
        architecture(str(path))
    with pytest.raises(InputError, match="there is no such file to take an architecture from"):
        architecture(str(tmp_path / "nowhere.py"))


def test_an_installed_package_offers_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs.py").write_text(
        SIXTH.read_text(encoding="utf-8").replace('name="joining"', 'name="theirs"')
    )
    info = tmp_path / "theirs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\ntheirs = theirs:ARCHITECTURE\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "_BY_REFERENCE", {})
    assert architecture("Theirs").name == "theirs"
    assert Config("theirs", EXECUTORS["eager"]).architecture == "theirs"
    with pytest.raises(
        InputError, match=r"known are plain, .*, pdv, continuous, theirs, and a Python file"
    ):
        architecture("ours")


def test_mechanisms_are_those_of_the_architectures() -> None:
    mine = mechanisms([setting(str(SIXTH), EXECUTORS["eager"])])
    assert "admission limit" in mine and "batch-end completion" not in mine
