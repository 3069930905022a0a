"""A profile on another GPU: floors move with its rates, the rest between staying and following."""

from __future__ import annotations

import json
import pickle
from itertools import pairwise

import numpy as np
import pytest

import pdvsim
from pdvsim import cli
from pdvsim.core import Stage
from pdvsim.errors import InputError
from pdvsim.gpus import gpus
from pdvsim.machine import Machine
from pdvsim.profile import Profile, load_profile
from pdvsim.profiles.stages import launch
from pdvsim.transfer import Transferred, transferred
from tests.fakes import profile_file

H100 = load_profile("h100_tinyllama-1.1b_llama-2-7b_graph")


def seeds(count: int) -> list[np.random.SeedSequence]:
    return [np.random.SeedSequence(3, spawn_key=(i, 1)) for i in range(count)]


def costs(machine: Machine, batch: int) -> dict[Stage, tuple[float, float]]:
    stages = H100.file.stages
    return {
        stage: machine.costs.cost(stage, launch(stage, fit.measured, batch))
        for stage, fit in stages.items()
    }


def same_rates() -> Transferred:
    rates = H100.file.ceilings
    assert rates is not None
    copy, matrix = rates.copy_bytes_per_s / 1e12, rates.matmul_flops_per_s / 1e12
    return transferred(H100, f"twin@copy_tb_s={copy!r},matrix_tflops={matrix!r}")


def test_to_its_own_rates_a_profile_stays_what_it_was() -> None:
    twin = same_rates()
    for seed in seeds(4):
        here, there = costs(H100.draw(seed), 8), costs(twin.draw(seed), 8)
        for stage in here:
            assert there[stage][0] == here[stage][0]
            assert there[stage][1] == pytest.approx(here[stage][1], rel=0.05)


@pytest.mark.parametrize("batch", [1, 32, 256])
def test_nothing_beats_the_other_gpus_floor_and_the_host_stays(batch: int) -> None:
    for gpu in ("h200", "a100", "l4"):
        there = transferred(H100, gpu)
        for seed in seeds(4):
            mine, theirs = costs(H100.draw(seed), batch), costs(there.draw(seed), batch)
            for stage, (host_s, device_s) in theirs.items():
                work = launch(stage, H100.file.stages[stage].measured, batch)
                assert host_s == mine[stage][0]
                assert device_s > 0.75 * there.file.floor(stage).seconds(work)


def test_slower_memory_is_never_faster_and_what_multiplies_does_not_care_for_it() -> None:
    machines = [
        transferred(H100, f"x@copy_tb_s={rate},matrix_tflops=797").draw(seeds(1)[0])
        for rate in (1.0, 2.0, 4.0, 8.0)
    ]
    verify = [costs(machine, 1)[Stage.VERIFY][1] for machine in machines]
    assert all(slow > fast for slow, fast in pairwise(verify))
    prefill = [costs(machine, 64)[Stage.PREFILL_VERIFIER][1] for machine in machines]
    assert prefill == pytest.approx([prefill[0]] * 4)


def test_machines_differ_more_than_measured_ones() -> None:
    def spread(profile: Profile) -> float:
        times = [costs(profile.draw(seed), 8)[Stage.DECODE][1] for seed in seeds(64)]
        return float(np.std(np.log(times)))

    read = transferred(H100, "h200@copy_tb_s=4.3,matrix_tflops=780")
    assert spread(H100) < spread(read) < spread(transferred(H100, "h200")) < 0.15


def test_memory_is_that_of_the_other_gpu() -> None:
    there = transferred(H100, "h200")
    assert there.memory is not None
    assert there.memory.total_bytes == gpus()["h200"].memory_bytes
    assert there.draw(seeds(1)[0]).memory == there.memory
    small = transferred(H100, "h200@memory_gb=20").memory
    assert small is not None and small.total_bytes == 20_000_000_000


def test_a_draw_is_the_same_in_another_process() -> None:
    there = transferred(H100, "a100")
    again = pickle.loads(pickle.dumps(there))
    assert costs(again.draw(seeds(9)[8]), 8) == costs(there.draw(seeds(9)[8]), 8)


@pytest.mark.parametrize(
    ("gpu", "says"),
    [
        ("h300", "unknown GPU 'h300'; known are h100, "),
        ("h200@speed=3", "a GPU has no reading 'speed'"),
        ("h200@copy_tb_s=fast", "it must be a number above 0"),
        ("mine@copy_tb_s=3", "unknown GPU 'mine'"),
    ],
)
def test_what_is_no_gpu_is_refused(gpu: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        transferred(H100, gpu)


def test_a_profile_without_rates_goes_nowhere() -> None:
    with pytest.raises(InputError, match="holds no copy and matrix rate"):
        transferred(Profile(profile_file()), "h200")


def test_the_answer_says_that_it_is_transferred(capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--architecture", "plain", "--concurrency", "2", "--output-tokens", "8"]
    asked = ["predict", "--gpu", "h200", "--replications", "2", *short]
    assert cli.run([*asked, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["profile"]["transferred_from"] == "NVIDIA H100 80GB HBM3"
    assert document["profile"]["gpu"] == "NVIDIA H200" and "NVIDIA H200" in document["valid_for"]
    assert any("transferred from NVIDIA H100" in one for one in document["verdict"]["caveats"])
    assert document["notes"][0].startswith("Transferred, not measured")
    assert cli.run([*asked, "--formulas"]) == 2
    assert "--formulas knows measured costs only" in capsys.readouterr().err


def test_python_transfers_too() -> None:
    there = pdvsim.transferred(H100, "h200")
    found = pdvsim.predict(there, pdvsim.closed_loop(4, output_tokens=8), "plain", replications=2)
    assert found.profile.transferred_from is not None
