"""The document of a benchmark: the answer behind `pdvsim bench`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pdvsim.documents.base import OF_ONE_RUN, Machine
from pdvsim.documents.benchmark import Benchmark, BenchRow
from pdvsim.documents.head import head
from pdvsim.kv_cache import KvCache
from pdvsim.models import Pair
from pdvsim.reached import unreached
from pdvsim.results import ranked, row, subject
from pdvsim.rules_said import rules_said
from pdvsim.sweep import CellResult
from pdvsim.verdict import judged
from realengine.bench import Measured


def benchmark(
    found: Sequence[tuple[CellResult, Sequence[Measured]]],
    about: Mapping[str, Any],
    models: Pair,
    command: str | None = None,
    kv_cache: KvCache | None = None,
) -> Benchmark:
    """What was measured.

    Args:
        found: of each cell the result and its runs.
        about: where they were measured (`realengine.provenance`).
        models: that ran.
        kv_cache: of the engine, where it has pages.
    """
    results = [result for result, _ in found]
    rows = [
        BenchRow(**row(result), runs=tuple(one.about() for one in runs)) for result, runs in found
    ]
    first = results[0].cell
    notes = [f"Acceptance: {about['acceptance']}."]
    notes += rules_said([result.cell for result in results])
    notes += [] if first.prompts is None else [first.prompts.said]
    notes += unreached(results, lambda cell, plan: kv_cache)
    notes += _failed(rows)
    document = Benchmark(
        **head("bench", command),
        subject=subject([result.cell for result in results]),
        valid_for=f"pdvsim's {first.executor} executor, {first.pair}, on {about['gpu']}",
        interval=f"{OF_ONE_RUN}; none from a single replication",
        **ranked(results, rows, notes, "delivered", machines=False),
        machine=Machine(**about),
        models=models,
    )
    return judged(document)


def _failed(rows: Sequence[BenchRow]) -> list[str]:
    """Requests that the engine could not go on with, and why the first of each cell."""
    return [
        f"Failed, {one.label} at C = {one.concurrency}: {sum(run.failed for run in one.runs)} "
        f"requests, which count for nothing; the first since {why}."
        for one in rows
        if (why := next((run.failure for run in one.runs if run.failure), None)) is not None
    ]
