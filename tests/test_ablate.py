"""Parts add up, mechanisms do what they say, and what plays no part gets none."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdvsim.ablate import Setting, Subject, ablate, mechanisms, without
from pdvsim.ablate.shapley import jackknife, shapley_weights
from pdvsim.acceptance import Acceptance
from pdvsim.architectures import ARCHITECTURES
from pdvsim.cli import run as pdvsim
from pdvsim.core import EXECUTORS, Executor
from pdvsim.des import simulate
from pdvsim.errors import InputError
from pdvsim.statistics import prediction_interval
from pdvsim.workload import Lengths, closed_loop
from tests.fakes import HOST, FixedCosts, config_of

ACCEPTANCE = Acceptance.constant(0.7, 4)
THREADS = ["GIL", "draft model's lock", "verifier's lock"]


def setting(architecture: str, concurrency: int, index: int) -> Setting:
    return Setting(
        config_of(architecture, batch_cap=concurrency),
        closed_loop(concurrency, Lengths(16, 12), ACCEPTANCE, np.random.SeedSequence(index)),
        FixedCosts(),
        HOST,
        {},
    )


def subject(architecture: str, concurrency: int = 4, replications: int = 3) -> Subject:
    makers = [partial(setting, architecture, concurrency, i) for i in range(replications)]
    return Subject(architecture, makers)


def test_parts_add_up_to_the_whole() -> None:
    found = ablate([subject("pd"), subject("pdv")], "median_e2el_ms", workers=1)
    assert sum(part.shapley.value for part in found.parts) == pytest.approx(found.whole.value)
    assert sum(part.share.value for part in found.parts) == pytest.approx(1.0)
    assert found.parts[-1].name == "everything else"


def test_pdv_without_its_mechanisms_is_pd() -> None:
    """Relieved of prefills, completing at once and never asleep, the worker does what pd does."""
    found = ablate([subject("pd"), subject("pdv")], "mean_e2el_ms", workers=1)
    assert abs(found.parts[-1].shapley.value) < 0.002 < abs(found.whole.value)


def test_one_cell_alone_is_measured_against_itself_without_mechanisms() -> None:
    found = ablate([subject("three_lane")], "median_e2el_ms", THREADS, workers=1)
    assert found.first is None
    assert found.whole.value > 0.0  # threads cost time
    assert found.parts[-1].shapley.value == 0.0
    assert sum(part.shapley.value for part in found.parts) == pytest.approx(found.whole.value)


def test_a_single_thread_has_no_gil_and_no_locks_to_ablate() -> None:
    with pytest.raises(InputError, match="none of the mechanisms plays a part"):
        ablate([subject("pdv")], "median_e2el_ms", THREADS, workers=1)


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
@pytest.mark.parametrize("executor", list(EXECUTORS.values()))
def test_every_mechanism_can_be_switched_off(executor: Executor, architecture: str) -> None:
    made = replace(setting(architecture, 3, 0), config=config_of(architecture, executor, 3))
    for name in mechanisms([made]):
        off = without(made, frozenset({name}))
        record = simulate(off.config, off.workload, off.costs, off.host, off.contention)
        assert sum(r.completed_s is not None for r in record.requests) == made.workload.stop_after


@given(values=st.lists(st.floats(-1.0, 1.0), min_size=8, max_size=8))
def test_shapley_values_add_up_and_are_symmetric(values: list[float]) -> None:
    names = ["a", "b", "c"]
    sets = [frozenset(n for i, n in enumerate(names) if code >> i & 1) for code in range(8)]
    v = np.array(values)
    parts = shapley_weights(names, sets) @ v
    assert parts.sum() == pytest.approx(v[0] - v[-1])
    # A game that depends only on how many are off treats all alike.
    sizes = np.array([values[len(off)] for off in sets])
    even = shapley_weights(names, sets) @ sizes
    assert even == pytest.approx(np.full(3, (sizes[0] - sizes[-1]) / 3))


def test_the_jackknife_of_a_mean_is_the_prediction_interval() -> None:
    samples = np.array([1.0, 2.0, 4.0, 7.0])
    without = [float(np.delete(samples, i).mean()) for i in range(4)]
    found, known = jackknife(float(samples.mean()), without), prediction_interval(samples.tolist())
    assert (found.low, found.high) == pytest.approx((known.low, known.high))


def test_unknown_mechanisms_are_refused() -> None:
    with pytest.raises(InputError, match="unknown mechanism 'luck'"):
        ablate([subject("pd")], "median_e2el_ms", ["luck"], workers=1)


def test_the_command(profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["ablate", "--concurrency", "3", "--profile", profile]
    arguments += ["--output-tokens", "8", "--replications", "2", "--mechanism", "GIL"]
    arguments += ["--mechanism", "batch-end completion"]
    assert pdvsim([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    factors = [part["part"]["value"] for part in document["parts"]]
    assert np.prod(factors) == pytest.approx(document["whole"]["value"])
    assert pdvsim(arguments) == 0
    assert "Factors multiply to the whole" in capsys.readouterr().out
    assert pdvsim([*arguments, "--scale", "difference", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    amounts = [part["part"]["value"] for part in document["parts"]]
    assert sum(amounts) == pytest.approx(document["whole"]["value"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--architecture", "all"], "one or two can be ablated"),
        (["--metric", "tps"], "the metric tps is not known here"),
        (["--replications", "0"], "replications is 0"),
    ],
)
def test_bad_arguments(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert pdvsim(["ablate", "--concurrency", "4", *arguments]) == 2
    assert says in capsys.readouterr().err
