"""Each stage of the graph executor on a GPU: first its results, then its time beside its floor.

    python benchmarks/engine_stages.py --json OUT.json [--quick] [--pair DRAFTER:VERIFIER]

Checks come first: logits of the Triton kernels against float64, and greedy speculation of the toy
pair against its verifier alone, token for token. Then every stage is timed over batch and context
with a cold L2 cache, beside max(bytes / copy rate, FLOPs / matmul rate) with both rates measured on
the same device; and the host's share of a decode round. Results are written after each section.
With --pair only the stages of that pair are timed, which may have any drafter.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from pdvsim.core import GRAPH, Request, Stage, Stream, settle
from pdvsim.models import ModelShape, Pair, pair, shape
from realengine import toy
from realengine.device import CudaDevice
from realengine.graph import GraphConfig, GraphEngine, build_engine
from realengine.graph.model import Layer, Weights, forward, logits
from realengine.graph.ops import Ops, Ragged, TorchOps, Uniform
from realengine.graph.paged import paged_cache
from realengine.graph.triton_ops import TritonOps
from realengine.graph.weights import random_weights

GPU = torch.device("cuda")
DRAFT_TOKENS = 4


def ceilings() -> dict[str, float]:
    """Copy rate (bytes read and written) and bf16 matrix-product rate of this device."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device=GPU)
    target = torch.empty_like(source)
    copy_s = device_s(lambda: target.copy_(source))
    a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device=GPU) for _ in range(2))
    matmul_s = device_s(lambda: a @ b)
    return {
        "copy_bytes_per_s": 2 * (1 << 30) / copy_s,
        "matmul_flops_per_s": 2 * 8192**3 / matmul_s,
    }


def device_s(work: Callable[[], object], repeats: int = 10) -> float:
    """Median device time of `work`."""
    times = []
    for _ in range(repeats + 2):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e-3)
    return statistics.median(times[2:])


# Results


def as_type(weights: Weights, dtype: torch.dtype) -> Weights:
    def cast(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.to(dtype)

    layers = tuple(
        Layer(*(cast(getattr(layer, field.name)) for field in fields(Layer)))
        for layer in weights.layers
    )
    embedding, norm, head = (t.to(dtype) for t in (weights.embedding, weights.norm, weights.head))
    return replace(weights, embedding=embedding, layers=layers, norm=norm, head=head)


def run_all_stages(weights: Weights, ops: Ops, prompts: Sequence[Tensor], more: Tensor) -> Tensor:
    """Logits of a ragged prefill in two chunks, a draft's two steps and a verify pass."""
    batch, width = len(prompts), 64
    table = torch.arange(1, batch * width + 1, dtype=torch.int32, device=GPU).view(batch, width)
    lengths = torch.tensor([len(p) for p in prompts], device=GPU)
    dtype = weights.embedding.dtype
    cache = paged_cache(weights.shape, batch * width + 1, 16, table, lengths, dtype)
    outputs = []
    for part in (0, 1):
        rows: list[Tensor] = []
        blocks: list[list[int]] = []
        for slot, prompt in enumerate(prompts):
            half = len(prompt) // 2
            piece, begin = (prompt[:half], 0) if part == 0 else (prompt[half:], half)
            blocks += [
                [sum(map(len, rows)) + i, min(64, len(piece) - i), slot, begin + i]
                for i in range(0, len(piece), 64)
            ]
            rows.append(piece)
        view = Ragged(torch.tensor(blocks, device=GPU))
        outputs.append(forward(weights, ops, cache, torch.cat(rows), view))
    slots = torch.arange(batch, device=GPU)
    for query, offset in ((2, -2), (1, 0), (5, 1), (17, -1)):
        tokens = more[:batch, :query].flatten()
        outputs.append(forward(weights, ops, cache, tokens, Uniform(slots, query, offset)))
    return logits(weights, ops, torch.cat(outputs)).double()


def check_logits(shape: ModelShape, layers: int, batch: int) -> dict[str, Any]:
    """Error of bf16 logits against float64: ours, and plain PyTorch's in the same type."""
    shape = replace(shape, layers=layers, vocabulary=2048)
    weights = random_weights(shape, GPU, torch.bfloat16)
    generator = torch.Generator(GPU).manual_seed(1)
    lengths = [(37 * i + 3) % 300 + 2 for i in range(batch)]
    prompts = [torch.randint(2048, (n,), device=GPU, generator=generator) for n in lengths]
    more = torch.randint(2048, (batch, 32), device=GPU, generator=generator)
    count = torch.cuda.get_device_properties(GPU).multi_processor_count
    exact = run_all_stages(as_type(weights, torch.float64), TorchOps(), prompts, more)
    ours = run_all_stages(weights, TritonOps(count), prompts, more)
    plain = run_all_stages(weights, TorchOps(), prompts, more)
    spread = exact.std()
    errors = [((x - exact).abs().max() / spread).item() for x in (ours, plain)]
    return {
        "max_error_in_std": errors[0],
        "pytorch_bf16_max_error_in_std": errors[1],
        "ok": errors[0] <= 1.5 * errors[1] + 0.01,
    }


def check_greedy(dtype: torch.dtype) -> dict[str, Any]:
    """Toy pair through CUDA graphs: speculation against the verifier alone."""
    config = GraphConfig(DRAFT_TOKENS, max_requests=24, max_context_tokens=512)
    engine = build_engine("toy", config, "cuda", dtype)
    tokens: list[list[list[int]]] = []
    drafted = accepted = 0
    for plain in (False, True):
        requests = [
            Request(i, len(prompt), 64, prompt=prompt)
            for i, prompt in enumerate(toy.prompts(20, 100))
        ]
        requests[3] = Request(3, 7, 5, prompt=list(b"a test."))
        drive(engine, requests, plain)
        tokens.append([request.tokens for request in requests])
        drafted += sum(request.drafted_tokens for request in requests)
        accepted += sum(request.accepted_tokens for request in requests)
    same = sum(a == b for a, b in zip(*tokens, strict=True))
    leaked = engine.pages - engine.free_pages
    return {"same": same, "of": len(tokens[0]), "acceptance": accepted / drafted, "leaked": leaked}


# Times


def launch(
    engine: GraphEngine,
    stages: Sequence[Stage],
    batch: Sequence[Request],
    drafts: int | None = None,
) -> Any:
    """Run `stages` in a chain and settle the last one. Returns its ticket."""
    ticket: Any = None
    for stage in stages:
        ticket = engine.launch(stage, batch, Stream.MAIN, [ticket] if ticket else [], drafts)
    ticket.wait()
    length = engine.draft_tokens if drafts is None else drafts
    settle(GRAPH, ticket.stage, batch, length, 0.0, engine.settle(ticket))
    return ticket


def drive(engine: GraphEngine, requests: Sequence[Request], plain: bool) -> None:
    """Serve all `requests` together to their ends."""
    launch(engine, GRAPH.plain_prefill if plain else engine.executor.prefill, requests)
    stages = (Stage.DECODE,) if plain else engine.executor.speculate + engine.executor.check
    while alive := [request for request in requests if not request.finished]:
        launch(engine, stages, alive)
    for request in requests:
        engine.release(request)


def time_stage(
    engine: GraphEngine,
    stage: Stage,
    batch: Sequence[Request],
    repeats: int,
    drafts: int | None = None,
) -> tuple[float, float]:
    """Median device and host seconds of one launch with a cold L2.

    The stream is kept busy by the flush while the host launches, so that gaps between the
    launch's pieces do not count as device time.
    """
    assert isinstance(engine.device, CudaDevice)
    stream = engine.device.streams[Stream.MAIN]
    flushed = torch.empty(512 << 20, dtype=torch.uint8, device=GPU)
    device, host = [], []
    for _ in range(repeats + 2):
        with torch.cuda.stream(stream):
            for _ in range(4):
                flushed.zero_()
        began_s = time.perf_counter()
        ticket = engine.launch(stage, batch, Stream.MAIN, [], drafts)
        host.append(time.perf_counter() - began_s)
        ticket.wait()
        length = engine.draft_tokens if drafts is None else drafts
        settle(GRAPH, stage, batch, length, 0.0, engine.settle(ticket))
        start_s, end_s = ticket.device_span_s()
        device.append(end_s - start_s)
    return statistics.median(device[2:]), statistics.median(host[2:])


def time_rounds(
    engine: GraphEngine,
    batch: Sequence[Request],
    stages: Sequence[Stage],
    repeats: int,
    drafts: Sequence[int | None] = (None,),
) -> float:
    """Median wall seconds of one round, back to back; `drafts` are their lengths, in turn."""
    walls = []
    for i in range(repeats + 2):
        began_s = time.perf_counter()
        launch(engine, stages, batch, drafts[i % len(drafts)])
        walls.append(time.perf_counter() - began_s)
    return statistics.median(walls[2:])


def requests_of(batch: int, context: int) -> list[Request]:
    return [Request(i, context, 256, outcomes=[0] * 256) for i in range(batch)]


def time_pair(
    engine: GraphEngine,
    models: Pair,
    batch: int,
    context: int,
    rates: dict[str, float],
    repeats: int,
) -> dict[str, Any]:
    """All stages of one batch and context; a draft stage is told by its steps."""
    requests = requests_of(batch, context)
    draft, verifier = models.draft, models.verifier
    began_s = time.perf_counter()
    start_s, end_s = launch(engine, engine.executor.prefill, requests).device_span_s()
    row: dict[str, Any] = {
        "batch": batch,
        "context": context,
        "prefill_both_wall_ms": (time.perf_counter() - began_s) * 1e3,
        "prefill_verifier_ms": (end_s - start_s) * 1e3,
    }
    for stage, model, query in (
        (Stage.DRAFT, draft, 1),
        (Stage.VERIFY, verifier, DRAFT_TOKENS + 1),
        (Stage.DECODE, verifier, 1),
    ):
        device, host = time_stage(engine, stage, requests, repeats)
        steps = DRAFT_TOKENS if stage is Stage.DRAFT else 1
        floor_s = model.floor_s(batch * query, batch * context, *rates.values())
        row[f"{stage}_ms"] = device * 1e3 / steps
        row[f"{stage}_floor_ms"] = floor_s * 1e3
        row[f"{stage}_host_ms"] = host * 1e3
    round_s = time_rounds(engine, requests, (Stage.DRAFT, Stage.VERIFY), repeats)
    busy_ms = row["draft_ms"] * DRAFT_TOKENS + row["verify_ms"]
    row["round_wall_ms"] = round_s * 1e3
    row["round_beyond_device_ms"] = round_s * 1e3 - busy_ms
    decode_s = time_rounds(engine, requests, (Stage.DECODE,), repeats)
    row["decode_beyond_device_ms"] = decode_s * 1e3 - row["decode_ms"]
    for request in requests:
        engine.release(request)
    return row


def kernels_of(engine: GraphEngine, stage: Stage, batch: int, context: int) -> list[Any]:
    """Where the device time of one launch goes: (kernel, calls, total microseconds)."""
    requests = requests_of(batch, context)
    launch(engine, engine.executor.prefill, requests)
    launch(engine, engine.executor.speculate + engine.executor.check, requests)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        launch(engine, (stage,), requests)
    for request in requests:
        engine.release(request)
    rows = [
        (e.key[:60], e.count, round(e.self_device_time_total, 1)) for e in profile.key_averages()
    ]
    return sorted(rows, key=lambda row: -row[2])[:14]


class Report:
    """Results by section, written to the JSON file as they come; an error is a result."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results: dict[str, Any] = {}

    def section(self, name: str, work: Callable[[], Any]) -> Any:
        began_s = time.perf_counter()
        try:
            self.results[name] = work()
        except Exception:
            self.results[name] = {"error": traceback.format_exc()}
            print(name, "FAILED", traceback.format_exc()[-1500:], flush=True)
        print(f"[{time.perf_counter() - began_s:6.1f} s] {name}", flush=True)
        self.path.write_text(json.dumps(self.results, indent=1))
        return self.results[name]


def measure_pair(
    report: Report,
    name: str,
    cells: Sequence[tuple[int, int]],
    rates: dict[str, float],
    repeats: int,
) -> None:
    """Build the engine of a pair, time its cells, and profile two of its stages."""
    most = max(batch for batch, _ in cells)
    needed = max(batch * (context + 300) for batch, context in cells)
    models = pair(name)
    held: list[GraphEngine] = []

    def build() -> dict[str, float]:
        config = GraphConfig(DRAFT_TOKENS, max_requests=most, cache_tokens=needed)
        began_s = time.perf_counter()
        held.append(build_engine(name, config))
        free = torch.cuda.mem_get_info()[0]
        return {"build_s": time.perf_counter() - began_s, "free_after_gb": free / 1e9}

    report.section(f"{name} build", build)
    for batch, context in cells:
        if held:
            report.section(
                f"{name} batch {batch} context {context}",
                lambda b=batch, c=context: time_pair(held[0], models, b, c, rates, repeats),
            )
    for stage in (Stage.DRAFT, Stage.VERIFY):
        for batch in (1, most):
            if held:
                report.section(
                    f"{name} kernels of {stage} at batch {batch}",
                    lambda s=stage, b=batch: kernels_of(held[0], s, b, 256),
                )
    held.clear()
    gc.collect()
    torch.cuda.empty_cache()


def table(report: Report) -> None:
    for name, result in report.results.items():
        if not isinstance(result, dict) or "verify_ms" not in result:
            print(f"{name}: {json.dumps(result)[:1500]}")
    print("\nms           draft step      verify q=5      decode q=1    beyond device   launch d/v")
    for name, r in report.results.items():
        if isinstance(r, dict) and "verify_ms" in r:
            print(
                f"{name}\n          "
                + "".join(
                    f"{r[f'{stage}_ms']:7.2f}/{r[f'{stage}_floor_ms']:6.2f}  "
                    for stage in ("draft", "verify", "decode")
                )
                + f"{r['round_beyond_device_ms']:7.2f} {r['decode_beyond_device_ms']:5.2f}"
                + f"  {r['draft_host_ms']:6.2f} {r['verify_host_ms']:5.2f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="where results go")
    parser.add_argument("--quick", action="store_true", help="fewer cells and repeats")
    parser.add_argument("--pair", help="time the stages of this pair alone")
    options = parser.parse_args()
    report = Report(options.json)
    rates = report.section("ceilings", ceilings)
    if not options.pair:
        for model, layers, batch in (
            ("tinyllama-1.1b", 4, 9),
            ("llama-2-7b", 2, 5),
            ("codellama-34b", 1, 3),
            ("tinyllama-1.1b", 2, 70),
            ("llama-3.1-8b", 2, 5),  # scaled rotary embedding
            ("qwen2.5-7b", 2, 5),  # biases, seven query heads to a key head
            ("qwen3-8b", 2, 5),  # norms of query and key heads
        ):
            report.section(
                f"logits {model} batch {batch}",
                lambda m=model, n=layers, b=batch: check_logits(shape(m), n, b),
            )
        report.section("greedy toy float32", lambda: check_greedy(torch.float32))
        report.section("greedy toy bfloat16", lambda: check_greedy(torch.bfloat16))
    small = [(1, 256), (8, 256), (32, 256), (128, 256)]
    large = [(64, 256), (1, 1500), (16, 1500)]
    cells = {
        "tinyllama-1.1b:llama-2-7b": small + ([] if options.quick else large),
        "tinyllama-1.1b:codellama-34b": small[:3],
        "llama-3.2-1b:llama-3.1-8b": small,
        "qwen3-0.6b:qwen3-8b": small,
    }
    if options.pair:
        cells = {options.pair: cells.get(options.pair, small)}
    for name, wanted in cells.items():
        measure_pair(report, name, wanted, rates, 8 if options.quick else 20)
    table(report)


if __name__ == "__main__":
    main()
