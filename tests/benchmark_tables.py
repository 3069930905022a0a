"""Benchmark tables as `audit` takes them."""

from __future__ import annotations

from dataclasses import replace

from pdvsim.audit import Cell, Table
from pdvsim.models import pair

SEVEN = pair("tinyllama-1.1b:llama-2-7b")


def cells(**changes: object) -> Table:
    """Two systems at two concurrencies, consistent in every number."""
    rows = []
    for system, latency_s in (("a", 2.0), ("b", 1.6)):
        for n in (4, 8):
            latency = latency_s * (1 + n / 10)
            completed, throughput = 200, n / latency
            rows.append(
                Cell(
                    system=system,
                    load=n,
                    pair=SEVEN,
                    concurrency=n,
                    duration_s=completed / throughput,
                    offered=completed,
                    completed=completed,
                    output_tokens=64 * completed,
                    output_throughput=64 * throughput,
                    request_throughput=throughput,
                    latency_s=latency,
                    latency_std_s=0.2 * latency,
                    tpot_s=latency / 64,
                    acceptance_rate=0.6,
                    accepted_length=3.4,
                    draft_tokens=4,
                    tokens_per_request=128,
                    memory_mib=16500 + 40 * n,
                )
            )
    rows[-1] = replace(rows[-1], **changes)  # type: ignore[arg-type]
    return Table("made up", "csv", tuple(rows))
