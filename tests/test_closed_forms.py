"""Closed forms beside the simulation: they agree where they apply, and say why where not."""

from __future__ import annotations

import json

import pytest

from pdvsim import cli
from pdvsim.acceptance import Acceptance
from pdvsim.cell import Cell
from pdvsim.drafters import NoModel, head_for, prompt_work
from pdvsim.models import shape
from pdvsim.profile import Profile
from pdvsim.sweep import sweep
from pdvsim.theory.closed_forms import Line, closed_forms
from pdvsim.theory.formulas import expected_tokens
from tests.fakes import profile_file

ACCEPTANCE = Acceptance.constant(0.7, 4)


def lines(
    executor: str,
    architectures: tuple[str, ...],
    concurrency: int = 4,
    protocol: str = "closed-loop",
    rate_per_s: float | None = None,
    requests: int | None = None,
) -> dict[tuple[str, str], Line]:
    profile = Profile(profile_file(executor=executor))
    cells = [
        Cell(
            profile.pair.name,
            executor,
            name,
            concurrency,
            protocol=protocol,
            rate_per_s=rate_per_s,
            requests=requests,
            prompt_tokens=32,
            output_tokens=24,
            seed=1,
        )
        for name in architectures
    ]
    found = closed_forms(sweep(cells, profile, 4, workers=1), profile)
    return {(line.architecture, line.formula): line for line in found}


def test_expected_tokens_hold_with_a_bonus_token() -> None:
    line = lines("graph", ("pdv",))["pdv", "Leviathan E"]
    assert line.value == pytest.approx(expected_tokens(0.7, 4))
    assert line.error == pytest.approx(0.0, abs=0.05)


def test_expected_tokens_are_too_many_without_one() -> None:
    line = lines("eager", ("pdv",))["pdv", "Leviathan E"]
    assert line.error is not None
    assert line.error > 0.05
    assert "no bonus token" in line.why


def test_one_thread_is_a_station_of_its_demand() -> None:
    """Eager `plain`: one thread, one request at a time; MVA's throughput is 1 / demand."""
    line = lines("eager", ("plain",))["plain", "closed MVA"]
    assert line.error == pytest.approx(0.0, abs=0.1)


def test_one_worker_is_a_single_server_queue() -> None:
    line = lines("eager", ("baseline",), 1, "poisson", 0.5, 400)["baseline", "M/G/1"]
    assert line.simulated is not None
    assert line.simulated.low is not None
    assert line.simulated.high is not None
    assert line.simulated.low <= line.value <= line.simulated.high


def test_the_overlap_bound_is_one() -> None:
    found = lines("graph", ("plain", "pd", "pdv"), 8)
    for name in ("pd", "pdv"):
        error = found[name, "overlap bound"].error
        assert error is not None
        assert error > 0.0


def test_formulas_appear_where_they_apply() -> None:
    found = {formula for _, formula in lines("graph", ("plain",))}
    assert found == {"closed MVA"}
    found = {formula for _, formula in lines("graph", ("pdv",), 4, "poisson", 2.0)}
    assert found == {"Leviathan E", "Kong L = C1 / (1 - RPS C2)"}


def test_predict_prints_them(graph_profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["predict", "--concurrency", "2", "--profile", graph_profile]
    arguments += ["--replications", "2"]
    assert cli.run([*arguments, "--architecture", "plain,pdv", "--formulas", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {line["formula"] for line in document["formulas"]} >= {"TurboSpec goodput", "closed MVA"}
    assert all(line["why"] for line in document["formulas"])
    assert cli.run([*arguments, "--architecture", "plain,pdv", "--formulas"]) == 0
    assert "Leviathan" in capsys.readouterr().out


def test_a_heads_work_on_prompts_counts_in_the_overlap_bound() -> None:
    """It fuses the states of every prompt token, and its cache needs keys and values of them."""
    head = head_for(shape("llama-2-7b"))
    flops, moved = prompt_work(head)
    assert flops == 2 * (3 * 4096 * 4096 + 2 * 4096 * 2 * 4096 + 2 * 4096) == moved
    assert head.prompt_parameters > head.fusion_parameters
    assert prompt_work(shape("llama-2-7b"))[0] == shape("llama-2-7b").flops_per_token
    assert prompt_work(NoModel("ngram")) == (0, 0)
