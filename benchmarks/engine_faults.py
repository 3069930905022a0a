"""Faults on a GPU: what `tests/test_faults.py` does on the CPU, with CUDA graphs and streams.

    python benchmarks/engine_faults.py --json OUT.json [--device cpu]

For each drafter one engine, and on it closed loops of every architecture, of rounds of changing
lengths and of mixed passes, in which requests are cancelled or fail, and pages or memory are out,
before launches, on the device and at the end of work. Every request must end once, all pages come
back, and the tokens of all others be the verifier's own.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from engine_stages import Report

from pdvsim.architectures import ARCHITECTURES
from realengine.device import torch_device
from tests.fault_runs import (
    CHANGING,
    COUNT,
    DRAFTERS,
    Faults,
    ShortCpu,
    ShortCuda,
    alike,
    alone,
    check_ends,
    graph_engine,
    run_with_faults,
)

NAMES = (*ARCHITECTURES, CHANGING)


def runs(drafter: str, where: torch.device, outputs: list[list[list[int]]]) -> dict[str, Any]:
    """All architectures with one drafter; one plan and its expected output for each seed."""
    device = ShortCpu() if where.type == "cpu" else ShortCuda(where)
    engine = graph_engine(drafter, device)
    ended: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    same = leaked = 0
    for name in NAMES:
        for seed, expected in enumerate(outputs):
            device.faults = faults = Faults(seed)
            world, failing = run_with_faults(engine, engine.executor, name, seed, faults)
            ended += Counter(check_ends(world, failing))
            device.align()
            leaked += engine.pages - engine.free_pages
            same += alike(world.source.released_requests, expected)
            seen += faults.seen
    requests = len(NAMES) * len(outputs) * COUNT
    return {
        **ended,
        "requests": requests,
        "tokens_alike": same,
        "leaked_pages": leaked,
        "faults": dict(sorted(seen.items())),
        "ok": same == requests and not leaked,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="where results go")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each architecture")
    options = parser.parse_args()
    report, where = Report(options.json), torch_device(options.device)
    device = ShortCpu() if where.type == "cpu" else ShortCuda(where)
    plain = graph_engine("none", device, 1)
    outputs = [alone(plain, seed) for seed in range(options.seeds)]
    for drafter in DRAFTERS:
        print(drafter, report.section(drafter, lambda d=drafter: runs(d, where, outputs)))


if __name__ == "__main__":
    main()
