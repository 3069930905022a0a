"""A burst of C requests through the graph executor: output tokens per second.

    python benchmarks/engine_burst.py --json OUT.json [--quick] [--pair DRAFTER:VERIFIER]
        [--bursts 1,8,32] [--modes speculation] [--stages 1,32]

256 prompt tokens and 128 output tokens each, end of sequence ignored; drafts are accepted with 0.7
a position (injected: all kernels run), 4 drafted tokens a round; and the verifier alone. All
requests arrive together, are prefilled together and then go round by round as the `continuous`
architecture runs them: the next round is drafted before the host knows who is done. The clock runs
from the first launch to the last token on the host.
DRAFTER is a draft model, or eagle3 for a head of the verifier's shape. With --stages the engine's
stages are timed too, at these batches and context 256, as `engine_stages.py` does.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
from engine_stages import Report, ceilings, launch, time_pair

from pdvsim.core import GRAPH, Request, Stage, Stream, settle
from pdvsim.models import pair
from realengine.graph import GraphConfig, GraphEngine, GraphTicket, build_engine
from realengine.provenance import provenance

Tickets = tuple[GraphTicket, ...]
PROMPT_TOKENS, OUTPUT_TOKENS = 256, 128
DRAFT_TOKENS, ACCEPTANCE = 4, 0.7
# Bursts of each size: the fewer requests, the more their luck decides.
RUNS, ELSEWHERE = {1: 15, 8: 7}, 3
PLAIN_RUNS = 2  # without drafts no luck is in it
QUICK_RUNS, QUICK_ELSEWHERE = {1: 5, 8: 3}, 1
STAGE_CONTEXT, STAGE_ROOM, STAGE_REPEATS = 256, 300, 12  # tokens, tokens, launches

# Output tokens/s of vLLM 0.25.1 on one H100 for the same burst of a Llama-2-7B shape, measured
# 2026-11-25: without speculation, with a TinyLlama draft, with an EAGLE-3 head.
VLLM = {
    1: (166, 47, 343),
    8: (1125, 372, 2091),
    32: (3382, 1387, 5486),
    64: (4990, 2807, 6959),
    128: (6509, 3802, 7911),
    256: (7515, 4765, 8472),
}


def burst(count: int, seed: int) -> list[Request]:
    """Requests with the accepted drafts of every round to come."""
    generator = numpy.random.default_rng(seed)
    kept = generator.random((count, OUTPUT_TOKENS, DRAFT_TOKENS)) < ACCEPTANCE
    outcomes = kept.cumprod(axis=2).sum(axis=2).tolist()
    return [Request(i, PROMPT_TOKENS, OUTPUT_TOKENS, outcomes=outcomes[i]) for i in range(count)]


def serve(engine: GraphEngine, requests: Sequence[Request], speculate: bool) -> dict[str, float]:
    """Serve `requests` together. Returns seconds and counts."""
    executor = engine.executor
    began_s = time.perf_counter()
    launch(engine, executor.prefill if speculate else GRAPH.plain_prefill, requests)
    prefilled_s = time.perf_counter() - began_s
    rounds, drafted = 0, Tickets()
    if speculate:
        drafted = chained(engine, executor.speculate, requests, ())
    while alive := [request for request in requests if not request.finished]:
        if speculate:
            checked = chained(engine, executor.check, alive, drafted)
            drafted = chained(engine, executor.speculate, alive, checked)
            finish(engine, checked[0], alive)
        else:
            launch(engine, (Stage.DECODE,), alive)
        rounds += 1
    total_s = time.perf_counter() - began_s
    for ticket in drafted:  # drafts that nobody needs any more
        ticket.wait()
    for request in requests:
        engine.release(request)
    tokens = sum(request.produced_tokens for request in requests)
    return {
        "tokens_per_s": tokens / total_s,
        "total_s": total_s,
        "prefill_s": prefilled_s,
        "rounds": rounds,
        "round_ms": (total_s - prefilled_s) / rounds * 1e3,
        "leaked_pages": engine.pages - engine.free_pages,
    }


def chained(
    engine: GraphEngine,
    stages: Sequence[Stage],
    batch: Sequence[Request],
    after: Tickets,
) -> Tickets:
    """Launch `stages` in a chain behind `after`. Returns the last one's ticket."""
    for stage in stages:
        after = (engine.launch(stage, batch, Stream.MAIN, after),)
    return after


def finish(engine: GraphEngine, ticket: GraphTicket, batch: Sequence[Request]) -> None:
    """Wait for the end of a round."""
    ticket.wait()
    settle(GRAPH, ticket.stage, batch, engine.draft_tokens, 0.0, engine.settle(ticket))


def measure(engine: GraphEngine, count: int, speculate: bool, runs: int) -> dict[str, Any]:
    """Median of `runs` bursts after one that is not counted."""
    results = [serve(engine, burst(count, seed), speculate) for seed in range(runs + 1)][1:]
    middle = {key: statistics.median(r[key] for r in results) for key in results[0]}
    return middle | {"all_tokens_per_s": [r["tokens_per_s"] for r in results]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="where results go")
    parser.add_argument("--quick", action="store_true", help="fewer runs of each burst")
    parser.add_argument("--pair", default="tinyllama-1.1b:llama-2-7b")
    parser.add_argument("--bursts", default="1,8,32,64,128,256", help="values of C")
    parser.add_argument("--modes", default="speculation,plain")
    parser.add_argument("--stages", default="", help="batches to time stages at")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    counts, batches = (
        [int(count) for count in text.split(",") if count]
        for text in (options.bursts, options.stages)
    )
    modes = options.modes.split(",")
    runs, elsewhere = (QUICK_RUNS, QUICK_ELSEWHERE) if options.quick else (RUNS, ELSEWHERE)
    report, held = Report(options.json), list[GraphEngine]()
    longest = PROMPT_TOKENS + OUTPUT_TOKENS + (STAGE_ROOM if batches else 0)

    def build() -> dict[str, Any]:
        config = GraphConfig(
            DRAFT_TOKENS,
            max_requests=max(*counts, *batches),
            max_context_tokens=longest,
            cache_tokens=max(
                max(counts) * (PROMPT_TOKENS + OUTPUT_TOKENS + 2 * DRAFT_TOKENS + 16),
                max(batches, default=0) * (longest + 2 * DRAFT_TOKENS + 16),
            ),
        )
        began_s = time.perf_counter()
        held.append(build_engine(options.pair, config, options.device))
        print(held[0].about_graphs)
        return {
            "build_s": time.perf_counter() - began_s,
            "pages": held[0].pages,
            "graphs": held[0].about_graphs,
        }

    report.section("build", build)
    if held:
        report.section("provenance", lambda: provenance(held[0].device.device, 0, "injected"))
    rates = report.section("ceilings", ceilings) if batches and held else {}
    for batch in batches if held else ():
        report.section(
            f"stages {batch}",
            lambda b=batch: time_pair(
                held[0], pair(options.pair), b, STAGE_CONTEXT, rates, STAGE_REPEATS
            ),
        )
        print(report.results[f"stages {batch}"], flush=True)
    for count in counts if held else ():
        for mode in modes:
            drafts = mode == "speculation"
            times = runs.get(count, elsewhere) if drafts else PLAIN_RUNS
            report.section(
                f"C {count} {mode}",
                lambda c=count, d=drafts, n=times: measure(held[0], c, d, n),
            )
    table(report, options.pair, counts)


def table(report: Report, name: str, counts: Sequence[int]) -> None:
    vllm = VLLM if name.endswith(":llama-2-7b") else {}
    print(f"\n{name}, output tokens/s")
    print("   C  speculation    plain   vLLM none, model, head    round ms   prefill s")
    for count in counts:
        speculated, plain = (
            report.results.get(f"C {count} {mode}", {}) for mode in ("speculation", "plain")
        )
        print(
            f"{count:4d} {speculated.get('tokens_per_s', 0):12.0f} "
            f"{plain.get('tokens_per_s', 0):8.0f}   {vllm.get(count, '-')!s:24}"
            f"{speculated.get('round_ms', 0):6.2f}/{plain.get('round_ms', 0):6.2f} "
            f"{speculated.get('prefill_s', 0):8.3f}"
        )


if __name__ == "__main__":
    main()
