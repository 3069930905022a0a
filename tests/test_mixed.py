"""Mixed passes in the simulated world: what they hold, what they cost, and what is kept of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdvsim.acceptance import Acceptance
from pdvsim.architectures import Config
from pdvsim.core import (
    EAGER,
    GRAPH,
    Checked,
    Drafter,
    Executor,
    Request,
    Stage,
    query_tokens,
    settle,
)
from pdvsim.des import simulate
from pdvsim.des.costs import mixed_cost
from pdvsim.explain import explain_run, of_record
from pdvsim.explain.run_arrays import priced
from pdvsim.invariants import check
from pdvsim.metrics import summarize
from pdvsim.profile import Profile
from pdvsim.records import STAGE_CODE, RunRecord
from pdvsim.work import Work, work_of
from pdvsim.workload import Lengths, Workload, closed_loop
from tests.fakes import ACCEPTANCE, FixedCosts, profile_file

DRAFTERS = [GRAPH.with_drafter(drafter) for drafter in Drafter]


def config(executor: Executor, budget: int, batch_cap: int = 8) -> Config:
    return Config("continuous", executor, batch_cap, parameters={"token_budget": budget})


def rows_of(record: RunRecord, stage: Stage, name: str) -> list[float]:
    found: list[float] = record.column(name)[record.column("stage") == STAGE_CODE[stage]].tolist()
    return found


@settings(max_examples=60, deadline=None)
@given(
    executor=st.sampled_from(DRAFTERS),
    budget=st.integers(1, 90),
    batch_cap=st.integers(1, 9),
    in_flight=st.integers(1, 9),
    prompt_tokens=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_passes_keep_to_the_budget_and_prompts_are_taken_in_once(
    executor: Executor, budget: int, batch_cap: int, in_flight: int, prompt_tokens: int, seed: int
) -> None:
    lengths = Lengths(prompt_tokens, 12, 0.5)
    plan = closed_loop(in_flight, lengths, ACCEPTANCE, np.random.SeedSequence(seed), 1)
    record = simulate(config(executor, budget, batch_cap), plan, FixedCosts())
    check(record)
    a_round = 1 if executor.drafter is Drafter.NONE else 5
    for stage in Stage:
        for name in ("query_tokens", "batch"):
            assert max(rows_of(record, stage, name), default=0) <= max(budget, a_round)
    for request in record.requests:
        assert request.chunk_tokens == 0 or request.completed_s is None
        if request.produced_tokens:
            assert request.prefilled_tokens == request.prompt_tokens
    if executor.drafter is Drafter.MODEL:
        # All that began has ended, or the run has: the draft model has seen no less.
        seen = sum(rows_of(record, Stage.PREFILL_DRAFT, "query_tokens"))
        assert seen >= sum(request.prefilled_tokens for request in record.requests)


def test_a_long_prompt_goes_on_beside_rounds_and_they_do_not_wait_for_it() -> None:
    plan = Workload("poisson", [4, 100], [40, 2], [[0] * 40] * 2, arrival_s=[0.0, 0.05])
    record = simulate(config(GRAPH, 20), plan, FixedCosts(0.0, 0.01))
    check(record)
    # The first takes 5 of the 20 tokens, the other's prompt of 100 what is left.
    assert rows_of(record, Stage.MIXED, "query_tokens") == [4.0, *[20.0] * 6, 15.0]
    assert rows_of(record, Stage.PREFILL_DRAFT, "query_tokens") == [4.0, *[15.0] * 6, 10.0]


def test_without_a_drafter_it_is_plain_with_a_budget() -> None:
    """Prompts one at a time and no two in flight: nothing can be mixed. Where launches take no
    time, nothing is gained by a pass that is launched behind another."""
    executor = GRAPH.with_drafter(Drafter.NONE)
    plan = closed_loop(1, Lengths(16, 9), ACCEPTANCE, np.random.SeedSequence(1), 3)
    runs = [
        simulate(each, plan, FixedCosts(0.0, 0.01))
        for each in (config(executor, 64), Config("plain", GRAPH))
    ]
    assert runs[0].end_s == pytest.approx(runs[1].end_s)
    one, other = (summarize(run) for run in runs)
    assert one["total_token_throughput"] == pytest.approx(other["total_token_throughput"])


def test_an_executor_for_one_request_at_a_time_mixes_nothing() -> None:
    plan = closed_loop(4, Lengths(16, 9), ACCEPTANCE, np.random.SeedSequence(1), 2)
    record = simulate(config(EAGER, 64), plan, FixedCosts())
    check(record)
    assert not rows_of(record, Stage.MIXED, "batch")


class Linear:
    """A millisecond for the weights, and a tenth of it for every token."""

    def cost(self, stage: Stage, work: Work) -> tuple[float, float]:
        return 1e-4 * (1 + (stage is Stage.VERIFY)), 1e-3 + 1e-4 * work.new_tokens


def test_a_mixed_pass_reads_the_weights_once() -> None:
    rounds, prompt = [Request(i, 8, 9, prefilled_tokens=8) for i in range(2)], Request(2, 50, 9)
    prompt.chunk_tokens = 30
    host_s, device_s = mixed_cost(
        Linear(), Stage.VERIFY, work_of(GRAPH, Stage.MIXED, [*rounds, prompt], 4)
    )
    assert host_s == 2e-4
    # 40 new tokens, of which one counts as part of the reading.
    assert device_s == pytest.approx(1e-3 + 1e-4 * 39)
    alone = work_of(GRAPH, Stage.MIXED, [prompt], 4)
    assert mixed_cost(Linear(), Stage.VERIFY, alone) == (1e-4, pytest.approx(4e-3))
    assert query_tokens(GRAPH, Stage.MIXED, [*rounds, prompt], 4) == 40
    assert query_tokens(GRAPH, Stage.MIXED, [*rounds, prompt], [4, 0, 0]) == 36


def test_a_prompt_that_ends_in_a_pass_yields_its_first_token_and_another_one_none() -> None:
    going, ends, cut = Request(0, 8, 9, outcomes=[2]), Request(1, 5, 9), Request(2, 50, 9)
    ends.chunk_tokens, cut.chunk_tokens = 5, 30
    assert settle(GRAPH, Stage.MIXED, [going, ends, cut], 4, 1.0) == [3, 1, 0]
    assert (going.rounds, ends.rounds, cut.rounds) == (1, 0, 0)
    assert (cut.prefilled_tokens, cut.chunk_tokens, cut.first_token_s) == (30, 0, None)
    cut.chunk_tokens = 20
    checked = [Checked(1, 4), Checked(0, 0)]
    assert settle(GRAPH, Stage.MIXED, [going, cut], 4, 2.0, checked) == [2, 1]
    assert cut.first_token_s == 2.0 and not cut.checked and going.checked == checked[:1]


def test_composed_costs_are_told_as_such_and_explained() -> None:
    whole = profile_file(executor="graph")
    known = {stage: fit for stage, fit in whole.stages.items() if stage is not Stage.MIXED}
    profile = Profile(whole.model_copy(update={"stages": known}))
    machine = profile.draw(np.random.SeedSequence(0))
    acceptance = Acceptance.constant(0.7, 4)
    plan = closed_loop(4, Lengths(16, 9), acceptance, np.random.SeedSequence(1), 2)
    record = simulate(config(GRAPH, 64), plan, machine.costs, machine.host)
    check(record)
    assert any("mixed passes were not calibrated" in why for why in profile.extrapolations(record))
    trace = of_record(record)
    mixed = trace.stage == int(STAGE_CODE[Stage.MIXED])
    again = priced(trace, profile)
    for name in ("launch_alone_s", "device_alone_s"):
        assert np.array_equal(again.row(name)[mixed], trace.row(name)[mixed])
    assert sum(explain_run(again).causes.values()) > 0.0


def test_drafts_of_the_next_round_are_launched_before_the_host_knows_how_the_last_one_ended() -> (
    None
):
    plan = closed_loop(2, Lengths(16, 40), ACCEPTANCE, np.random.SeedSequence(3), 2)
    record = simulate(config(GRAPH, 64), plan, FixedCosts(0.001, 0.01))
    check(record)
    drafted = rows_of(record, Stage.DRAFT, "launched_s")
    known = sorted(
        rows_of(record, Stage.VERIFY, "settled_s") + rows_of(record, Stage.MIXED, "settled_s")
    )
    # What is launched behind the last pass has not ended with the run.
    assert len(drafted) >= len(known) - 1 > 20
    assert all(draft < end for draft, end in zip(drafted, known, strict=False))


def test_a_pass_is_launched_behind_another_one_unless_somebody_is_done_or_waits() -> None:
    executor = GRAPH.with_drafter(Drafter.NONE)
    plan = Workload("poisson", [4, 4], [9, 30], [[]] * 2, arrival_s=[0.0, 0.0495])
    record = simulate(config(executor, 64), plan, FixedCosts(0.001, 0.01))
    check(record)
    launched = np.sort(record.column("launched_s"))
    settled = np.sort(record.column("settled_s"))
    waited = np.flatnonzero(launched[1:] >= settled[:-1])
    # The first pass is the prompt's own, and the second comes in the one behind what is launched.
    mixed = record.column("stage") == STAGE_CODE[Stage.MIXED]
    assert mixed.sum() == 2
    assert len(waited) < len(launched) / 4
    for request in record.requests:
        assert request.produced_tokens == request.output_tokens
    first_s = record.requests[1].first_token_s
    assert first_s is not None and first_s - record.requests[1].arrival_s < 3 * 0.011
