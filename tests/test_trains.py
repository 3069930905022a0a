"""What a calibration launches: trains of rounds, prompts, mixed passes; and that all memory comes
back. On the CPU a blocker blocks nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

pytest.importorskip("torch")

from calibration.plan import GRAPH_PLAN, Plan, quick
from calibration.stages import Blocker
from calibration.trains import measure_host, measure_mixed, measure_prefill, measure_rounds
from pdvsim.core import GRAPH
from pdvsim.work import Work
from realengine.build import Demand, open_engine

PAIRS = ["toy", "toy-eagle3", "ngram:toy-verifier", "none:toy-verifier"]
BLOCKS: list[Blocker | None] = [None, lambda stream: None]


def opened(reference: str) -> Any:
    demand = Demand(4, 4, 256, 1024, draft_lengths=(1, 8))
    return open_engine(reference, GRAPH, "cpu", demand).engine


@pytest.mark.parametrize("block", BLOCKS, ids=["settled", "train"])
@pytest.mark.parametrize("reference", PAIRS)
def test_rounds_of_every_length_are_measured(reference: str, block: Blocker | None) -> None:
    engine = opened(reference)
    rows = measure_rounds(engine, 3, 20, (1, 4, 8), 2, 0, block)
    assert engine.free_pages == engine.pages
    seen = Counter((row["stage"], row["passes"], row["longest_new_tokens"]) for row in rows)
    speculative = bool(engine.executor.speculate)
    for length in (1, 4, 8) if speculative else ():
        assert seen["verify", 1, length + 1] == 2
    if reference in ("toy", "toy-eagle3"):
        assert [seen["draft", passes, 1] for passes in (1, 4, 8)] == [2, 2, 2]
    assert seen["decode", 1, 1] == 2
    decodes = [row["context_tokens"] for row in rows if row["stage"] == "decode"]
    # Prompts, a first token, and one token for each check before, those left out too.
    checks = 1 + (3 * 3 if speculative else 0)
    assert decodes == [3 * (20 + 1 + checks), 3 * (20 + 2 + checks)]
    assert all(row["prompt_tokens"] == 20 for row in rows)
    measure_host(engine, 2, 20, (1, 4), 2, 100)
    assert engine.free_pages == engine.pages


@pytest.mark.parametrize("block", BLOCKS, ids=["settled", "train"])
def test_prompts_are_measured_alone_and_together(block: Blocker | None) -> None:
    engine = opened("toy")
    rows = measure_prefill(engine, 3, 30, 2, 0, block)
    assert engine.free_pages == engine.pages
    hidden = Counter((row["stage"], row["hidden"]) for row in rows)
    assert hidden["prefill_verifier", False] == hidden["prefill_draft", False] == 2
    assert hidden["prefill_verifier", True] == (2 if block else 0)
    assert {(row["chunk_tokens"], row["prompts"]) for row in rows} == {(90, 3)}


@pytest.mark.parametrize("reference", PAIRS)
@pytest.mark.parametrize(("batch", "cached"), [(0, 0), (3, 0), (3, 40)])
def test_mixed_passes_hold_rounds_and_a_chunk(reference: str, batch: int, cached: int) -> None:
    engine = opened(reference)
    drafts = 4 if engine.executor.speculate else 0
    rows = measure_mixed(engine, batch, drafts, 30, cached, 16, 4, 0, lambda stream: None)
    assert engine.free_pages == engine.pages
    works = {Work(*[row[name] for name in Work._fields])[:6] for row in rows}
    new = batch * (drafts + 1)
    assert works == {(1, batch + 1, drafts + 1 if batch else 0, 30, 1, new + 30)}
    assert [row["prompt_pairs"] for row in rows] == [30 * (cached + 15)] * 4
    assert [row["hidden"] for row in rows] == [True, False, True, False]


@pytest.mark.parametrize("plan", [GRAPH_PLAN, quick(GRAPH_PLAN)])
@pytest.mark.parametrize("reach", [2048, 4096, 8192])
def test_a_plan_stays_within_cache_and_context(plan: Plan, reach: int) -> None:
    room = 90_000
    points = plan.points(room, reach)
    assert {point.batch for point in points} == set(plan.batches)
    for point in points:
        assert point.batch * (point.prompt_tokens + plan.growth) <= room
        assert point.prompt_tokens + plan.growth <= reach
    prefills = plan.prefill_points(room, reach)
    assert all(batch * tokens < room and tokens < reach for batch, tokens in prefills)
    mixed = list(plan.mixed_points(reach, 1024))
    assert len(mixed) == plan.mixed
    for one in mixed:
        assert 0 <= one.batch < max(plan.batches) and 16 <= one.chunk_tokens <= 1024
        assert one.cached_tokens + one.chunk_tokens < reach
        assert one.prompt_tokens + plan.growth <= reach
    if plan is GRAPH_PLAN:
        assert min(one.batch for one in mixed) == 0 and max(one.batch for one in mixed) > 100
        assert {one.cached_tokens > 0 for one in mixed} == {False, True}
