"""Cells on a real engine, and the document of them."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from pdvsim.core import EXECUTORS, GRAPH
from pdvsim.errors import InputError
from pdvsim.models import pair
from pdvsim.store import Store
from realengine.bench import bench
from realengine.build import Demand, open_engine, torch_device
from realengine.document import benchmark
from realengine.provenance import provenance
from tests.engines import Picky
from tests.fakes import cell


def test_requests_that_failed_are_said_in_the_document() -> None:
    cells = [cell(name, "graph", concurrency=3, requests=30) for name in ("pd", "pdv")]
    engine = Picky(GRAPH, 7, named=True)
    found = bench(cells, 2, engine, Store(None, {}))
    about = provenance(torch_device("cpu"), 0, "injected")
    document = benchmark(found, about, pair("tiny:tiny"), "pdvsim bench")
    assert document.models == pair("tiny:tiny")
    for row in document.cells:
        assert [(run.failed, run.failure) for run in row.runs] == [(1, "request 7 is odd")] * 2
    assert "requests of pd, pdv failed (listed below)" in document.verdict.badge
    assert any(
        note.startswith("Failed, pd at C = 3: 2 requests") and "request 7 is odd" in note
        for note in document.notes
    )


@pytest.mark.parametrize("executor", ["eager", "graph"])
def test_one_engine_runs_cells_of_several_draft_lengths(executor: str) -> None:
    load = {"concurrency": 2, "requests": 4, "prompt_tokens": 12, "output_tokens": 10}
    cells = [cell("pdv", executor, **load, draft_tokens=g, acceptance=(0.7,) * g) for g in (1, 3)]
    demand = Demand(3, 2, 32, draft_lengths=(1,))
    engine = open_engine("tiny:tiny", EXECUTORS[executor], "cpu", demand).engine
    for (result, _), drafts in zip(bench(cells, 1, engine, Store(None, {})), (1, 3), strict=True):
        assert result.cell.draft_tokens == drafts
        assert len(result.acceptance_per_position) == drafts
    with pytest.raises(InputError, match="the configuration wants"):
        bench(
            [cell("pdv", executor, **load, draft_tokens=9, acceptance=(0.7,) * 9)],
            1,
            engine,
            Store(None, {}),
        )
