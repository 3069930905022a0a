"""The command line as a person meets it: quick, one sentence per error, clean JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from pdvsim import cli
from pdvsim.quantities import METRICS

HEAVY = ("numpy", "scipy", "simpy", "polars", "pydantic", "rich", "altair", "torch")


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from pdvsim.cli import run; run(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not set(HEAVY) & set(done.stdout.split())


def test_help_lists_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    listed = capsys.readouterr().out
    for name in cli.COMMANDS:
        assert (f"  {name} " in listed) == cli.exists(name)
    assert cli.exists("predict")
    assert cli.exists("report")


def test_without_arguments_it_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 0
    assert "Commands:" in capsys.readouterr().out


OF_GROUPS = {"profiles": ("list", "show", "compare", "check")}


@pytest.mark.parametrize(
    "name",
    [f"{name} {one}".strip() for name in cli.COMMANDS for one in OF_GROUPS.get(name, ("",))],
)
def test_every_command_has_help_and_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert cli.run([*name.split(), "--help"]) == 0
    except ModuleNotFoundError as error:
        pytest.skip(f"{name} needs {error.name}")
    assert "--json" in capsys.readouterr().out


def test_predict_prints_one_json_document(
    profile: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    report = tmp_path / "out.html"
    arguments = ["predict", "--concurrency", "3", "--profile", profile, "--output-tokens", "8"]
    arguments += ["--replications", "2", "--report", str(report), "--slo-ttft-ms", "100", "--json"]
    assert cli.run(arguments) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert captured.out.count("\n") == 1
    assert captured.err == ""
    assert [cell["label"] for cell in document["cells"]] == [
        "plain",
        "baseline",
        "pd",
        "three_lane",
        "pdv",
        "continuous",
    ]
    for cell in document["cells"]:
        assert cell["cell"]["executor"] == "eager"
        assert cell["cell"]["pair"] == "tinyllama-1.1b:llama-2-7b"
        assert cell["cell"]["protocol"] == "closed-loop"
        assert cell["cell"]["concurrency"] == cell["concurrency"] == 3
        assert cell["extrapolated"] == []
        for name in METRICS:
            metric = cell["metrics"][name]
            assert metric is None or set(metric) == {"value", "low", "high"}
            assert metric is not None or name in cell["reasons"]
        throughput = cell["metrics"]["output_throughput"]
        assert throughput["low"] <= throughput["value"] <= throughput["high"]
    assert document["profile"]["name"] == "made-up"
    assert document["notes"][0].startswith("Acceptance: injected")
    assert report.stat().st_size > 500_000


def test_predict_prints_a_row_per_architecture(
    profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["predict", "--concurrency", "100", "--profile", profile, "--replications", "2"]
    arguments += ["--output-tokens", "2", "--architecture", "pdv,plain", "--protocol", "pdverify"]
    assert cli.run(arguments) == 0
    printed = capsys.readouterr().out
    assert "plain" in printed
    assert "pdv" in printed
    assert "baseline" not in printed
    assert "Extrapolated: nothing" in printed
    assert "made up for tests" in printed


def test_same_seed_same_output(profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["predict", "--concurrency", "2", "--profile", profile, "--architecture", "pd"]
    outputs = []
    for _ in range(2):
        assert cli.run([*arguments, "--replications", "2", "--seed", "9", "--json"]) == 0
        outputs.append(json.loads(capsys.readouterr().out) | {"created": "then"})
    assert outputs[0] == outputs[1]


BAD = [
    (["nonsense"], "unknown command 'nonsense'; known are predict"),
    (["predict", "--nonsense"], "No such option"),
    (["predict", "--concurrency", "many", "PROFILE"], "write whole numbers, as in 8 or 1,8,32"),
    (["predict", "--concurrency", "0", "PROFILE"], "concurrency is 0"),
    (["predict", "--concurrency", "-1", "PROFILE"], "concurrency is -1"),
    (["predict", "--concurrency", "1000000000", "PROFILE"], "between 1 and"),
    (["predict", "--concurrency", "4", "--pair", "gpt:llama-2-7b"], "unknown model 'gpt'"),
    (["predict", "--concurrency", "4", "--pair", "llama"], "DRAFT:VERIFIER"),
    (["predict", "--concurrency", "4", "--profile", "nope"], "no profile 'nope'"),
    (["predict", "--concurrency", "4", "--architecture", "x", "PROFILE"], "known are plain"),
    (["predict", "--concurrency", "4", "--protocol", "x", "PROFILE"], "'closed-loop'"),
    (["predict", "--concurrency", "4", "--protocol", "poisson", "PROFILE"], "--rate is needed by"),
    (["predict", "--concurrency", "4", "--rate", "2", "PROFILE"], "only for the protocol"),
    (["predict", "--concurrency", "4", "--executor", "graph", "PROFILE"], "is for executor eager"),
    (["predict", "--concurrency", "4", "--report", "/no/such/x.html", "PROFILE"], "cannot write"),
    (["predict", "--concurrency", "4", "--acceptance", "2", "PROFILE"], "acceptance is 2.0"),
    (["predict", "--concurrency", "4", "--draft-tokens", "0", "PROFILE"], "--draft-tokens is 0"),
    (["predict", "--concurrency", "4", "--replications", "0", "PROFILE"], "replications is 0"),
    (["report", "/no/such.json", "-o", "x.html"], "cannot read"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(a) for a, _ in BAD])
@pytest.mark.parametrize("as_json", [False, True])
def test_bad_input_is_one_sentence(
    arguments: list[str],
    message: str,
    as_json: bool,
    profile: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [word for word in arguments if word != "PROFILE"]
    if len(given) < len(arguments):
        given += ["--profile", profile]
    assert cli.run([*given, "--json"] if as_json else given) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "not a whole JSON document"),
        (
            lambda text: text.replace('"schema_version": 3', '"schema_version": 7'),
            "calibrate again",
        ),
        (lambda text: text.replace("0.014", "0.001", 1), "changed since it was written"),
        (lambda text: text.replace('"wake_s"', '"woke_s"'), "wake_s"),
    ],
)
def test_a_damaged_profile_is_one_sentence(
    damage: object, message: str, profile: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert callable(damage)
    path = tmp_path / "damaged.json"
    path.write_text(damage(Path(profile).read_text()))
    assert cli.run(["predict", "--concurrency", "4", "--profile", str(path)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.slow
def test_ctrl_c_exits_with_130(profile: str) -> None:
    # More runs than there is time for.
    command = [*(sys.executable, "-m", "pdvsim", "predict"), "--replications", "10000"]
    process = subprocess.Popen(
        [*command, "--concurrency", "32", "--profile", profile],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that the signal can go to the group, as from a terminal
    )
    time.sleep(2.5)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "interrupted" in err
    assert "Traceback" not in err


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def needy() -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(cli, "exists", lambda name: True)
    monkeypatch.setattr(cli, "load", lambda name: SimpleNamespace(command=needy))
    assert cli.run(["bench"]) == 2
    assert "pip install 'pdvsim[engine]'" in capsys.readouterr().err


def test_a_missing_module_of_our_own_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def broken() -> None:
        raise ModuleNotFoundError("No module named 'pdvsim.x'", name="pdvsim.x")

    monkeypatch.setattr(cli, "exists", lambda name: True)
    monkeypatch.setattr(cli, "load", lambda name: SimpleNamespace(command=broken))
    with pytest.raises(ModuleNotFoundError):
        cli.run(["bench"])


def test_a_page_that_cannot_be_drawn_is_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pdvsim.destination.find_spec", lambda name: None)
    asked = ["predict", "--profile", "none such", "--report", str(tmp_path / "page.html")]
    assert cli.run(asked) == 2
    assert "--report needs the package 'altair'" in capsys.readouterr().err
