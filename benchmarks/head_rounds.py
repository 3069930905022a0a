"""Where a round with an EAGLE-3 head spends its time on a GPU, and what changes it.

    python benchmarks/head_rounds.py --json OUT.json [--parts check,profile,...] [--seconds 240]

Parts: `check` (drafts and tokens in float32 against the CPU), `profile` (kernels of a draft, a
verify and a prefill, the host's share of a round), `variants` (draft and verify with and without
early launches, L2 cold), `steps` (of the head, beside their floor), `attention` (tiles of decode
attention), `products` (cuBLAS with and without a bias), `burst` (output tokens/s with the variant
named last). A part that would begin behind `--seconds` is left out.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from engine_burst import measure
from engine_heads import check_drafts, time_steps
from engine_stages import GPU, Report, ceilings, launch
from engine_tiles import attention

from pdvsim.core import Request, Stage, Stream, settle
from pdvsim.models import shape
from realengine.graph import GraphConfig, GraphEngine, build_engine, plan, thin
from realengine.graph.plan import round_work
from realengine.graph.triton_ops import DecodeTile, TritonOps, tiles_of
from realengine.provenance import provenance

PAIR, DRAFTS, PROMPT_TOKENS = "eagle3:llama-2-7b", 4, 256
BATCHES = (1, 8, 32, 64, 256)
# Name: whether kernels launch early, the tile of decode attention.
VARIANTS: dict[str, tuple[bool, DecodeTile | None]] = {
    "late": (False, None),
    "late, 4 warps": (False, DecodeTile(32, 4, 5)),
    "as shipped": (True, None),
}
# (model, new tokens): tiles of decode attention.
TILES = {
    ("llama-2-7b", 5): (
        DecodeTile(16, 1, 5),
        DecodeTile(32, 4, 5),
        DecodeTile(16, 1, 4),
        DecodeTile(16, 1, 6),
    ),
    ("llama-2-7b", 1): (DecodeTile(16, 1, 5), DecodeTile(32, 4, 5)),
    ("llama-3.1-8b", 5): (DecodeTile(32, 4, 5), DecodeTile(16, 2, 5), DecodeTile(32, 2, 5)),
}
MATRICES = {
    "qkv": (12288, 4096),
    "output": (4096, 4096),
    "gate_up": (22016, 4096),
    "down": (4096, 11008),
}


def use(engine: GraphEngine, name: str, batches: Sequence[int]) -> None:
    """Capture the graphs of rounds anew with a variant."""
    ops = ops_of(engine)
    ops.products.early, tile = VARIANTS[name]
    ops.decode_tiles = tiles_of(tile)
    padding = engine.config.max_requests
    runner: Any = engine._runner
    for stage, rest in ((Stage.VERIFY, (DRAFTS,)), (Stage.DRAFT, (DRAFTS + 1, DRAFTS))):
        runner.capture(stage, [round_work([], [], b, padding, *rest) for b in batches])


def ops_of(engine: GraphEngine) -> TritonOps:
    ops = engine._drafter.ops  # type: ignore[attr-defined]
    assert isinstance(ops, TritonOps)
    return ops


class Replays:
    """Graphs of an engine's rounds, replayed over requests that have been prefilled."""

    def __init__(self, engine: GraphEngine, requests: Sequence[Request]) -> None:
        launch(engine, engine.executor.prefill, requests)
        launch(engine, engine.executor.speculate + engine.executor.check, requests)
        self.engine = engine
        held = engine._admission.held(requests).values()
        self.slots = [each.holding.slot for each in held]
        self.lengths = engine._state.lengths.clone()
        self.flushed = torch.empty(256 << 20, dtype=torch.uint8, device=GPU)

    def graph(self, stage: Stage, batch: int) -> Callable[[], None]:
        """Sets a graph up for the first `batch` requests, all drafts rejected."""
        padding = self.engine.config.max_requests
        if stage is Stage.VERIFY:
            item = round_work(self.slots[:batch], [0] * batch, batch, padding, DRAFTS)
        else:
            numbers = [DRAFTS] * batch
            item = round_work(self.slots[:batch], numbers, batch, padding, DRAFTS + 1, DRAFTS)
        captured = self.engine._runner._graphs[stage, item.key]  # type: ignore[attr-defined]
        captured.values.copy_(torch.from_numpy(item.values))
        captured.held = item.values
        torch.cuda.synchronize()
        replay: Callable[[], None] = captured.graph.replay
        return replay

    def ms(self, stage: Stage, batch: int, repeats: int) -> float:
        replay, times = self.graph(stage, batch), []
        for _ in range(repeats + 2):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self.flushed.zero_()
            start.record()
            replay()
            end.record()
            self.engine._state.lengths.copy_(self.lengths)
            end.synchronize()
            times.append(start.elapsed_time(end))
        return statistics.median(times[2:])

    def kernels(self, stage: Stage, batch: int) -> dict[str, Any]:
        replay = self.graph(stage, batch)
        replay()
        found = profiled(replay)
        self.engine._state.lengths.copy_(self.lengths)
        return found


def profiled(work: Callable[[], object]) -> dict[str, Any]:
    """Kernels of `work`: span, time between kernels, and (name, calls, microseconds)."""
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        torch.cuda.synchronize()
    spans = sorted(
        (e.time_range.start, e.time_range.end)
        for e in profile.events()
        if e.device_type == torch.autograd.DeviceType.CUDA
    )
    last, idle_us = spans[0][0], 0.0
    for begin, end in spans:
        idle_us += max(0.0, begin - last)
        last = max(last, end)
    rows = [
        (e.key[:60], e.count, round(e.self_device_time_total, 1)) for e in profile.key_averages()
    ]
    return {
        "span_us": last - spans[0][0],
        "idle_us": idle_us,
        "kernels": sorted(rows, key=lambda row: -row[2])[:18],
    }


def host_share(engine: GraphEngine, batch: int, rounds: int = 12) -> dict[str, float]:
    """Median milliseconds on the host of a round's parts, and the device's wait for it."""
    requests = [Request(i, PROMPT_TOKENS, 128, outcomes=[2] * 128) for i in range(batch)]
    parts: dict[str, list[float]] = {}
    launch(engine, engine.executor.prefill, requests)
    stages, ended_s = engine.executor.speculate + engine.executor.check, 0.0
    for _ in range(rounds):
        tickets: list[Any] = []
        for stage in stages:
            at_s = time.perf_counter()
            tickets.append(engine.launch(stage, requests, Stream.MAIN, tickets[-1:]))
            parts.setdefault(f"launch {stage}", []).append(time.perf_counter() - at_s)
        tickets[-1].wait()
        woke_s = time.perf_counter()
        kept = engine.settle(tickets[-1])
        settle(engine.executor, stages[-1], requests, engine.draft_tokens, 0.0, kept)
        parts.setdefault("settle", []).append(time.perf_counter() - woke_s)
        parts.setdefault("device waits", []).append(tickets[0].device_span_s()[0] - ended_s)
        ended_s = tickets[-1].device_span_s()[1]
    for request in requests:
        engine.release(request)
    return {name: statistics.median(s[2:]) * 1e3 for name, s in parts.items()}


def prefill(engine: GraphEngine, count: int, chunk_tokens: int) -> dict[str, Any]:
    """Wall and device seconds to prefill `count` prompts, and the host's time to the launch."""
    object.__setattr__(engine.config, "chunk_tokens", chunk_tokens)
    found = []
    for _ in range(2):
        requests = [Request(i, PROMPT_TOKENS, 128, outcomes=[0] * 128) for i in range(count)]
        torch.cuda.synchronize()
        began_s = time.perf_counter()
        (stage,) = engine.executor.prefill
        ticket: Any = engine.launch(stage, requests, Stream.MAIN, [])
        launched_s = time.perf_counter() - began_s
        ticket.wait()
        wall_s = time.perf_counter() - began_s
        start_s, end_s = ticket.device_span_s()
        found.append((wall_s, end_s - start_s, launched_s))
        for request in requests:
            engine.release(request)
    wall_s, device_s, launched_s = min(found)
    return {"wall_s": wall_s, "device_s": device_s, "launch_s": launched_s}


def products(rows: int) -> dict[str, Any]:
    """Microseconds of the layer's matrices with `rows` rows, with and without a bias of zeros."""
    found: dict[str, Any] = {}
    for name, (columns, width) in MATRICES.items():
        copies = [
            torch.randn(columns, width, device=GPU, dtype=torch.bfloat16)
            for _ in range(max(2, (200 << 20) // (2 * columns * width) + 1))
        ]
        x = torch.randn(rows, width, device=GPU, dtype=torch.bfloat16)
        biases = {"usual": None, "biased": copies[0].new_zeros(columns)}
        found[name] = {
            way: round(1e6 * thin.cold_s(lambda w, b=b, x=x: F.linear(x, w, b), copies, GPU), 1)
            for way, b in biases.items()
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="where results go")
    parser.add_argument("--parts", default="profile,variants,attention,products,burst,check")
    parser.add_argument("--variants", default=";".join(VARIANTS), help="names, by semicolon")
    parser.add_argument("--seconds", type=float, default=240)
    options = parser.parse_args()
    report, began_s = Report(options.json), time.perf_counter()
    report.section("provenance", lambda: provenance(GPU, 0, "injected"))
    parts, names = options.parts.split(","), options.variants.split(";")

    def section(part: str, name: str, work: Callable[[], Any]) -> None:
        if part in parts and time.perf_counter() - began_s < options.seconds:
            print(name, report.section(name, work), flush=True)

    held: list[GraphEngine] = []

    def build(lengths: Sequence[int] = ()) -> dict[str, str]:
        plan.MIXED_ROWS = ()  # not measured here: their graphs take a minute
        context = 512 if lengths else 384
        most = 128 if lengths else 256
        config = GraphConfig(
            DRAFTS, max_requests=most, max_context_tokens=context, draft_lengths=tuple(lengths)
        )
        held.append(build_engine(PAIR, config))
        chosen = {str(key): str(ways) for key, ways in ops_of(held[0]).products.ways.items()}
        return {"graphs": held[0].about_graphs} | chosen

    rates = report.section("ceilings", ceilings)
    if {"profile", "variants", "burst"} & {*parts}:
        print(report.section("build", build), flush=True)
        with_engine(section, held[0], names)
        held.clear()
        torch.cuda.empty_cache()
    if "steps" in parts:
        lengths = report.section("build of lengths", lambda: build((0, 1, 8)))
        print(lengths, flush=True)
        for batch in (1, 32, 128):
            section(
                "steps",
                f"steps {batch}",
                lambda b=batch: time_steps(held[0], shape("llama-2-7b"), b, rates, 12),
            )
        held.clear()
        torch.cuda.empty_cache()
    for before in (False, True):
        section("check", f"drafts in float32, {before}", lambda b=before: check(b, names[-1]))
    for (model, query), tiles in TILES.items():
        for batch in (1, 8, 32, 128):
            section(
                "attention",
                f"attention of {model}, {query} new, batch {batch}",
                lambda m=model, q=query, b=batch, t=tiles: attention(
                    b, q, rates["copy_bytes_per_s"], t, m, ()
                ),
            )
    for rows in (160, 320, 640, 8192):
        section("products", f"products of {rows} rows", lambda r=rows: products(r))


def check(norm_before_residual: bool, name: str) -> dict[str, Any]:
    """Drafts and tokens of a variant."""
    early, tile = VARIANTS[name]
    count = torch.cuda.get_device_properties(GPU).multi_processor_count
    return check_drafts(norm_before_residual, TritonOps(count, tile, early))


def with_engine(
    section: Callable[[str, str, Callable[[], Any]], None],
    engine: GraphEngine,
    names: Sequence[str],
) -> None:
    """The parts that need an engine."""
    for count, runs in ((8, 7), (32, 3), (256, 2)):
        section("burst", f"C {count} as built", lambda c=count, r=runs: measure(engine, c, True, r))
    for batch in (1, 32, 256):
        section("profile", f"host at batch {batch}", lambda b=batch: host_share(engine, b))
    for chunk in (8192, 2048):
        section("profile", f"prefill by {chunk}", lambda c=chunk: prefill(engine, 256, c))
    object.__setattr__(engine.config, "chunk_tokens", 8192)
    requests = [Request(i, PROMPT_TOKENS, 128, outcomes=[0] * 128) for i in range(256)]
    replays = Replays(engine, requests)
    for stage in (Stage.DRAFT, Stage.VERIFY):
        for batch in (8, 32, 64, 256):
            section(
                "profile",
                f"kernels of {stage} at {batch}",
                lambda s=stage, b=batch: replays.kernels(s, b),
            )

    def variant(name: str) -> dict[str, Any]:
        use(engine, name, BATCHES)
        return {
            f"{stage} {batch}": round(replays.ms(stage, batch, 8), 4)
            for stage in (Stage.DRAFT, Stage.VERIFY)
            for batch in BATCHES
        }

    for name in names:
        section("variants", f"ms with {name}", lambda n=name: variant(n))
    for request in requests:
        engine.release(request)
    section("profile", "kernels of a prefill", lambda: prefill_kernels(engine))
    section("burst", "graphs of the last", lambda: use(engine, names[-1], engine.batch_sizes[::-1]))
    for count, runs in ((8, 7), (32, 3), (64, 2), (256, 2)):
        section("burst", f"C {count}", lambda c=count, r=runs: measure(engine, c, True, r))


def prefill_kernels(engine: GraphEngine) -> dict[str, Any]:
    requests = [Request(i, PROMPT_TOKENS, 128, outcomes=[0] * 128) for i in range(32)]
    found = profiled(lambda: launch(engine, engine.executor.prefill, requests))
    for request in requests:
        engine.release(request)
    return found


if __name__ == "__main__":
    main()
