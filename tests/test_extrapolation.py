"""A prediction outside what was measured says so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pdvsim.acceptance import Acceptance
from pdvsim.architectures import Config
from pdvsim.core import GRAPH, Request, Stage
from pdvsim.des import simulate
from pdvsim.extrapolation import too_long
from pdvsim.models import pair
from pdvsim.profile import Profile
from pdvsim.profile_file import ContentionFit, Estimate
from pdvsim.records import RunRecord
from pdvsim.workload import Lengths, closed_loop
from tests.fakes import FixedCosts, config_of, profile_file


def a_run(architecture: str, concurrency: int = 4, prompt_tokens: int = 32) -> RunRecord:
    plan = closed_loop(
        concurrency,
        Lengths(prompt_tokens, 16),
        Acceptance.constant(0.7, 4),
        np.random.SeedSequence(1),
    )
    return simulate(config_of(architecture, GRAPH, batch_cap=concurrency), plan, FixedCosts())


def a_profile(*contention_batches: int) -> Profile:
    speed = Estimate(value=0.6, low=0.5, high=0.7)
    beside = [
        ContentionFit(stage=Stage.VERIFY, other=Stage.PREFILL_DRAFT, batch=batch, speed=speed)
        for batch in contention_batches
    ]
    return Profile(profile_file(executor="graph").model_copy(update={"contention": beside}))


def test_inside_the_measured_range_nothing_is_said() -> None:
    assert a_profile(1, 64).extrapolations(a_run("pd")) == []


@pytest.mark.parametrize("tokens", [600, 2000])
def test_a_longer_prompt_than_measured_is_said(tokens: int) -> None:
    (reason, *_) = a_profile().extrapolations(a_run("pdv", prompt_tokens=tokens))
    assert f"query_tokens {tokens} is outside the measured 1 to 512" in reason


def test_streams_beside_each_other_at_other_batches_are_said() -> None:
    (reason,) = a_profile(64, 128).extrapolations(a_run("pd"))
    assert "how much they slow each other was measured at 64, 128" in reason


def test_one_worker_never_runs_two_streams_at_once() -> None:
    assert a_profile(64).extrapolations(a_run("pdv")) == []


@pytest.mark.parametrize(("reach", "short"), [(1000, "tiny (1000)"), (2500, "")])
def test_requests_beyond_the_models_contexts_are_said(reach: int, short: str) -> None:
    shape = replace(pair("tiny:tiny").draft, max_context_tokens=reach)
    long, other = Request(0, 2000, 100), Request(1, 20, 10)
    said = too_long([long, other, long], (shape, shape))
    if not short:
        assert said == []
        return
    (sentence,) = said
    assert sentence.startswith(
        "2 of 3 requests, of up to 2100 tokens with their output, do not fit"
    )
    assert short in sentence


def test_values_on_both_sides_of_the_range_are_said_together() -> None:
    """Sentences that differ in numbers alone are told once; the large one must not be lost."""
    low, high = 100, 200
    file = profile_file(executor="graph")
    fits = {
        stage: fit.model_copy(
            update={"measured": fit.measured.model_copy(update={"query_tokens": (low, high)})}
        )
        for stage, fit in file.stages.items()
    }
    profile = Profile(file.model_copy(update={"stages": fits}))
    lengths = [10, 900, 10, 900]
    plan = closed_loop(4, Lengths(10, 16), Acceptance.constant(0.7, 4), np.random.SeedSequence(1))
    plan = replace(plan, prompt_tokens=[lengths[i % 4] for i in range(len(plan))])
    record = simulate(Config("pdv", GRAPH, batch_cap=4), plan, FixedCosts())
    said = profile.extrapolations(record)
    assert any("query_tokens 10 and 900 are outside the measured 100 to 200" in r for r in said)


def test_a_plain_run_needs_the_verifiers_context_only() -> None:
    profile = a_profile()
    reach = profile.pair.draft.max_context_tokens
    assert reach < profile.pair.verifier.max_context_tokens
    for name, fits in (("plain", True), ("pd", False)):
        said = profile.impossible(a_run(name, 2, reach))
        assert (said == []) is fits
        assert all(f"{profile.pair.draft.name} ({reach})" in sentence for sentence in said)
