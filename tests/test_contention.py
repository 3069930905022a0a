"""Stages side by side: what is launched, what is looked at, and that nothing is left behind."""

from __future__ import annotations

import pytest

from calibration.contention import REPEATS, beside, measure_pairs, request_tokens, side_by_side
from calibration.plan import Beside
from pdvsim.core import GRAPH
from realengine.build import Demand, open_engine


def test_launches_count_while_both_streams_are_busy() -> None:
    short = [(0.0, 4.0), (4.0, 8.0)]
    long = [(0.0, 1.0), (1.0, 3.0), (3.0, 5.0), (5.0, 7.0), (7.0, 9.0), (9.0, 11.0)]
    assert beside(long, short) == [(3.0, 5.0), (5.0, 7.0)]  # both busy to 8, clock settled at 2
    assert beside(short, long) == [(4.0, 8.0)]
    assert beside(short, [(9.0, 11.0)]) == []


@pytest.mark.slow
def test_every_pair_is_measured_and_all_pages_come_back() -> None:
    tokens = request_tokens(2)
    demand = Demand(2, requests=4, context_tokens=tokens, cache_tokens=4 * tokens)
    engine = open_engine("toy", GRAPH, "cpu", demand).engine
    rows = measure_pairs(engine, Beside(2, 2, 160), 0, lambda stream: None)
    assert len(rows) == 2 * REPEATS * len(side_by_side(GRAPH))
    shapes = {(row["stage"], row["batch"], row["new_tokens"]) for row in rows}
    assert shapes == {
        ("prefill_draft", 1, 160),
        ("prefill_verifier", 1, 160),
        ("draft", 2, 4),
        ("verify", 2, 6),
        ("decode", 2, 2),
    }
    assert engine.free_pages == engine.pages
