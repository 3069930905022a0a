"""Benchmark tables out of the simulated world, in the formats that people bring.

Two architectures at three loads, with stage times near those measured on an H100 (round
numbers, jittered launch by launch), written as a plain CSV, with or without its requests, or
as vLLM `bench serve` JSON. Used by `audit_faults.py`.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pdvsim.acceptance import Acceptance
from pdvsim.architectures import Config
from pdvsim.core import EAGER, GRAPH, Request, Stage
from pdvsim.des import HostCosts, simulate
from pdvsim.models import Pair, shape
from pdvsim.work import Work
from pdvsim.workload import Lengths, Workload, closed_loop, poisson

GPU_MIB = 81559.0
# One pass: eager seconds, graph seconds at batch 1, graph seconds per further request.
PASS_S = {
    "tinyllama-1.1b": (17.4e-3, 3.2e-3, 0.09e-3),
    "llama-2-7b": (30.9e-3, 9.1e-3, 0.17e-3),
    "codellama-34b": (62.4e-3, 30.6e-3, 0.9e-3),
}
VERIFIERS = tuple(PASS_S)
ARCHITECTURES = ("pd", "pdv", "three_lane")


@dataclass(frozen=True)
class Costs:
    """Stage times of one pair on one machine, with launch-to-launch jitter."""

    pair: Pair
    batched: bool
    slower: float
    jitter: float
    rng: np.random.Generator

    def cost(self, stage: Stage, work: Work) -> tuple[float, float]:
        model = self.pair.draft if stage.model == "draft" else self.pair.verifier
        eager, graph, further = PASS_S[model.name]
        one = graph + further * (work.batch - 1) if self.batched else eager
        device = (
            max(1, work.passes) * one * self.slower * float(self.rng.lognormal(0.0, self.jitter))
        )
        return 0.1e-3, device


@dataclass
class Bench:
    """What was measured and how it will be written; faults edit it."""

    rng: np.random.Generator
    pair: Pair
    claimed: Pair
    format: str
    with_detail: bool
    with_offered: bool
    on_demand: bool
    draft_tokens: int
    acceptance: Acceptance
    cells: list[dict[str, Any]]


def measure(
    bench: Bench, system: str, load: float, costs: Costs, workload: Workload, closed: bool
) -> dict[str, Any]:
    """Run one cell to its end and keep what a load generator sees."""
    executor = GRAPH if costs.batched else EAGER
    config = Config(system, executor, batch_cap=16, draft_tokens=bench.draft_tokens)
    record = simulate(config, workload, costs, HostCosts(wake_s=50e-6))
    done = [r for r in record.requests if r.completed_s is not None]
    offered = len(workload) if workload.deadline_s is None else len(record.requests)
    return {
        "system": system,
        "load": load,
        "closed": closed,
        "elapsed_s": record.end_s,
        "offered": offered,
        "requests": done,
        "latencies": [(r.completed_s or 0.0) - r.arrival_s for r in done],
        "memory": _memory(bench, done, load),
    }


def _memory(bench: Bench, done: list[Request], load: float) -> float:
    """MiB that the measured pair takes: a pool, or weights, caches and overhead."""
    if not bench.on_demand:
        return round(0.9 * GPU_MIB + bench.rng.normal(0, 5), 0)
    tokens = max((r.prompt_tokens + r.produced_tokens for r in done), default=0)
    per_token = bench.pair.draft.kv_bytes_per_token + bench.pair.verifier.kv_bytes_per_token
    caches = max(load, 1.0) * tokens * per_token
    overhead = bench.rng.uniform(600, 2500)
    return float(round((bench.pair.weight_bytes + caches) / 2**20 + overhead, 0))


def build(seed: int, fault: str | None) -> Bench:
    """A table's worth of runs, with the faults that happen while measuring."""
    rng = np.random.default_rng([seed, 77])
    pair = Pair(shape("tinyllama-1.1b"), shape(VERIFIERS[rng.integers(3)]))
    draft_tokens = int(rng.integers(3, 6))
    acceptance = Acceptance.constant(float(rng.uniform(0.45, 0.85)), draft_tokens)
    plain = fault == "wrong_pair" or rng.random() < 0.6
    bench = Bench(
        rng=rng,
        pair=pair,
        claimed=pair,
        format="csv" if plain else "vllm",
        with_detail=bool(rng.random() < 0.5),
        with_offered=bool(rng.random() < 0.5),
        on_demand=fault == "wrong_pair" or bool(rng.random() < 0.5),
        draft_tokens=draft_tokens,
        acceptance=acceptance,
        cells=[],
    )
    costs = Costs(
        pair,
        bool(rng.random() < 0.5),
        float(rng.uniform(0.9, 1.6)),
        float(rng.uniform(0.02, 0.1)),
        rng,
    )
    lengths = Lengths(int(rng.integers(16, 129)), int(rng.integers(16, 49)), 0.3)
    systems = rng.choice(ARCHITECTURES, 2, replace=False).tolist()
    closed = bool(rng.random() < 0.5)
    count = int(rng.integers(50, 140))
    seeds = np.random.SeedSequence(seed)
    base = _closed(16, 96, lengths, acceptance, seeds.spawn(1)[0])
    probe = measure(bench, systems[0], 16, costs, base, True)
    capacity = len(probe["requests"]) / probe["elapsed_s"]
    loads = (2.0, 4.0, 8.0) if closed else tuple(round(capacity * u, 3) for u in (0.3, 0.5, 0.7))
    if fault == "truncated" and not closed:
        loads = tuple(round(capacity * u, 3) for u in (0.5, 1.7, 2.6))
    deadline_s = None
    if fault == "truncated":
        deadline_s = float(rng.uniform(15, 40)) / capacity
    for load, child in zip(loads, seeds.spawn(len(loads)), strict=True):
        if closed:
            workload = _closed(int(load), count, lengths, acceptance, child)
        else:
            sent = count if deadline_s is None else max(3, round(load * deadline_s))
            workload = poisson(load, sent, lengths, acceptance, child)
        if deadline_s is not None:
            workload = replace(workload, deadline_s=deadline_s, stop_after=None)
        bench.cells += [measure(bench, s, load, costs, workload, closed) for s in systems]
    return bench


def _closed(
    concurrency: int,
    count: int,
    lengths: Lengths,
    acceptance: Acceptance,
    seed: np.random.SeedSequence,
) -> Workload:
    """`count` requests or a little more, N in flight until they run out."""
    cycles = max(1, (count - 2 * concurrency) // concurrency)
    return replace(closed_loop(concurrency, lengths, acceptance, seed, cycles), stop_after=None)


def row_of(bench: Bench, cell: dict[str, Any]) -> dict[str, Any]:
    """The numbers of one cell as a load generator computes them, over completed requests."""
    requests, divide = cell["requests"], cell.get("divide", 1.0)
    latencies = np.array(cell["latencies"]) / divide
    elapsed = cell["elapsed_s"] / divide
    tokens = sum(r.produced_tokens for r in requests)
    drafted = sum(r.drafted_tokens for r in requests)
    accepted = sum(r.accepted_tokens for r in requests)
    ttft = np.array([(r.first_token_s or 0.0) - r.arrival_s for r in requests]) / divide
    steps = np.array([max(r.produced_tokens - 1, 1) for r in requests])
    empty = len(requests) == 0
    return {
        "elapsed_s": elapsed,
        "completed": len(requests),
        "offered": cell["offered"],
        "tokens": tokens,
        "prompt_tokens": sum(r.prompt_tokens for r in requests),
        "request_throughput": len(requests) / elapsed,
        "output_throughput": tokens / elapsed,
        "mean_ms": 0.0 if empty else 1e3 * float(latencies.mean()),
        "std_ms": 0.0 if empty else 1e3 * float(latencies.std()),
        "median_ms": 0.0 if empty else 1e3 * float(np.median(latencies)),
        "p99_ms": 0.0 if empty else 1e3 * float(np.percentile(latencies, 99)),
        "ttft_ms": 0.0 if empty else 1e3 * float(ttft.mean()),
        "tpot_ms": 0.0 if empty else 1e3 * float(((latencies - ttft) / steps).mean()),
        "drafted": drafted,
        "accepted": accepted,
        "rounds": sum(r.rounds for r in requests),
        "latencies": latencies.tolist(),
        "ttfts": ttft.tolist(),
        "divide": divide,
    }


def write_csv(bench: Bench, folder: Path) -> tuple[Path, Path | None]:
    """A hand-made results table: rounded numbers, columns as people choose them."""
    path, detail = folder / "table.csv", folder / "requests.csv"
    with path.open("w", newline="") as file:
        writer: Any = None
        for cell in bench.cells:
            row = row_of(bench, cell)
            line = {
                "system": cell["system"],
                "load": cell["load"],
                "concurrency" if cell["closed"] else "rate_per_s": cell["load"],
                "completed": row["completed"],
                "output_tokens": row["tokens"],
                "output_throughput": f"{row['output_throughput']:.2f}",
                "mean_e2el_ms": f"{row['mean_ms']:.2f}",
                "std_e2el_ms": f"{row['std_ms']:.2f}",
                "mean_tpot_ms": f"{row['tpot_ms']:.3f}",
                "draft_tokens": bench.draft_tokens,
                "tokens_per_request": round(
                    (row["tokens"] + row["prompt_tokens"]) / max(row["completed"], 1), 1
                ),
                "spec_decode_acceptance_rate": f"{row['accepted'] / max(row['drafted'], 1):.2%}",
                "gpu_memory_mib": cell["memory"],
            }
            if bench.with_offered:
                line["offered"] = row["offered"]
            if writer is None:
                writer = csv.DictWriter(file, line.keys())
                writer.writeheader()
            writer.writerow(line)
    if not bench.with_detail:
        return path, None
    with detail.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            [
                "system",
                "load",
                "id",
                "e2el_ms",
                "ttft_ms",
                "output_tokens",
                "drafted_tokens",
                "accepted_tokens",
            ]
        )
        for cell in {(c["system"], c["load"]): c for c in bench.cells}.values():
            row = row_of(bench, cell)
            for r, latency, ttft in zip(
                cell["requests"], row["latencies"], row["ttfts"], strict=True
            ):
                rows.writerow(
                    [
                        cell["system"],
                        cell["load"],
                        f"req_{r.id:04d}",
                        1e3 * latency,
                        1e3 * ttft,
                        r.produced_tokens,
                        r.drafted_tokens,
                        r.accepted_tokens,
                    ]
                )
    return path, detail


def write_vllm(bench: Bench, folder: Path) -> tuple[Path, Path | None]:
    """`vllm bench serve --append-result`, with request lists where asked for."""
    path = folder / "results.jsonl"
    with path.open("w") as file:
        for cell in bench.cells:
            row = row_of(bench, cell)
            document: dict[str, Any] = {
                "label": cell["system"],
                "backend": "openai",
                "num_prompts": row["offered"],
                "request_rate": "inf" if cell["closed"] else cell["load"],
                "max_concurrency": int(cell["load"]) if cell["closed"] else None,
                "duration": row["elapsed_s"],
                "completed": row["completed"],
                "total_input_tokens": row["prompt_tokens"],
                "total_output_tokens": row["tokens"],
                "request_throughput": row["request_throughput"],
                "output_throughput": row["output_throughput"],
                "mean_ttft_ms": row["ttft_ms"],
                "mean_tpot_ms": row["tpot_ms"],
                "mean_e2el_ms": row["mean_ms"],
                "median_e2el_ms": row["median_ms"],
                "std_e2el_ms": row["std_ms"],
                "p99_e2el_ms": row["p99_ms"],
                "spec_decode_acceptance_rate": 100 * row["accepted"] / max(row["drafted"], 1),
                "spec_decode_acceptance_length": 1 + row["accepted"] / max(row["rounds"], 1),
                "spec_decode_num_drafts": row["rounds"],
                "spec_decode_draft_tokens": row["drafted"],
            }
            if bench.with_detail:
                document["output_lens"] = [r.produced_tokens for r in cell["requests"]]
                document["ttfts"] = row["ttfts"]
                document["latencies"] = row["latencies"]
            file.write(json.dumps(document) + "\n")
    return path, None
