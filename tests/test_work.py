"""What the device sees of a launch, and what no launch can beat."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pdvsim.core import EAGER, GRAPH, Drafter, Executor, Request, Stage, query_tokens
from pdvsim.profile import Profile, load_profile, shipped_profiles
from pdvsim.work import Work, prompt_part, round_part, uniform_work, work_of

BATCH = [Request(0, 10, 40, produced_tokens=5), Request(1, 30, 40, produced_tokens=1)]


@pytest.mark.parametrize(
    ("executor", "drafts", "passes"),
    [
        (GRAPH, 4, 4),
        (GRAPH, 1, 1),
        (GRAPH, 0, 1),
        (GRAPH, [2, 7], 7),
        (GRAPH.with_drafter(Drafter.EAGLE3), 3, 3),
        (GRAPH.with_drafter(Drafter.NGRAM), 4, 1),
        (EAGER, 4, 3),
        (EAGER, 1, 0),
    ],
)
def test_a_draft_stage_passes_once_for_each_token(
    executor: Executor, drafts: int | list[int], passes: int
) -> None:
    work = work_of(executor, Stage.DRAFT, BATCH, drafts)
    assert (work.passes, work.batch, work.longest_new_tokens) == (passes, 2, 1)
    assert work.context_tokens == 46
    assert work.new_tokens == query_tokens(executor, Stage.DRAFT, BATCH, drafts)


def test_a_verify_is_as_wide_as_its_longest_round() -> None:
    work = work_of(GRAPH, Stage.VERIFY, BATCH, [2, 7])
    assert (work.passes, work.longest_new_tokens, work.new_tokens) == (1, 8, 11)
    assert work_of(EAGER, Stage.COMMIT_DRAFT, BATCH[:1], 4).longest_new_tokens == 4
    assert work_of(GRAPH, Stage.DECODE, BATCH, 4) == Work(1, 2, 1, 0, 0, 2, 46, 0.0)


def test_prompts_look_back_at_what_came_before() -> None:
    work = work_of(GRAPH, Stage.PREFILL_VERIFIER, BATCH, 4)
    assert (work.chunk_tokens, work.prompts, work.longest_new_tokens) == (40, 2, 30)
    assert work.prompt_pairs == 10 * 5 + 30 * 15
    cut = Request(2, 100, 8, prefilled_tokens=60, chunk_tokens=20)
    assert work_of(GRAPH, Stage.PREFILL_VERIFIER, [cut], 4).prompt_pairs == 20 * 70


def test_a_mixed_pass_is_its_round_and_its_chunks() -> None:
    cut = Request(2, 100, 8, prefilled_tokens=60, chunk_tokens=20)
    work = work_of(GRAPH, Stage.MIXED, [*BATCH, cut], 4)
    assert work == Work(1, 3, 5, 20, 1, 30, 46, 1400.0)
    assert round_part(work) == work_of(GRAPH, Stage.VERIFY, BATCH, 4)
    assert prompt_part(work) == Work(1, 1, 20, 20, 1, 20, 20, 1400.0)


@pytest.mark.parametrize("stage", [s for s in Stage if s is not Stage.MIXED])
@pytest.mark.parametrize("executor", [EAGER, GRAPH])
def test_alike_requests_are_known_by_their_sums(executor: Executor, stage: Stage) -> None:
    batch = [Request(i, 12, 40, produced_tokens=3) for i in range(3)]
    work = work_of(executor, stage, batch, 4)
    sums = work.batch, work.new_tokens, work.context_tokens
    assert uniform_work(executor, stage, *sums) == work


@pytest.mark.parametrize("name", shipped_profiles())
def test_nothing_is_faster_than_its_floor(name: str) -> None:
    """1,000 random launches on machines drawn from every profile that ships."""
    profile = load_profile(name)
    rng = random.Random(name)
    for number in range(10):
        costs = profile.draw(np.random.SeedSequence(number)).costs
        for _ in range(100):
            stage = rng.choice(list(profile.file.stages))
            count = rng.choice([1, 2, 7, 32, 200]) if profile.executor.batched else 1
            batch = [
                Request(i, rng.randint(1, 4000), 99, produced_tokens=rng.randint(0, 99))
                for i in range(count)
            ]
            work = work_of(profile.executor, stage, batch, rng.randint(1, 16))
            floor_s = profile.file.floor(stage).seconds(work)
            _, device_s = costs.cost(stage, work)
            assert device_s >= floor_s > 0.0 or work.passes == 0
            assert profile.file.seconds(stage, work)[1] >= floor_s


def test_a_mixed_pass_is_padded_by_batch_and_rows_and_alone_it_is_a_prefill() -> None:
    """As `realengine.graph.plan.Sizes.mixed_shape` pads: 20 rounds of 5 run as 32, and 160 rows of
    rounds need 192 of all."""
    file = load_profile("h100_tinyllama-1.1b_llama-2-7b_graph").file
    fit = file.stages[Stage.MIXED]
    for rounds, chunk, requests, rows in ((20, 16, 32, 192), (20, 100, 32, 256), (8, 60, 8, 128)):
        work = Work(1, rounds + 1, 5, chunk, 1, 5 * rounds + chunk, 64 * rounds, chunk * 9.0)
        load = fit.load(work)
        assert (load.requests, load.rows, load.size, load.chunk) == (requests, rows, rows, chunk)
    alone = Work(1, 2, 0, 300, 2, 300, 0, 2e4)
    prefill = file.seconds(Stage.PREFILL_VERIFIER, alone)
    assert file.seconds(Stage.MIXED, alone) == prefill
    costs = (
        load_profile("h100_tinyllama-1.1b_llama-2-7b_graph").draw(np.random.SeedSequence(0)).costs
    )
    assert costs.cost(Stage.MIXED, alone)[1] == pytest.approx(prefill[1], rel=0.15)


@pytest.mark.parametrize("stage", [Stage.DRAFT, Stage.VERIFY, Stage.DECODE])
def test_a_drawn_cost_is_that_of_its_fit_at_every_context(stage: Stage) -> None:
    """Machines ask a table that a cost is linear in context by; a correction must not break it."""
    file = load_profile("h100_eagle3_llama-2-7b_graph").file
    fit = file.stages[stage]
    sure = fit.device.model_copy(update={"draws": [fit.device.weights], "noise": [1.0]})
    stages = {stage: fit.model_copy(update={"device": sure})}
    costs = (
        Profile(file.model_copy(update={"stages": stages})).draw(np.random.SeedSequence(3)).costs
    )
    ratios = []
    for batch in (1, 9, 200):
        for context in (10, 500, 1000):
            new = batch if stage is Stage.DECODE else 5 * batch
            work = uniform_work(GRAPH, stage, batch, new, context * batch)
            ratios.append(costs.cost(stage, work)[1] / file.seconds(stage, work)[1])
    assert max(ratios) == pytest.approx(min(ratios))
