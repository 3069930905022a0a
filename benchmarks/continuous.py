"""`continuous` on a GPU: its tokens, and its throughput beside that of every other architecture.

    python benchmarks/continuous.py --json OUT.json --drafters none,eagle3 [--counts 1,8,32]

First (`--check`) tokens in float32 through CUDA graphs and Triton kernels, prompts in chunks
beside rounds, against the verifier alone on the CPU. Then for each drafter one engine that runs
every architecture in a closed loop, 256 prompt and 128 output tokens, 4 drafts, acceptance 0.7 a
position (injected). `--lengths` adds, with a head: what the graphs of lengths 0 to 8 take, and
rounds of 1, 2, 4 and 8 drafts beside engines that know one length only.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy
import torch
from engine_heads import LENGTHS, moved, time_lengths
from engine_stages import Report, drive

from pdvsim.cell import Cell
from pdvsim.cell_values import Values
from pdvsim.core import Request
from pdvsim.machine import plan_of
from pdvsim.metrics import summarize
from pdvsim.models import ModelShape
from pdvsim.records import STAGES, RunRecord
from pdvsim.workload import Workload
from realengine.bench import warm_up
from realengine.device import free_bytes, open_device
from realengine.graph import GraphConfig, GraphEngine, build_engine, plan
from realengine.graph.weights import random_weights
from realengine.world import RealWorld

PROMPT_TOKENS, OUTPUT_TOKENS, DRAFT_TOKENS = 256, 128, 4
CHECKED = (("none", 400), ("model", 40), ("toy-eagle3", 40), ("toy-eagle3", 400))
ALL = ("continuous", "baseline", "pd", "plain", "pdv", "three_lane")


# Tokens


def check_engine(drafter: str, device_name: str) -> GraphEngine:
    """In float32: the toy pair or its head, or random weights of a model whose draft is a part of
    it."""
    device, config = open_device(device_name), GraphConfig(DRAFT_TOKENS, 12, 160)
    if drafter.startswith("toy"):
        return build_engine(drafter, config, device_name, torch.float32)
    cpu = torch.device("cpu")
    verifier = random_weights(
        ModelShape("check", 4, 256, 4, 2, 512, 1024, 1024), cpu, torch.float32
    )
    verifier = replace(verifier, head=verifier.head * 4)
    draft = replace(verifier, layers=verifier.layers[:3]) if drafter == "model" else None
    return GraphEngine(config, moved(verifier, device.device), moved(draft, device.device), device)


def check_tokens(drafter: str, budget: int) -> dict[str, Any]:
    """60 requests in a closed loop of 12 on the GPU; each one's tokens beside those of the verifier
    alone on the CPU."""
    generator = numpy.random.default_rng(budget)
    lengths = [generator.integers(1, high, 60).tolist() for high in (100, 60)]
    workload = Workload("closed-loop", *lengths, [()] * 60, in_flight=12)
    engine = check_engine(drafter, "cuda")
    kind = str(engine.executor.drafter)
    cell = cell_of(kind, "continuous", 12, {"token_budget": budget})
    world = RealWorld(cell.config(), workload, engine)
    record = world.run()
    served = world.source.released_requests
    alone = [Request(i, *each) for i, each in enumerate(zip(*lengths, strict=True))]
    plain = check_engine(drafter, "cpu")
    for i in range(0, len(alone), 12):
        drive(plain, alone[i : i + 12], plain=True)
    same = sum(a.tokens == b.tokens for a, b in zip(served, alone, strict=True))
    rounds = max(1, sum(request.rounds for request in served))
    leaked = engine.pages - engine.free_pages
    return {
        "same": same,
        "of": len(alone),
        "drafts_kept_a_round": sum(request.accepted_tokens for request in served) / rounds,
        "leaked": leaked,
        "stages": stage_rows(record),
        "ok": same == len(alone) and not leaked,
    }


# Closed loops


def cell_of(drafter: str, name: str, count: int, parameters: dict[str, Any], **more: Any) -> Cell:
    kind = drafter if drafter in ("none", "eagle3", "ngram") else "model"
    return Cell(
        "a:b",
        "graph",
        name,
        count,
        drafter=kind,
        parameters=Values(parameters),
        prompt_tokens=PROMPT_TOKENS,
        output_tokens=OUTPUT_TOKENS,
        draft_tokens=DRAFT_TOKENS,
        **more,
    )


def closed_loop(
    engine: GraphEngine, drafter: str, name: str, count: int, cycles: float
) -> dict[str, Any]:
    """One run of an architecture: `cycles` completions for each request in flight."""
    cell = cell_of(drafter, name, count, {}, requests=max(3, round(cycles * count)))
    world = RealWorld(cell.config(), plan_of(cell, 0), engine)
    record = world.run()
    summary = summarize(record)
    found = {
        "tokens_per_s": summary["output_throughput"],
        "ttft_ms": summary["mean_ttft_ms"],
        "tpot_ms": summary["mean_tpot_ms"],
        "gpu_busy": summary["gpu_busy"],
        "end_s": record.end_s,
        "failed": len(world.failures),
        "leaked_pages": engine.pages - engine.free_pages,
        "stages": stage_rows(record),
    }
    print(
        f"    {drafter} {name} C {count}: {found['tokens_per_s']:,.0f} tok/s, busy "
        f"{found['gpu_busy']:.3f}",
        flush=True,
    )
    return found


def stage_rows(record: RunRecord) -> dict[str, Any]:
    """Of each stage: how often, and medians of its batch, tokens, device and host time."""
    found = {}
    names = {
        "batch": record.column("batch"),
        "new_tokens": record.column("query_tokens"),
        "device_ms": record.column("device_alone_s") * 1e3,
        "host_ms": record.column("launch_alone_s") * 1e3,
    }
    for code, stage in enumerate(STAGES):
        mine = record.column("stage") == code
        if mine.any():
            medians = {name: float(numpy.median(each[mine])) for name, each in names.items()}
            found[str(stage)] = {"launches": int(mine.sum()), **medians}
    return found


def build(drafter: str, verifier: str, config: GraphConfig, held: list[GraphEngine]) -> Any:
    """Build an engine into `held`; what that and its graphs took."""
    began_s = time.perf_counter()
    held.append(build_engine(f"{drafter}:{verifier}", config))
    print(held[0].about_graphs, flush=True)
    return {"build_s": time.perf_counter() - began_s, "graphs": held[0].about_graphs}


def loops(
    report: Report, drafter: str, counts: Sequence[int], options: Any, until_s: float
) -> None:
    """All closed loops of one drafter, on one engine; none starts behind `until_s`."""
    gc.collect()
    held: list[GraphEngine] = []
    config = GraphConfig(DRAFT_TOKENS, max(counts), PROMPT_TOKENS + OUTPUT_TOKENS)
    report.section(f"{drafter} build", lambda: build(drafter, options.verifier, config, held))
    if not held:
        return
    (engine,) = held
    report.section(
        f"{drafter} warm up", lambda: warm_up(cell_of(drafter, "continuous", 1, {}), engine)
    )
    for count in counts:
        for name in options.architectures.split(","):
            if time.perf_counter() < until_s:
                key = f"{drafter} {name} C {count}"
                if key in report.results:
                    report.results[f"{key}, the first time"] = report.results[key]
                report.section(
                    key,
                    lambda n=name, c=count: closed_loop(engine, drafter, n, c, options.cycles),
                )


# Lengths


def fixed_lengths(report: Report, verifier: str) -> None:
    """An engine of lengths 0 to 8 for 256 requests; its rounds beside those of engines that know
    one length."""
    most, room = 256, 128 * (PROMPT_TOKENS + 300)
    plans = {str(length): (length,) for length in (1, 2, 4, 8)}
    mixed_rows = plan.MIXED_ROWS
    found: dict[str, dict[str, dict[str, float]]] = {}
    for lengths in (LENGTHS, (1,), (2,), (4,), (8,)):
        gc.collect()
        held: list[GraphEngine] = []
        # Mixed passes are of no matter here; their graphs are counted with those of all lengths.
        plan.MIXED_ROWS = mixed_rows if lengths is LENGTHS else ()
        config = GraphConfig(
            4 if 4 in lengths else lengths[0], most, None, cache_tokens=room, draft_lengths=lengths
        )
        free = free_bytes(torch.device("cuda"))
        about = report.section(
            f"engine of {lengths}", lambda c=config, h=held: build("eagle3", verifier, c, h)
        )
        about["took_bytes"] = free - free_bytes(torch.device("cuda"))
        for batch in (1, 32, 128) if held else ():
            mine = {k: v for k, v in plans.items() if int(k) in lengths}
            found.setdefault(str(lengths), {})[str(batch)] = report.section(
                f"rounds of {lengths} at batch {batch}",
                lambda b=batch, m=mine, h=held: time_lengths(h[0], b, m, 40),
            )
        held.clear()
    every = found.get(str(LENGTHS), {})
    for length in plans:
        alone = found.get(f"({length},)", {})
        ratios = {b: every[b][length] / each[length] for b, each in alone.items()}
        report.section(f"{length} drafts, over an engine of {length}", lambda r=ratios: r)
        print(length, ratios)


def table(
    report: Report, drafters: Sequence[str], counts: Sequence[int], names: Sequence[str]
) -> None:
    """Output tokens/s, and `continuous` over the best of the others."""
    for drafter in drafters:
        print(f"\n{drafter:16}" + "".join(f"{name:>16}" for name in names) + "   over the best")
        for count in counts:
            rows = [report.results.get(f"{drafter} {name} C {count}", {}) for name in names]
            rates = [row.get("tokens_per_s") or 0.0 for row in rows]
            pairs = list(zip(names, rates, strict=True))
            best = max([rate for name, rate in pairs if "continuous" not in name], default=0.0)
            ratio = f"{dict(pairs).get('continuous', 0.0) / best:14.3f}" if best else ""
            print(f"C {count:4d}          " + "".join(f"{rate:16,.0f}" for rate in rates) + ratio)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="where results go")
    parser.add_argument("--check", action="store_true", help="compare tokens with the CPU's first")
    parser.add_argument("--drafters", default="", help="none, eagle3 or draft models")
    parser.add_argument("--verifier", default="llama-2-7b")
    parser.add_argument("--counts", default="1,8,32,64,128,256", help="values of C")
    parser.add_argument(
        "--architectures", default=",".join(ALL), help="of one named twice the second run counts"
    )
    parser.add_argument("--cycles", type=float, default=1.0, help="measured requests, times C")
    parser.add_argument("--lengths", action="store_true", help="engines of one length and of all")
    parser.add_argument("--seconds", type=float, default=1e9, help="no new loop starts later")
    options = parser.parse_args()
    until_s = time.perf_counter() + options.seconds
    report = Report(options.json)
    counts = [int(count) for count in options.counts.split(",")]
    drafters = [name for name in options.drafters.split(",") if name]
    for drafter, budget in CHECKED if options.check else ():
        name = f"tokens {drafter}, budget {budget}"
        result = report.section(name, lambda d=drafter, b=budget: check_tokens(d, b))
        print("   ", {k: v for k, v in result.items() if k not in ("error", "stages")}, flush=True)
    for drafter in drafters:
        loops(report, drafter, counts, options, until_s)
    if options.lengths:
        fixed_lengths(report, options.verifier)
    table(report, drafters, counts, list(dict.fromkeys(options.architectures.split(","))))


if __name__ == "__main__":
    main()
