"""What the host adds to a round at batch 1, on a GPU: where the device waits for it.

    python benchmarks/host_time.py --json OUT.json [--pair DRAFT:VERIFIER]

Rounds run back to back, as one lane launches them: each behind the end of the one before, as
`baseline` does, and with the next round's drafts launched ahead, as `continuous` does. Their wall
time beyond the device's own (each stage timed behind a busy stream) is what the host adds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from engine_burst import chained, finish
from engine_stages import Report, launch, requests_of, time_stage

from pdvsim.core import GRAPH, Stage, Stream, settle
from realengine.graph import GraphConfig, build_engine
from realengine.provenance import provenance

ROUNDS = 100


def rounds(engine: Any, stages: Sequence[Stage]) -> dict[str, float]:
    """Median milliseconds of a round at batch 1, and of its parts on the host."""
    requests = requests_of(1, 256)
    launch(engine, engine.executor.prefill, requests)
    device_ms = sum(time_stage(engine, stage, requests, 20)[0] * 1e3 for stage in stages)
    parts: dict[str, list[float]] = {}
    before_s, ended_s = time.perf_counter(), 0.0
    engine.start()
    for _ in range(ROUNDS):
        tickets: list[Any] = []
        for stage in stages:
            at_s = time.perf_counter()
            tickets.append(engine.launch(stage, requests, Stream.MAIN, tickets[-1:]))
            parts.setdefault(f"launch {stage}", []).append(time.perf_counter() - at_s)
        tickets[-1].wait()
        woke_s = time.perf_counter()
        kept = engine.settle(tickets[-1])
        settle(GRAPH, tickets[-1].stage, requests, engine.draft_tokens, 0.0, kept)
        parts.setdefault("settle", []).append(time.perf_counter() - woke_s)
        started_s, end_s = tickets[0].device_span_s()[0], tickets[-1].device_span_s()[1]
        parts.setdefault("device idle", []).append(started_s - ended_s)
        parts.setdefault("wake", []).append(woke_s - end_s)
        parts.setdefault("round", []).append(time.perf_counter() - before_s)
        before_s, ended_s = time.perf_counter(), end_s
    for request in requests:
        engine.release(request)
    found = {f"{name}_ms": statistics.median(s[5:]) * 1e3 for name, s in parts.items()}
    return found | {"device_ms": device_ms, "beyond_device_ms": found["round_ms"] - device_ms}


def rounds_ahead(engine: Any) -> dict[str, float]:
    """Mean milliseconds of a round at batch 1 whose drafts were launched before the round before
    had ended."""
    executor, requests = engine.executor, requests_of(1, 256)
    launch(engine, executor.prefill, requests)
    stages = executor.speculate + executor.check
    device_ms = sum(time_stage(engine, stage, requests, 20)[0] * 1e3 for stage in stages)
    drafted = chained(engine, executor.speculate, requests, ())
    began_s = time.perf_counter()
    for _ in range(ROUNDS):
        checked = chained(engine, executor.check, requests, drafted)
        drafted = chained(engine, executor.speculate, requests, checked)
        finish(engine, checked[0], requests)
    round_ms = (time.perf_counter() - began_s) / ROUNDS * 1e3
    drafted[0].wait()
    for request in requests:
        engine.release(request)
    beyond_ms = round_ms - device_ms
    return {"round_ms": round_ms, "device_ms": device_ms, "beyond_device_ms": beyond_ms}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="where results go")
    parser.add_argument("--pair", default="tinyllama-1.1b:llama-2-7b")
    options = parser.parse_args()
    report = Report(options.json)
    engine = build_engine(options.pair, GraphConfig(4, max_requests=2, max_context_tokens=1024))
    report.section("provenance", lambda: provenance(engine.device.device, 0, "injected"))
    for stages in (engine.executor.speculate + engine.executor.check, (Stage.DECODE,)):
        name = " ".join(stages)
        print(report.section(name, lambda s=stages: rounds(engine, s)))
    print(report.section("drafts ahead", lambda: rounds_ahead(engine)))


if __name__ == "__main__":
    main()
