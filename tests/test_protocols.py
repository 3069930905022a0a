"""What each protocol says of itself holds of the cells that run under it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pdvsim import protocols as registry
from pdvsim.asked import OTHERS
from pdvsim.cell import FIELDS, Cell, TraceFile
from pdvsim.errors import InputError
from pdvsim.protocols import Protocol, protocols
from pdvsim.quantities import QUANTITIES, columns, told_by
from pdvsim.sweep import sweep
from pdvsim.verdict import ranking_metric
from pdvsim.workload import Workload
from tests.fakes import FakeModel

CELL = Cell("tiny:tiny", "eager", "pdv", 4, prompt_tokens=8, output_tokens=8)
EVERY = list(protocols().values())


@pytest.fixture
def trace(tmp_path_factory: pytest.TempPathFactory) -> TraceFile:
    path = tmp_path_factory.mktemp("trace") / "trace.csv"
    rows = [f"2023-11-16 18:15:{i:02d}.5000000,{10 + i},{5 + i}" for i in range(20)]
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows) + "\n")
    return TraceFile.of(path)


def under(protocol: Protocol, trace: TraceFile) -> Cell:
    needs: dict[str, Any] = {"rate_per_s": 2.0, "trace": trace}
    given = {name: needs[name] for name in protocol.needs}
    return replace(CELL, protocol=protocol.name, **given)


@pytest.mark.parametrize("protocol", EVERY, ids=lambda one: one.name)
def test_a_protocol_runs_and_tells_its_own_figures(protocol: Protocol, trace: TraceFile) -> None:
    (result,) = sweep([under(protocol, trace)], FakeModel(), 2, workers=1)
    assert set(result.metrics) == set(told_by(result.metrics))
    assert set(protocol.figure_names) <= set(result.metrics)
    assert result.metrics[ranking_metric(protocol.name, slo=False)] is not None
    shown = columns(result.metrics)
    assert not protocol.in_place_of & set(shown)
    assert QUANTITIES[protocol.ranked_by].better is not None


@pytest.mark.parametrize("protocol", EVERY, ids=lambda one: one.name)
def test_what_a_protocol_speaks_of_exists(protocol: Protocol) -> None:
    assert protocol.fields <= {*FIELDS, *OTHERS}
    assert protocol.in_place_of <= QUANTITIES.keys()
    assert set(protocol.figure_names) <= QUANTITIES.keys()
    assert f"{protocol.name}: {protocol.meaning}" in FIELDS["protocol"].metadata["meaning"]


@pytest.mark.parametrize("protocol", EVERY, ids=lambda one: one.name)
def test_a_protocol_without_what_it_needs_is_refused(protocol: Protocol) -> None:
    for name in protocol.needs:
        with pytest.raises(InputError, match=f"is needed by the protocol {protocol.name}"):
            replace(CELL, protocol=protocol.name)
        assert name in FIELDS


def test_a_room_brings_a_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells, sweeps and rankings know it at once."""

    def burst(cell: Cell, seed: np.random.SeedSequence) -> Workload:
        assert cell.injected is not None
        outcomes = cell.injected.draw([4] * 6, np.random.default_rng(seed))
        return Workload("burst", [8] * 6, [4] * 6, outcomes, arrival_s=[0.0] * 6)

    mine = Protocol("burst", "all at once", burst, ranked_by="duration_s")
    room = SimpleNamespace(PROTOCOL=mine)
    monkeypatch.setattr(registry, "import_module", lambda name: room)
    registry.protocols.cache_clear()
    try:
        cell = replace(CELL, protocol="burst")
        (result,) = sweep([cell], FakeModel(), 2, workers=1)
        completed = result.metrics["completed"]
        assert completed is not None and completed.value == 6
        assert ranking_metric("burst", slo=False) == "duration_s"
        with pytest.raises(InputError, match="--requests is only for"):
            replace(cell, requests=3)
    finally:
        monkeypatch.undo()
        registry.protocols.cache_clear()
