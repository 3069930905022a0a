"""Cells on a real engine, and the document of them."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from pdvsim.core import GRAPH
from pdvsim.models import pair
from pdvsim.store import Store
from realengine.bench import bench
from realengine.build import torch_device
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
