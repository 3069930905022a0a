"""Drafters as the shared nouns have them: stages, lengths of rounds, what a round yields."""

from __future__ import annotations

import pytest

from pdvsim.architectures import ARCHITECTURES, Config
from pdvsim.core import (
    EAGER,
    EXECUTORS,
    GRAPH,
    Drafter,
    Executor,
    Model,
    Request,
    Stage,
    query_tokens,
    settle,
)
from pdvsim.des.world import SimulatedWorld
from pdvsim.workload import Workload
from tests.fakes import TableCosts

DRAFTLESS = [Drafter.EAGLE3, Drafter.NGRAM, Drafter.NONE]


@pytest.mark.parametrize("executor", EXECUTORS.values())
@pytest.mark.parametrize("drafter", DRAFTLESS)
def test_only_a_model_has_stages_that_fill_a_cache_of_its_own(
    executor: Executor, drafter: Drafter
) -> None:
    own = executor.with_drafter(drafter)
    assert own is executor.with_drafter(drafter) and own.name == executor.name
    assert own.with_drafter(Drafter.MODEL) is executor
    assert {stage.model for stage in own.prefill + own.check} == {Model.VERIFIER}
    assert own.speculate == (() if drafter is Drafter.NONE else (Stage.DRAFT,))
    assert own.settles_round is own.check[-1]


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
@pytest.mark.parametrize("drafter", list(Drafter))
def test_every_architecture_runs_with_every_drafter(name: str, drafter: Drafter) -> None:
    """And never launches a stage that its executor doesn't have."""
    executor = GRAPH.with_drafter(drafter)
    workload = Workload("closed-loop", [5] * 9, [7] * 9, [[2] * 9] * 9, in_flight=4)
    costs = TableCosts(dict.fromkeys(Stage, 1e-3))
    record = SimulatedWorld(Config(name, executor, batch_cap=4), workload, costs).run()
    stages = {list(Stage)[int(code)] for code in set(record.column("stage").tolist())}
    assert [request.produced_tokens for request in record.requests] == [7] * 9
    own = {*executor.prefill, *executor.speculate, *executor.check}
    assert stages <= own | {Stage.DECODE, Stage.MIXED}  # every batched engine has these two


@pytest.mark.parametrize("executor", [EAGER, GRAPH])
def test_a_round_keeps_no_more_than_it_drafted_and_yields_a_token_at_least(
    executor: Executor,
) -> None:
    batch = [Request(i, 3, 50, outcomes=[3]) for i in range(6)]
    lengths = [0, 1, 2, 3, 4, 5]
    emitted = settle(executor, executor.settles_round, batch, lengths, 0.0)
    assert [request.accepted_tokens for request in batch] == [0, 1, 2, 3, 3, 3]
    assert [request.drafted_tokens for request in batch] == lengths
    assert emitted == ([1, 2, 3, 4, 4, 4] if executor.bonus_token else [1, 1, 2, 3, 4, 4])


@pytest.mark.parametrize("executor", [EAGER, GRAPH])
@pytest.mark.parametrize("stage", [Stage.DRAFT, Stage.VERIFY])
def test_one_length_for_all_counts_as_the_same_length_for_each(
    executor: Executor, stage: Stage
) -> None:
    batch = [Request(i, 3, 5) for i in range(3)]
    for length in range(1, 5):
        each = query_tokens(executor, stage, batch, [length] * 3)
        assert each == query_tokens(executor, stage, batch, length)
    assert query_tokens(GRAPH, Stage.VERIFY, batch, 0) == 3
    assert query_tokens(executor, Stage.DRAFT, batch, 0) == 0
