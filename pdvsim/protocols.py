"""Protocols by name: what arrives when, what a cell must say for it, and how it is judged.

Three are built in; a room may bring one of its own, as the case study does. Everything that
depends on the protocol asks it here. This module imports nothing heavy, so that `--help` is quick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from pdvsim.cell import Cell
    from pdvsim.quantity import Quantity
    from pdvsim.records import RunRecord
    from pdvsim.workload import Workload

LENGTHS = frozenset(
    {
        *("prompt_tokens", "output_tokens", "spread", "output_spread", "lengths_from"),
        "max_context_tokens",
    }
)
PROMPTED = LENGTHS | {"prompts"}


def nothing(record: RunRecord) -> Mapping[str, float | None]:
    """The figures of a protocol that has none of its own."""
    return {}


@dataclass(frozen=True, slots=True)
class Protocol:
    """What arrives when.

    Attributes:
        meaning: half a sentence for the help.
        plan: draws one workload of a cell.
        needs: fields (or options) of a cell that it must have, and no other may.
        takes: fields of a cell that change it, besides; other protocols do without.
        open_loop: requests come whatever the system does: its throughput is their rate.
        steady: they come at one rate for as long as there are any, so the system keeps up or not.
        sets_load: concurrency, or a rate, says how much comes.
        figures: metrics of its own.
        measure: those of one run.
        in_place_of: metrics that its own take the place of in tables.
        ranked_by: the metric that says who is best, without an SLO.
        published: architectures run with the parameters of the published systems.
    """

    name: str
    meaning: str
    plan: Callable[[Cell, np.random.SeedSequence], Workload]
    needs: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()
    open_loop: bool = True
    steady: bool = False
    sets_load: bool = True
    figures: tuple[Quantity, ...] = ()
    measure: Callable[[RunRecord], Mapping[str, float | None]] = nothing
    in_place_of: frozenset[str] = frozenset()
    ranked_by: str = "median_e2el_ms"
    published: bool = False

    @property
    def fields(self) -> frozenset[str]:
        """Fields of a cell that mean something to it, and not to every protocol."""
        return self.needs | self.takes

    @property
    def figure_names(self) -> tuple[str, ...]:
        return tuple(figure.name for figure in self.figures)


def _closed_loop(cell: Cell, seed: np.random.SeedSequence) -> Workload:
    from pdvsim.workload import closed_loop

    return closed_loop(
        cell.concurrency, cell.lengths, cell.injected, seed, cell.cycles, measured=cell.requests
    )


def _poisson(cell: Cell, seed: np.random.SeedSequence) -> Workload:
    from pdvsim.workload import poisson

    assert cell.rate_per_s is not None and cell.injected is not None
    count = cell.requests or max(200, 8 * cell.concurrency)
    return poisson(cell.rate_per_s, count, cell.lengths, cell.injected, seed)


def _trace(cell: Cell, seed: np.random.SeedSequence) -> Workload:
    from pdvsim.tables import parse_columns
    from pdvsim.workload import trace

    assert cell.trace is not None and cell.injected is not None
    columns = cell.trace.columns
    return trace(
        Path(cell.trace.path),
        cell.injected,
        seed,
        cell.requests,
        cell.time_scale,
        cell.max_context_tokens,
        None if columns is None else parse_columns(columns),
    )


BUILT_IN = (
    Protocol(
        "closed-loop",
        "C requests always in flight",
        _closed_loop,
        takes=PROMPTED | {"requests", "cycles"},
        open_loop=False,
        ranked_by="output_throughput",
    ),
    Protocol(
        "poisson",
        "random arrivals at --rate",
        _poisson,
        needs=frozenset({"rate_per_s"}),
        takes=PROMPTED | {"requests"},
        steady=True,
    ),
    Protocol(
        "trace",
        "arrivals and lengths of --trace",
        _trace,
        needs=frozenset({"trace"}),
        takes=frozenset({"trace_columns", "time_scale", "max_context_tokens", "requests"}),
        sets_load=False,
    ),
)
# Modules that bring one of their own, called PROTOCOL.
ROOMS = ("pdvsim.pdverify.protocol",)


@cache
def protocols() -> dict[str, Protocol]:
    """All protocols by name, the default one first."""
    every: list[Protocol] = [*BUILT_IN, *(import_module(room).PROTOCOL for room in ROOMS)]
    return {one.name: one for one in every}


def takers(field: str) -> list[str]:
    """Names of the protocols that a field of a cell means something to; empty if to all."""
    return [name for name, one in protocols().items() if field in one.fields]
