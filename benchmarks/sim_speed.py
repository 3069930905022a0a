"""How fast the simulator is, and what it takes.

    python benchmarks/sim_speed.py [TRACE.csv] [--json]

1. The first 10,000 requests of the Azure conversation trace on `pdv` with batched stages, on one
   core: at the trace's own rate, and at one that keeps the GPU busy. From the CSV to the metrics.
2. The published grid: 14 loads x 4 architectures x 5 replications under the pdverify protocol,
   eager executor, on two processes.

The stage times are those of one H100 (TinyLlama-1.1B drafts four tokens, Llama-2-7B verifies
five); the simulator's speed hardly depends on them, but the number of rounds does. The trace is
found through PDVSIM_TRACES, or in `../shared/data/traces` beside the repository.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import simpy
from published_system import PublishedSystem

from pdvsim.acceptance import Acceptance
from pdvsim.architectures import Config
from pdvsim.cell import Cell
from pdvsim.core import GRAPH, Stage
from pdvsim.des import HostCosts, simulate
from pdvsim.invariants import check
from pdvsim.metrics import summarize
from pdvsim.sweep import sweep
from pdvsim.work import Work
from pdvsim.workload import Lengths, trace

REPOSITORY = Path(__file__).parents[1]
TRACE = "AzureLLMInferenceTrace_conv.csv"
REQUESTS = 10_000
ACCEPTANCE = Acceptance.constant(0.7, 4)
BUSY_TIME_SCALE = 4.0
GRID_LOADS = (1, 2, 4, 6, 8, 10, 12, 16, 32, 64, 72, 84, 96, 128)
GRID_ARCHITECTURES = ("baseline", "pd", "three_lane", "pdv")
GRID_LENGTHS = Lengths(prompt_tokens=10, output_tokens=20)
BARS = {"requests_per_wall_s": 3000.0, "peak_memory_mib": 300.0, "grid_wall_s": 20.0}

# Simulated requests per wall second and peak MiB of others on a machine like this one, about
# 1,000 requests on one simulated GPU each; measured by us, their own settings.
PEERS: dict[str, tuple[str, float | None]] = {
    "Dynamo mocker replay (Rust)": ("8,600 to 10,500", 56),
    "simdistserve (SimPy)": ("1,100 to 1,560", 102),
    "Vidur": ("370 to 385", 1391),
    "BLIS (Go)": ("205 to 222", 72),
    "LLMServingSim 2.0": ("1 to 2", None),
}


class H100:
    """Stage times of TinyLlama-1.1B and Llama-2-7B in CUDA graphs, by batch; seconds."""

    BATCH = (1.0, 32.0, 128.0)
    DRAFT_STEP = (1.4e-3, 1.5e-3, 1.9e-3)
    VERIFY = (5.9e-3, 8.2e-3, 20.9e-3)
    FLOPS_PER_S = 500e12
    DRAFT_PREFILL = (2.1e9, 1e-3)  # FLOPs per token, least seconds
    VERIFIER_PREFILL = (13.5e9, 3e-3)
    LAUNCH_S = 0.1e-3

    def __init__(self) -> None:
        sizes = np.arange(1, 129)
        draft = ACCEPTANCE.draft_tokens * np.interp(sizes, self.BATCH, self.DRAFT_STEP)
        verify = np.interp(sizes, self.BATCH, self.VERIFY)
        self._by_batch = {Stage.DRAFT: draft.tolist(), Stage.VERIFY: verify.tolist()}

    def cost(self, stage: Stage, work: Work) -> tuple[float, float]:
        by_batch = self._by_batch.get(stage)
        if by_batch is not None:
            return self.LAUNCH_S, by_batch[work.batch - 1]
        draft = stage is Stage.PREFILL_DRAFT
        flops, least_s = self.DRAFT_PREFILL if draft else self.VERIFIER_PREFILL
        return self.LAUNCH_S, max(work.new_tokens * flops / self.FLOPS_PER_S, least_s)


def replay(path: Path, time_scale: float, requests: int = REQUESTS) -> dict[str, Any]:
    """Simulate the trace, check the invariants, and tell how long that took."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    seed = np.random.SeedSequence(1)
    plan = trace(path, ACCEPTANCE, seed, requests, time_scale, max_context_tokens=4096)
    config = Config("pdv", GRAPH, batch_cap=128)
    record = simulate(config, plan, H100(), HostCosts(event_wake_s=30e-6))
    simulated_s = time.perf_counter()
    summary = summarize(record)
    done_s = time.perf_counter()
    cpu_s = time.process_time() - cpu_s
    check(record)
    stages = len(record.stage_rows)
    return {
        "time_scale": time_scale,
        "requests": len(record.requests),
        "simulated_s": record.end_s,
        "stage_executions": stages,
        "request_rounds": sum(request.rounds for request in record.requests),
        "output_tokens": sum(request.produced_tokens for request in record.requests),
        "mean_in_flight": sum((r.completed_s or 0.0) - r.arrival_s for r in record.requests)
        / record.end_s,
        "gpu_busy": summary["gpu_busy"],
        "wall_s": done_s - wall_s,
        "of_that_metrics_s": done_s - simulated_s,
        "cpu_s": cpu_s,
        "requests_per_wall_s": requests / (done_s - wall_s),
        "requests_per_cpu_s": requests / cpu_s,
        "peak_memory_mib": peak_memory_mib(),
    }


def grid() -> dict[str, Any]:
    """The published grid on two processes."""
    cells = [
        Cell(
            "tinyllama-1.1b:tinyllama-1.1b",
            "eager",
            name,
            concurrency,
            protocol="pdverify",
            prompt_tokens=GRID_LENGTHS.prompt_tokens,
            output_tokens=GRID_LENGTHS.output_tokens,
            spread=GRID_LENGTHS.spread,
            acceptance=ACCEPTANCE.per_position,
            draft_tokens=ACCEPTANCE.draft_tokens,
            seed=1,
        )
        for concurrency in GRID_LOADS
        for name in GRID_ARCHITECTURES
    ]
    wall_s = time.perf_counter()
    sweep(cells, PublishedSystem(), replications=5, workers=2)
    return {
        "cells": len(cells),
        "runs": 5 * len(cells),
        "wall_s": time.perf_counter() - wall_s,
    }


def simpy_timeouts_per_s(count: int = 500_000) -> float:
    """What SimPy alone does on this machine at this moment: the floor under any model on it."""

    def sleeper(env: simpy.Environment) -> Any:
        for _ in range(count):
            yield env.timeout(1.0)

    env = simpy.Environment()
    env.process(sleeper(env))
    started_s = time.perf_counter()
    env.run()
    return count / (time.perf_counter() - started_s)


def peak_memory_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def default_trace() -> Path:
    folder = os.environ.get("PDVSIM_TRACES")
    return (Path(folder) if folder else REPOSITORY.parent / "shared/data/traces") / TRACE


def revision() -> str:
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def show(document: dict[str, Any]) -> None:
    for name, load in document["trace"].items():
        print(
            f"{name}: {load['requests_per_wall_s']:,.0f} requests/wall s "
            f"({load['requests_per_cpu_s']:,.0f}/CPU s), {load['wall_s']:.2f} s for "
            f"{load['simulated_s']:.0f} simulated, {load['mean_in_flight']:.0f} in flight, "
            f"GPU busy {load['gpu_busy']:.0%}, {load['stage_executions']:,} stages, "
            f"{load['request_rounds']:,} request-rounds, peak {load['peak_memory_mib']:.0f} MiB"
        )
    print(f"SimPy alone: {document['simpy_timeouts_per_s']:,.0f} timeouts/s")
    print(f"published grid: {document['grid']['wall_s']:.1f} s, {document['grid']['runs']} runs")
    for name, peer in document["peers"].items():
        print(f"beside: {name}: {peer['requests_per_wall_s']} requests/wall s")
    print("bars:", {name: "met" if met else "MISSED" for name, met in document["met"].items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("trace", nargs="?", type=Path, default=default_trace())
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not arguments.trace.is_file():
        sys.exit(f"sim_speed: no trace at {arguments.trace}; give its path, or set PDVSIM_TRACES")
    replay(arguments.trace, 1.0, requests=100)  # pays for imports and first use
    loads = {
        "own rate": replay(arguments.trace, 1.0),
        f"{BUSY_TIME_SCALE:g} x its rate": replay(arguments.trace, BUSY_TIME_SCALE),
    }
    published = grid()
    document = {
        "benchmark": "sim_speed",
        "command": "python benchmarks/sim_speed.py --json",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": revision(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "simpy_timeouts_per_s": simpy_timeouts_per_s(),
        "trace": loads,
        "grid": published,
        "bars": BARS,
        "met": {
            "requests_per_wall_s": min(load["requests_per_wall_s"] for load in loads.values())
            >= BARS["requests_per_wall_s"],
            "peak_memory_mib": peak_memory_mib() <= BARS["peak_memory_mib"],
            "grid_wall_s": published["wall_s"] <= BARS["grid_wall_s"],
        },
        "peers": {
            name: {"requests_per_wall_s": rate, "peak_memory_mib": memory}
            for name, (rate, memory) in PEERS.items()
        },
    }
    print(json.dumps(document, indent=1)) if arguments.json else show(document)


if __name__ == "__main__":
    main()
