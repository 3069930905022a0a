"""Profiles: validation at load, draws, ranges; and those that ship."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from pdvsim.core import EAGER, GRAPH, Stage
from pdvsim.documents import read
from pdvsim.errors import InputError, ProfileError
from pdvsim.models import SHIPPED as SHIPPED_MODELS
from pdvsim.models import ModelShape, Pair, Rope
from pdvsim.profile import (
    DEVICE_SPREAD,
    HOST_SPREAD,
    RUN_SPREAD,
    HostState,
    Profile,
    load_profile,
    save_profile,
    select_profile,
    shipped_profiles,
)
from pdvsim.profile_file import ProfileFile
from pdvsim.work import uniform_work
from tests.fakes import profile_file

EAGER_PROFILE = "h100_tinyllama-1.1b_llama-2-7b_eager"
OLDER_PROFILE = "h100_tinyllama-1.1b_codellama-34b_graph"
WORK = uniform_work(EAGER, Stage.VERIFY, 1, 5, 100)


def digest(content: object) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "p.json"
    save_profile(profile_file(), path)
    return path


def test_what_was_saved_is_loaded(path: Path) -> None:
    assert load_profile(str(path)).file == profile_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(name="other"), "changed since it was written"),
        (lambda d: d.update(schema_version=4), "schema version 4"),
        (lambda d: d["draft"].update(heads=7), "heads"),
        (lambda d: d["verifier"].update(color="red"), "color"),
        (lambda d: d.pop("draft"), "draft"),
        (lambda d: d.update(color="red"), "color"),
        (lambda d: d.pop("host"), "host"),
        (lambda d: d.pop("schema_version"), "not a pdvsim profile"),
    ],
)
def test_an_edited_profile_is_refused(path: Path, change, message: str) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(ProfileError, match=message):
        load_profile(str(path))


def test_earlier_versions_are_read(path: Path) -> None:
    """Version 1 named the pair that version 2 holds; both said what a whole draft stage takes."""
    second = json.loads(shipped_profiles()[EAGER_PROFILE].read_text())
    assert second.pop("schema_version") == 2 and second.pop("digest")
    older = {k: v for k, v in second.items() if k not in ("draft", "verifier")}
    older |= {"schema_version": 1, "pair": "tinyllama-1.1b:llama-2-7b"}
    path.write_text(json.dumps(older | {"digest": digest(older)}))
    assert load_profile(str(path)).file == load_profile(EAGER_PROFILE).file
    older["pair"] = "tiny:nosuch"
    path.write_text(json.dumps(older | {"digest": digest(older)}))
    with pytest.raises(ProfileError, match="unknown model 'nosuch'"):
        load_profile(str(path))


def test_a_draft_stage_of_an_earlier_version_is_so_many_equal_passes() -> None:
    document = json.loads(shipped_profiles()[OLDER_PROFILE].read_text())
    assert document["schema_version"] == 2 and document["draft_tokens"] == 4
    old = document["stages"]["draft"]["device"]
    weights = dict(zip(old["terms"], old["weights"], strict=True))
    file = load_profile(OLDER_PROFILE).file

    def seconds(drafts: int) -> float:
        work = uniform_work(GRAPH, Stage.DRAFT, 32, 32 * drafts, 32 * 300)
        return file.stages[Stage.DRAFT].device_s(work)

    at_four = weights["fixed"] + 32 * 4 * weights["per_query_token"]
    at_four += 32 * weights["per_request"] + 32 * 300 * weights["per_context_token"]
    at_four += sum(
        weights[f"query_above_{place}"] * max(0, 128 - place) for place in (64, 128, 256, 512)
    )
    assert seconds(4) == pytest.approx(at_four)
    for drafts in (1, 2, 8, 16):
        assert seconds(drafts) == pytest.approx(at_four * drafts / 4)


def test_a_profile_carries_the_shapes_of_models_that_do_not_ship(tmp_path: Path) -> None:
    draft, verifier = (
        ModelShape(name, 2, 48, 4, 2, 96, 128, head_size=16, qk_norm=True, rope=Rope(1e6, 8.0))
        for name in ("one", "two")
    )
    file = profile_file().model_copy(update={"draft": draft, "verifier": verifier})
    save_profile(file, tmp_path / "p.json")
    profile = load_profile(str(tmp_path / "p.json"))
    assert profile.pair == Pair(draft, verifier)
    assert profile.provenance["pair"] == "one:two"


def test_a_profile_serves_other_names_of_the_same_dimensions(tmp_path: Path, path: Path) -> None:
    config = SHIPPED_MODELS / "llama-2-7b.json"
    same, other = f"tiny:mine={config}", f"mine={config}:mine={config}"
    assert select_profile(str(path), f"TinyLlama-1.1B:mine={config}", None)
    for reference in (same, other):
        with pytest.raises(InputError, match=r"is for pair .*draft: layers 22 against"):
            select_profile(str(path), reference, None)


def test_the_shipped_profile_of_the_same_dimensions_is_found() -> None:
    config = SHIPPED_MODELS / "llama-2-7b.json"
    profile = select_profile(None, f"tinyllama-1.1b:mine={config}", "eager")
    assert profile.name == "h100_tinyllama-1.1b_llama-2-7b_eager"


def test_a_truncated_profile_is_refused(path: Path) -> None:
    path.write_text(path.read_text()[:-40])
    with pytest.raises(ProfileError, match="not a whole JSON document"):
        load_profile(str(path))


def test_the_same_seed_draws_the_same_machine() -> None:
    profile = Profile(profile_file())
    first, second = (
        profile.draw(np.random.SeedSequence(5)).costs.cost(Stage.VERIFY, WORK) for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize(
    "missed", [{"residual_rms": 0.2}, {"residual_rms": 0.05, "left_out_rms": 0.2}]
)
def test_machines_differ_by_what_the_fit_misses(missed: dict[str, float]) -> None:
    file = profile_file()
    stage = file.stages[Stage.VERIFY]
    device = stage.device.model_copy(update={**missed, "noise": [1.0]})
    stages = {Stage.VERIFY: stage.model_copy(update={"device": device})}
    profile = Profile(file.model_copy(update={"stages": stages}))
    seeds = np.random.SeedSequence(1).spawn(400)
    seconds = [profile.draw(seed).costs.cost(Stage.VERIFY, WORK)[1] for seed in seeds]
    assert np.std(np.log(seconds)) == pytest.approx(0.2, rel=0.15)
    assert np.median(seconds) == pytest.approx(0.016, rel=0.05)


def test_another_machine_differs_in_its_host_and_a_little_in_its_device() -> None:
    file = profile_file()
    stages = {
        stage: fit.model_copy(
            update={
                "host": fit.host.model_copy(update={"noise": [1.0]}),
                "device": fit.device.model_copy(update={"noise": [1.0], "residual_rms": 0.0}),
            }
        )
        for stage, fit in file.stages.items()
    }
    profile = Profile(file.model_copy(update={"stages": stages}))
    machines = [profile.draw(seed) for seed in np.random.SeedSequence(1).spawn(128)]
    costs = np.log([[m.costs.cost(s, WORK) for s in stages] for m in machines])
    host, device = costs[:, :, 0], costs[:, :, 1]
    spread = np.hypot(HOST_SPREAD[file.executor], file.host.run_spread)
    assert host.std(axis=0) == pytest.approx(spread, rel=0.15)
    bootstrap = 0.01 * np.sqrt(2.0)  # of the made-up draws
    assert device.std(axis=0) == pytest.approx(
        np.linalg.norm([DEVICE_SPREAD, RUN_SPREAD, bootstrap]), rel=0.15
    )
    wakes = np.log([m.host.wake_s for m in machines])
    assert np.corrcoef([host[:, 0], host[:, -1], wakes]).min() > 0.9  # one host, not one a stage


def test_what_a_known_host_is_needs_no_spread() -> None:
    profile = Profile(profile_file())
    state = HostState((1.0,))
    seeds = np.random.SeedSequence(1).spawn(64)
    wakes = [profile.draw(seed, state).host.wake_s for seed in seeds]
    assert np.std(np.log(wakes)) < 0.2


def test_the_measured_spread_is_the_one_used() -> None:
    found = json.loads((Path(__file__).parents[1] / "results/machine_spread.json").read_text())
    host = found["host factor of another host"]
    assert HOST_SPREAD["graph"] == pytest.approx(
        found["host, two hosts apart"]["graph"]["log_rms"], abs=0.005
    )
    assert HOST_SPREAD["eager"] == pytest.approx(host["eager"]["log_rms"], abs=0.005)
    device = found["device, two hosts apart"]["stages of plain"]["log_rms"]
    assert pytest.approx(device, abs=0.0005) == DEVICE_SPREAD


def test_runs_lie_as_far_from_their_stages_as_measured_ones() -> None:
    folder = Path(__file__).parents[1] / "results/graph"
    errors = []
    for name in ("validate.json", "validate_seed_7.json"):
        for row in read(folder / name).cells:
            error = row.errors["output_throughput"]
            errors.append(abs(np.log1p(error)))
    assert len(errors) == 35
    assert np.median(errors) / 0.6745 == pytest.approx(RUN_SPREAD, abs=0.002)


def test_a_known_host_factor_scales_host_time_only() -> None:
    profile = Profile(profile_file())
    one, two = (
        profile.draw(np.random.SeedSequence(5), state).costs.cost(Stage.VERIFY, WORK)
        for state in (HostState((1.0,)), HostState((2.0,)))
    )
    assert two[0] == pytest.approx(2 * one[0]) and two[1] == one[1]


@pytest.mark.parametrize("name", sorted(shipped_profiles()))
def test_shipped_profiles_load_and_say_where_they_come_from(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert "H100" in profile.provenance["gpu"]
    assert profile.file.ceilings is not None


def test_a_profile_of_another_pair_is_refused() -> None:
    with pytest.raises(InputError, match="is for pair"):
        select_profile("h100_tinyllama-1.1b_llama-2-7b_graph", "tinyllama-1.1b:codellama-34b", None)


def test_no_profile_ships_for_every_pair() -> None:
    with pytest.raises(ProfileError, match="no profile"):
        select_profile(None, "tiny:tiny", "graph")


def test_a_stage_is_never_faster_than_its_floor() -> None:
    """The shipped batched costs respect the bytes they must move."""
    for name in shipped_profiles():
        file: ProfileFile = load_profile(name).file
        if file.executor != "graph" or file.ceilings is None:
            continue
        verifier = load_profile(name).pair.verifier
        floor_s = verifier.floor_s(
            5, 256, file.ceilings.copy_bytes_per_s, file.ceilings.matmul_flops_per_s
        )
        work = uniform_work(GRAPH, Stage.VERIFY, 1, 5, 256)
        assert file.stages[Stage.VERIFY].device_s(work) > floor_s
