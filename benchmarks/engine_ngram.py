"""Looking up n-grams on a GPU: drafts and tokens against the CPU's, and what a look-up takes.

    python benchmarks/engine_ngram.py --json OUT.json

First the same requests on both devices in float32, through CUDA graphs here: random models with few
tokens, whose texts repeat themselves, in rounds of changing lengths; and the toy verifier behind
passages of its text. Every draft, how many there are, and every token must be the same. Then the
draft stage alone, with a cold L2 cache, over batch and context.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from engine_heads import flat, moved
from engine_stages import Report, launch, requests_of, time_stage

from pdvsim.core import Request, Stage
from pdvsim.models import ModelShape
from realengine import toy
from realengine.device import open_device
from realengine.graph import GraphConfig, GraphEngine, build_engine
from realengine.graph.ngram import Ngram
from realengine.graph.weights import random_weights

LENGTHS = (4, 4, 0, 8, 1, 2, 0, 0, 5)  # of rounds, in turn
VOCABULARY = 8


def check_random() -> dict[str, Any]:
    """A random verifier of few tokens: its output repeats itself, so that much is found."""
    cpu = torch.device("cpu")
    shape = ModelShape("check", 4, 256, 4, 2, 512, VOCABULARY, 1024)
    weights = random_weights(shape, cpu, torch.float32)
    weights = replace(weights, head=weights.head * 8)
    config = GraphConfig(4, 24, 512, draft_lengths=tuple(range(9)), chunk_tokens=512)
    found = {}
    for name in ("cpu", "cuda"):
        device = open_device(name)
        engine = GraphEngine(config, moved(weights, device.device), Ngram(), device)
        prompts = [[(i * j + j // 3) % VOCABULARY for j in range(3 + 11 * i)] for i in range(20)]
        found[name] = served(engine, prompts)
    return compared(found)


def check_toy() -> dict[str, Any]:
    config = GraphConfig(4, 24, 256, draft_lengths=tuple(range(9)))
    found = {}
    for name in ("cpu", "cuda"):
        engine = build_engine("ngram:toy-verifier", config, name, torch.float32)
        found[name] = served(engine, toy.prompts(20, 120))
    return compared(found)


def served(engine: GraphEngine, prompts: list[list[int]]) -> dict[str, Any]:
    """Drafts of every round, output tokens, and what was accepted of what was drafted."""
    requests = [Request(i, len(p), 60, prompt=p) for i, p in enumerate(prompts)]
    launch(engine, engine.executor.prefill, requests)
    drafts, number = [], 0
    while alive := [request for request in requests if not request.finished]:
        length = LENGTHS[number % len(LENGTHS)]
        launch(engine, (Stage.DRAFT,), alive, length)
        slots = [each.holding.slot for each in engine._admission.held(alive).values()]
        made = engine._state.drafted[slots].tolist()
        rows = engine._state.drafts[slots, :length].tolist()
        drafts.append([row[:count] for row, count in zip(rows, made, strict=True)])
        launch(engine, engine.executor.check, alive, length)
        number += 1
    for request in requests:
        engine.release(request)
    return {
        "drafts": drafts,
        "tokens": [request.tokens for request in requests],
        "drafted": sum(len(row) for round_ in drafts for row in round_),
        "empty": sum(not row for round_ in drafts for row in round_),
        "accepted": sum(request.accepted_tokens for request in requests),
        "leaked": engine.pages - engine.free_pages,
    }


def compared(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    ours, theirs = found["cuda"], found["cpu"]
    counts = {name: ours[name] for name in ("drafted", "empty", "accepted", "leaked")}
    same = {name: flat(ours[name]) == flat(theirs[name]) for name in ("drafts", "tokens")}
    equal = [a == b for a, b in zip(ours["tokens"], theirs["tokens"], strict=True)]
    return counts | {
        "same_drafts": same["drafts"],
        "same_tokens": same["tokens"],
        "requests_alike": sum(equal),
        "of": len(equal),
        "ok": all(same.values()) and not ours["leaked"],
    }


def time_lookups(context: int, most: int) -> dict[str, Any]:
    """Device and host milliseconds of a draft stage of four; a small verifier, as it plays no
    part in it."""
    config = GraphConfig(4, most, context + 512, cache_tokens=most * (context + 300))
    engine, row = build_engine("ngram:smollm2-135m", config), {}
    for batch in (1, 32, most):
        requests = requests_of(batch, context)
        launch(engine, engine.executor.prefill, requests)
        launch(engine, (Stage.DRAFT, Stage.VERIFY), requests)
        device_s, host_s = time_stage(engine, Stage.DRAFT, requests, 12)
        row[f"batch {batch}"] = {"device_ms": device_s * 1e3, "host_ms": host_s * 1e3}
        for request in requests:
            engine.release(request)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="where results go")
    options = parser.parse_args()
    report = Report(options.json)
    for name, work in (
        ("random verifier", check_random),
        ("toy verifier", check_toy),
        ("look-ups, context 256", lambda: time_lookups(256, 128)),
        ("look-ups, context 2000", lambda: time_lookups(2000, 64)),
    ):
        print(name, report.section(name, work), flush=True)


if __name__ == "__main__":
    main()
