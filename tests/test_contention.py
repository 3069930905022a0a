"""Stages side by side: what is launched, what comes back, and that nothing is left behind."""

from __future__ import annotations

import pytest

from calibration.contention import PAIRS, REPEATS, measure_pairs, overlap_s, request_tokens
from pdvsim.core import GRAPH
from realengine.build import Demand, open_engine


def test_overlap_is_summed_over_all_spans() -> None:
    first = [(0.0, 2.0), (3.0, 5.0)]
    assert overlap_s(first, [(1.0, 4.0)]) == pytest.approx(2.0)
    assert overlap_s(first, [(2.0, 3.0)]) == 0.0


def test_every_pair_is_measured_and_all_pages_come_back() -> None:
    tokens = request_tokens(2)
    demand = Demand(2, requests=4, context_tokens=tokens, cache_tokens=4 * tokens)
    engine = open_engine("toy", GRAPH, "cpu", demand).engine
    rows = measure_pairs(engine, 2, 0, 0, lambda stream: None)
    assert len(rows) == 2 * REPEATS * len(PAIRS)
    for row in rows:
        assert row["launches"] >= 1
        assert row["alone_s"] > 0
        assert row["overlap_s"] == pytest.approx(0.0, abs=1e-9)  # the CPU does one after the other
    assert engine.free_pages == engine.pages
