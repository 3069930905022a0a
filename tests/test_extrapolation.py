"""A prediction outside what was measured says so."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from pdvsim import cli
from pdvsim.acceptance import Acceptance
from pdvsim.architectures import Config
from pdvsim.core import GRAPH, Request, Stage
from pdvsim.des import simulate
from pdvsim.extrapolation import farthest, too_long
from pdvsim.models import pair
from pdvsim.profile import Profile, load_profile
from pdvsim.profile_file import ContentionFit, Estimate
from pdvsim.records import RunRecord
from pdvsim.workload import Lengths, closed_loop
from tests.fakes import FixedCosts, config_of, profile_file


def a_run(
    architecture: str, concurrency: int = 4, prompt_tokens: int = 32, drafts: int = 4
) -> RunRecord:
    plan = closed_loop(
        concurrency,
        Lengths(prompt_tokens, 16),
        Acceptance.constant(0.7, drafts),
        np.random.SeedSequence(1),
    )
    config = config_of(architecture, GRAPH, batch_cap=concurrency, draft_tokens=drafts)
    return simulate(config, plan, FixedCosts())


def a_profile(*contention_batches: int) -> Profile:
    speed = Estimate(value=0.6, low=0.5, high=0.7)
    beside = [
        ContentionFit(
            stage=Stage.VERIFY,
            other=Stage.PREFILL_DRAFT,
            rows=5 * batch,
            prompt_tokens=prompt,
            speed=speed,
        )
        for batch in contention_batches
        for prompt in (32, 512)
    ]
    return Profile(profile_file(executor="graph").model_copy(update={"contention": beside}))


def test_inside_the_measured_range_nothing_is_said() -> None:
    assert a_profile(1, 64).extrapolations(a_run("pd")) == []


@pytest.mark.parametrize("tokens", [600, 2000])
def test_a_longer_prompt_than_measured_is_said(tokens: int) -> None:
    (reason, *_) = a_profile().extrapolations(a_run("pdv", prompt_tokens=tokens))
    assert f"new tokens of a request {tokens:,} is {tokens / 512:.2g} x the measured 512" in reason


@pytest.mark.parametrize(("drafts", "times"), [(8, "2"), (16, "4")])
def test_more_passes_than_measured_are_said(drafts: int, times: str) -> None:
    said = a_profile().extrapolations(a_run("pd", drafts=drafts))
    assert f"draft: passes {drafts} is {times} x the measured 4" in said


def test_fewer_passes_than_measured_are_said() -> None:
    profile = load_profile("h100_tinyllama-1.1b_codellama-34b_graph")
    said = profile.extrapolations(a_run("pd", drafts=2))
    assert "draft: passes 2 is 0.5 x the measured 4" in said
    assert "verify: new tokens of a request 3 is 0.6 x the measured 5" in said


def test_streams_beside_each_other_at_other_batches_are_said() -> None:
    said = a_profile(1).extrapolations(a_run("pd"))
    assert "streams side by side: new tokens of a round's pass 15 is 3 x the measured 5" in said
    said = a_profile(1, 64).extrapolations(a_run("pd", 1, prompt_tokens=2000))
    assert not [sentence for sentence in said if sentence.startswith("streams")]
    said = a_profile(1, 64).extrapolations(a_run("pd", 2, prompt_tokens=2048))
    assert "streams side by side: tokens of prompts 2,048 is 4 x the measured 512" in said


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
            update={"measured": fit.measured.model_copy(update={"new_tokens": (low, high)})}
        )
        for stage, fit in file.stages.items()
    }
    profile = Profile(file.model_copy(update={"stages": fits}))
    lengths = [10, 900, 10, 900]
    plan = closed_loop(4, Lengths(10, 16), Acceptance.constant(0.7, 4), np.random.SeedSequence(1))
    plan = replace(plan, prompt_tokens=[lengths[i % 4] for i in range(len(plan))])
    record = simulate(Config("pdv", GRAPH, batch_cap=4), plan, FixedCosts())
    said = profile.extrapolations(record)
    told = "new tokens of a request 10 and 900 are 0.1 and 4.5 x the measured 100 and 200"
    assert any(told in sentence for sentence in said)


def test_a_plain_run_needs_the_verifiers_context_only() -> None:
    profile = a_profile()
    reach = profile.pair.draft.max_context_tokens
    assert reach < profile.pair.verifier.max_context_tokens
    for name, fits in (("plain", True), ("pd", False)):
        said = profile.impossible(a_run(name, 2, reach))
        assert (said == []) is fits
        assert all(f"{profile.pair.draft.name} ({reach})" in sentence for sentence in said)


def test_of_alike_sentences_the_farthest_is_told() -> None:
    said = [f"draft: passes {n} is {n / 4:.2g} x the measured 4" for n in (8, 16, 1, 6)]
    assert farthest([*said, "another"]) == [said[1], "another"]
    assert farthest([said[0], said[2]]) == [said[2]]  # a quarter is farther than twice


@pytest.mark.parametrize(
    "words",
    [
        "crossover plain pd --from 1 --to 2 --points 2 --replications 4",
        "explain --concurrency 2 --replications 2",
        "ablate --concurrency 2 --architecture pd,pdv --replications 2",
        "predict --concurrency 2 --replications 2 --architecture pd",
    ],
)
def test_every_command_says_what_was_not_measured(
    words: str, graph_profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*words.split(), "--draft-tokens", "8", "--profile", graph_profile, "--json"]
    assert cli.run([*given, "--prompt-tokens", "32", "--output-tokens", "16"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert any("draft: passes 8 is 2 x the measured 4" in note for note in document["notes"])
    assert any("calibrated range" in caveat for caveat in document["verdict"]["caveats"])
