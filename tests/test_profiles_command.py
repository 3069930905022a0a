"""`pdvsim profiles`: lists, shows, compares, and finds what cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pdvsim import cli
from pdvsim.core import Stage
from pdvsim.gpus import called, gpus
from pdvsim.profile import Profile, load_profile, save_profile, shipped_profiles
from pdvsim.profile_file import Ceilings, ContentionFit, Estimate, ProfileFile
from pdvsim.profiles.checks import OLD_DAYS, findings
from pdvsim.profiles.compared import differences
from tests.fakes import profile_file

GRAPH = "h100_tinyllama-1.1b_llama-2-7b_graph"
Change = Callable[[ProfileFile], ProfileFile]


def asked(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    assert cli.run(["profiles", *arguments, "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_list_names_what_ships(capsys: pytest.CaptureFixture[str]) -> None:
    rows = asked(capsys, "list")["profiles"]
    assert [row["name"] for row in rows] == list(shipped_profiles())
    assert cli.run(["profiles", "list"]) == 0
    printed = capsys.readouterr().out
    assert all(row["name"] in printed for row in rows)


def test_a_profile_is_shown_with_costs_floors_and_ranges(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = asked(capsys, "show", GRAPH)
    assert shown["gpu"].startswith("NVIDIA H100")
    for row in shown["stages"]:
        assert row["device_s"]["low"] < row["device_s"]["value"] < row["device_s"]["high"]
        assert row["device_s"]["value"] >= row["floor_s"] > 0.0
        low, high = row["measured"]["batch"]
        assert low <= row["batch"] <= high
    assert cli.run(["profiles", "show", GRAPH]) == 0
    assert "prefill_verifier" in capsys.readouterr().out


def test_a_profile_does_not_differ_from_itself(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, "compare", GRAPH, GRAPH)
    assert found["differences"] and found["said"] == []
    assert all(one["ratio"]["value"] == 1.0 and not one["certain"] for one in found["differences"])


def test_a_slower_host_is_found_and_the_device_is_not_blamed() -> None:
    first = load_profile(GRAPH)
    slower = {
        stage: fit.model_copy(
            update={
                "host": fit.host.model_copy(
                    update={
                        "weights": [2.0 * weight for weight in fit.host.weights],
                        "draws": [[2.0 * weight for weight in row] for row in fit.host.draws],
                    }
                )
            }
        )
        for stage, fit in first.file.stages.items()
    }
    second = Profile(first.file.model_copy(update={"stages": slower}))
    for one in differences(first, second):
        assert one.ratio.value == pytest.approx(2.0 if one.part == "host" else 1.0)
        assert not one.certain or one.part == "host"


def test_what_ships_has_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, "check")["profiles"]
    assert found.keys() == shipped_profiles().keys()
    assert not any(finding["fault"] for each in found.values() for finding in each)


def device_scaled(factor: float) -> Change:
    def change(file: ProfileFile) -> ProfileFile:
        fit = file.stages[Stage.VERIFY]
        device = fit.device.model_copy(
            update={"weights": [factor * weight for weight in fit.device.weights]}
        )
        stages = {**file.stages, Stage.VERIFY: fit.model_copy(update={"device": device})}
        return file.model_copy(update={"stages": stages})

    return change


def without_decode(file: ProfileFile) -> ProfileFile:
    stages = {stage: fit for stage, fit in file.stages.items() if stage is not Stage.DECODE}
    return file.model_copy(update={"stages": stages})


def faster_in_company(file: ProfileFile) -> ProfileFile:
    speed = Estimate(value=1.3, low=1.2, high=1.4)
    stages = {"stage": Stage.VERIFY, "other": Stage.DRAFT}
    pair = ContentionFit(**stages, rows=8, prompt_tokens=0, speed=speed)
    return file.model_copy(update={"contention": [pair]})


def beyond_the_vendor(file: ProfileFile) -> ProfileFile:
    rates = Ceilings(copy_bytes_per_s=9e12, matmul_flops_per_s=800e12)
    return file.model_copy(update={"ceilings": rates})


def faster_threads(file: ProfileFile) -> ProfileFile:
    speeds = [Estimate(value=v, low=v, high=v) for v in (1.0, 0.4, 0.6)]
    return file.model_copy(update={"host": file.host.model_copy(update={"gil_speeds": speeds})})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (device_scaled(0.5), "of what its bytes and FLOPs need"),
        (without_decode, "no costs of decode"),
        (faster_in_company, "Faster in company than alone: verify beside draft"),
        (beyond_the_vendor, "of the vendor's peak"),
        (faster_threads, "More launching threads are faster each"),
    ],
)
def test_what_cannot_be_is_a_fault(
    change: Change, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.json"
    save_profile(change(load_profile(GRAPH).file), path)
    (found,) = asked(capsys, "check", str(path), code=1)["profiles"].values()
    assert any(one["fault"] and says in one["sentence"] for one in found)
    assert cli.run(["profiles", "check", str(path)]) == 1
    assert "FAULT" in capsys.readouterr().out


def test_an_old_profile_is_told() -> None:
    profile = Profile(profile_file())
    created = datetime.fromisoformat(profile.file.provenance.created).replace(tzinfo=UTC)
    for days, told in ((OLD_DAYS - 1, False), (OLD_DAYS + 1, True)):
        said = [one.sentence for one in findings(profile, created + timedelta(days=days))]
        assert any("days old" in sentence for sentence in said) is told


def test_what_cannot_be_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.json").write_text("{}")
    assert cli.run(["profiles", "check", str(tmp_path / "p.json")]) == 2
    assert "not a pdvsim profile" in capsys.readouterr().err
    assert cli.run(["profiles", "show", "nothing"]) == 2


def test_gpus_are_known_by_name_and_by_driver() -> None:
    assert called("NVIDIA H100 80GB HBM3") is gpus()["h100"]
    assert called("a graphics card") is None
    assert all(gpu.source and gpu.memory_bytes > 1e9 for gpu in gpus().values())
    assert gpus()["h200"].copy_bytes_per_s > gpus()["h100"].copy_bytes_per_s
