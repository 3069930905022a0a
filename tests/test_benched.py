"""What a bench says of its host is read off launches alone, and what it cannot say is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pdvsim.acceptance import Acceptance
from pdvsim.cell import TraceFile
from pdvsim.des import HostCosts, simulate
from pdvsim.errors import InputError
from pdvsim.measured.benched import Bench, Benched, Hosts, check_predictable, read_bench
from pdvsim.measured.host_speed import gil_speed, host_factors, launches
from pdvsim.profile import HostState, Profile
from pdvsim.workload import Lengths, closed_loop
from tests.fakes import cell, config_of, profile_file

PROFILE = Profile(profile_file())


def a_run(architecture: str, slower: float = 1.0, gil: float = 0.6) -> dict[str, Any]:
    """A run on a host `slower` than calibrated, whose GIL leaves two threads `gil` each."""
    costs = PROFILE.draw(np.random.SeedSequence(3), HostState((slower,))).costs
    plan = closed_loop(8, Lengths(32, 16), Acceptance.constant(0.7, 4), np.random.SeedSequence(1))
    host = HostCosts(gil_speeds=(1.0, gil))
    return launches(simulate(config_of(architecture), plan, costs, host))


def test_the_hosts_speed_comes_back() -> None:
    run = a_run("pd", slower=1.3)
    assert host_factors(run, PROFILE) == pytest.approx([1.3] * 8, rel=0.04)


@pytest.mark.parametrize("architecture", ["pd", "three_lane"])
def test_the_gils_price_comes_back(architecture: str) -> None:
    run = a_run(architecture, slower=1.2, gil=0.6)
    assert gil_speed(run, PROFILE) == pytest.approx(0.6, rel=0.05)


def test_one_thread_says_nothing_of_the_gil() -> None:
    assert gil_speed(a_run("pdv"), PROFILE) is None


def test_a_cell_is_predicted_with_what_others_say_of_the_gil() -> None:
    cells = [Benched(cell("pd"), "pd", {}, [], [a_run("pd", gil=gil)], []) for gil in (0.5, 0.7)]
    hosts = Hosts([Bench(tuple(cells), {})], PROFILE)
    states = [hosts.of(one, one.runs) for one in cells]
    assert [*states[0].gil_speeds, *states[1].gil_speeds] == pytest.approx([0.7, 0.5], rel=0.05)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"pair": "tiny:tiny"}, "the bench ran pair tiny:tiny"),
        ({"executor": "graph"}, "the bench ran executor graph"),
        ({"acceptance": "real"}, "no drawn outcomes to predict with"),
        ({"protocol": "trace", "trace": TraceFile("/no/such.csv", "0")}, "cannot read the trace"),
    ],
)
def test_what_a_profile_cannot_predict_is_refused(changes: dict[str, Any], complaint: str) -> None:
    mine = cell("pd", pair=PROFILE.pair.name)
    check_predictable(mine, PROFILE)
    with pytest.raises(InputError, match=complaint):
        check_predictable(replace(mine, **changes), PROFILE)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not a whole JSON"),
        (json.dumps({"command": "bench", "cells": [{"runs": [{}]}]}), "lacks the key"),
        (json.dumps({"kind": "audit"}), "lacks the key"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "bench.json"
    path.write_text(content)
    with pytest.raises(InputError, match=complaint):
        read_bench(path)


@pytest.mark.parametrize("name", ["eager/h100_bench_0_c16", "graph/h100_bench_c8"])
def test_benches_of_earlier_versions_say_what_ran(name: str) -> None:
    path = Path(__file__).parents[1] / "results" / f"{name}.json"
    bench = read_bench(path)
    assert {one.cell.pair for one in bench.cells} == {"tinyllama-1.1b:llama-2-7b"}
    assert {one.cell.executor for one in bench.cells} == {path.parent.name}
    assert all(one.cell.config() for one in bench.cells)
    first = bench.cells[0].records[0]
    assert first.parent == path.parent and first.name.endswith("-0")
