"""Explains cells, simulated and recorded: the question behind `pdvsim explain`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pdvsim.cell import Cell, labels
from pdvsim.documents.explanation import World
from pdvsim.explain.compare import Explained, explain_run, explain_simulated
from pdvsim.explain.run_arrays import Trace, priced
from pdvsim.machine import Replication
from pdvsim.open_loop import Wanted, lengthened
from pdvsim.pool import run_all
from pdvsim.profile import Profile


def simulated(
    cells: Sequence[Cell],
    profile: Profile,
    replications: int,
    workers: int | None = 1,
    on_run: Callable[[int, int], None] | None = None,
) -> list[Explained]:
    """Every cell, explained over its replications; runs of an open loop are as long as the 90th
    percentile of its latency needs.

    Args:
        workers: processes; None takes one per usable core.
    """
    lengths = lengthened(cells, profile, Wanted(share=0.9), workers, on_run)
    cells = [length.cell for length in lengths]
    tasks = [Replication(cell, profile, i) for cell in cells for i in range(replications)]
    runs = run_all(explain_simulated, tasks, workers, on_run)
    return [
        Explained(
            label,
            "simulated",
            length.cell.concurrency,
            runs[i * replications : (i + 1) * replications],
            length.cell,
            length.overloaded,
        )
        for i, (length, label) in enumerate(zip(lengths, labels(cells), strict=True))
    ]


def recorded(traces: Sequence[Trace], profile: Profile | None) -> list[Explained]:
    """The records, explained; those of one architecture at one load are replications."""
    found: dict[tuple[str, World, int], list[Trace]] = {}
    for trace in traces:
        world: World = "real" if trace.world == "real" else "simulated"
        key = (trace.config.name, world, trace.config.batch_cap)
        found.setdefault(key, []).append(trace if profile is None else priced(trace, profile))
    return [
        Explained(*key, [explain_run(one) for one in alike], alike[0].cell)
        for key, alike in found.items()
    ]
