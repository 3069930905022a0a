"""An EAGLE-3 head on a GPU: its drafts, its steps beside their floor, rounds of every length.

    python benchmarks/engine_heads.py --json OUT.json [--quick] [--verifier llama-2-7b]

First drafts and tokens in float32, through CUDA graphs and Triton kernels, against the same engine
on the CPU. Then an engine with rounds of 0 to 8 drafts: what its graphs take to capture, the head's
steps with a cold L2 cache beside max(bytes / copy rate, FLOPs / matmul rate), rounds of each
length, rounds whose lengths take turns, and rounds of engines that know one length only.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from engine_stages import Report, ceilings, kernels_of, launch, time_rounds, time_stage

from pdvsim.core import Request, Stage
from pdvsim.drafters import head_for
from pdvsim.models import ModelShape, shape
from realengine.device import open_device
from realengine.graph import GraphConfig, GraphEngine, build_engine
from realengine.graph.head_weights import random_head
from realengine.graph.ops import Ops
from realengine.graph.weights import random_weights
from realengine.provenance import provenance

LENGTHS = tuple(range(9))
CONTEXT = 256
Moved = TypeVar("Moved")


def moved(value: Moved, device: torch.device) -> Moved:
    """A copy of weights on another device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)  # type: ignore[return-value]
    if isinstance(value, tuple):
        return tuple(moved(each, device) for each in value)  # type: ignore[return-value]
    if is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: moved(getattr(value, f.name), device) for f in fields(value)}
        return replace(value, **changed)  # type: ignore[return-value]
    return value


def check_drafts(norm_before_residual: bool, ops: Ops | None = None) -> dict[str, Any]:
    """Drafts and output of one model and head on both devices, rounds of changing lengths; `ops`
    are the GPU's if not its own."""
    cpu = torch.device("cpu")
    whole = ModelShape("check", 6, 256, 4, 2, 512, 1024, 1024)
    verifier = random_weights(whole, cpu, torch.float32)
    verifier = replace(verifier, head=verifier.head * 4)
    form = replace(head_for(whole, 512), norm_before_residual=norm_before_residual)
    head = random_head(form, verifier, cpu, torch.float32)
    head = replace(head, head=head.head * 4, output=head.output * 10, down=head.down * 10)
    found: dict[str, list[Any]] = {}
    for name in ("cpu", "cuda"):
        device = open_device(name)
        config = GraphConfig(4, 24, 512, draft_lengths=LENGTHS, chunk_tokens=512)
        engine = GraphEngine(
            config,
            moved(verifier, device.device),
            moved(head, device.device),
            device,
            ops if name == "cuda" else None,
        )
        requests = [
            Request(i, 5 + 13 * i, 60, outcomes=[(i + 3 * j) % 9 for j in range(60)])
            for i in range(20)
        ]
        launch(engine, engine.executor.prefill, requests)
        drafts, number = [], 0
        while alive := [request for request in requests if not request.finished]:
            length = (4, 4, 0, 8, 1, 1, 2, 0, 0, 5)[number % 10]
            launch(engine, (Stage.DRAFT,), alive, length)
            slots = [each.holding.slot for each in engine._admission.held(alive).values()]
            drafts.append(engine._state.drafts[slots, :length].tolist())
            launch(engine, engine.executor.check, alive, length)
            number += 1
        for request in requests:
            engine.release(request)
        found[name] = [drafts, [request.tokens for request in requests]]
        leaked = engine.pages - engine.free_pages
    pairs = list(zip(flat(found["cpu"]), flat(found["cuda"]), strict=True))
    same = sum(a == b for a, b in pairs)
    return {"same": same, "of": len(pairs), "leaked": leaked, "ok": same >= 0.99 * len(pairs)}


def flat(value: Any) -> list[int]:
    return [one for each in value for one in flat(each)] if isinstance(value, list) else [value]


def requests_of(batch: int) -> list[Request]:
    """All drafts are rejected, so that contexts hardly grow."""
    return [Request(i, CONTEXT, 256, outcomes=[0] * 256) for i in range(batch)]


def time_steps(
    engine: GraphEngine, verifier: ModelShape, batch: int, rates: dict[str, float], repeats: int
) -> dict[str, Any]:
    """Head steps and verify passes of one batch; all times in milliseconds."""
    requests = requests_of(batch)
    launch(engine, engine.executor.prefill, requests)
    launch(engine, (Stage.DRAFT, Stage.VERIFY), requests, 4)
    row: dict[str, Any] = {"batch": batch}
    for drafts in (0, 1, 4, 8):
        device_s, host_s = time_stage(engine, Stage.DRAFT, requests, repeats, drafts)
        row[f"draft_{drafts}_ms"], row[f"draft_{drafts}_host_ms"] = device_s * 1e3, host_s * 1e3
    row["step_ms"] = (row["draft_8_ms"] - row["draft_4_ms"]) / 4
    head = head_for(verifier)
    row["step_floor_ms"] = head.floor_s(batch, batch * CONTEXT, *rates.values()) * 1e3
    row["step_over_floor"] = row["step_ms"] / row["step_floor_ms"]
    for drafts in (0, 1, 4, 8):
        device_s, host_s = time_stage(engine, Stage.VERIFY, requests, repeats, drafts)
        floor_s = verifier.floor_s(batch * (drafts + 1), batch * CONTEXT, *rates.values())
        row[f"verify_{drafts}_ms"], row[f"verify_{drafts}_floor_ms"] = device_s * 1e3, floor_s * 1e3
        row[f"verify_{drafts}_host_ms"] = host_s * 1e3
    device_s, _ = time_stage(engine, Stage.DECODE, requests, repeats)
    row["decode_ms"] = device_s * 1e3
    for request in requests:
        engine.release(request)
    return row


def time_lengths(
    engine: GraphEngine, batch: int, plans: dict[str, Sequence[int]], repeats: int
) -> dict[str, float]:
    """Wall milliseconds of a round whose lengths go by each plan, in turn; context as prefilled."""
    rounds = {}
    stages = engine.executor.speculate + engine.executor.check
    for name, lengths in plans.items():
        requests = requests_of(batch)
        launch(engine, engine.executor.prefill, requests)
        rounds[name] = time_rounds(engine, requests, stages, repeats, lengths) * 1e3
        for request in requests:
            engine.release(request)
    return rounds


def built(
    report: Report, name: str, verifier: str, lengths: Sequence[int], most: int
) -> GraphEngine | None:
    """An engine, and what its graphs took; None if it failed."""
    held: list[GraphEngine] = []

    def build() -> dict[str, Any]:
        began_s = time.perf_counter()
        config = GraphConfig(
            4 if 4 in lengths else lengths[0],
            max_requests=most,
            cache_tokens=most * (CONTEXT + 300),
            draft_lengths=tuple(lengths),
        )
        held.append(build_engine(f"eagle3:{verifier}", config))
        print(held[0].about_graphs)
        return {"build_s": time.perf_counter() - began_s, "graphs": held[0].about_graphs}

    report.section(name, build)
    return held[0] if held else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="where results go")
    parser.add_argument("--quick", action="store_true", help="fewer batches, repeats and engines")
    parser.add_argument("--verifier", default="llama-2-7b")
    options = parser.parse_args()
    report, verifier = Report(options.json), shape(options.verifier)
    batches = (1, 32, 128) if options.quick else (1, 2, 4, 8, 16, 32, 64, 128)
    repeats, most = (8 if options.quick else 20), 256 if not options.quick else 128
    report.section("provenance", lambda: provenance(torch.device("cuda"), 0, "injected"))
    rates = report.section("ceilings", ceilings)
    for before in (False, True):
        report.section(f"drafts, norm before residual {before}", lambda b=before: check_drafts(b))
    engine = built(report, "engine of all lengths", options.verifier, LENGTHS, most)
    plans: dict[str, Sequence[int]] = {str(length): (length,) for length in LENGTHS}
    plans |= {"0 8": (0, 8), "4 0 4 4": (4, 0, 4, 4), "1 4": (1, 4)}
    for batch in batches if engine else ():
        report.section(
            f"steps {batch}", lambda b=batch: time_steps(engine, verifier, b, rates, repeats)
        )
    rounds: dict[int, dict[str, float]] = {}
    for batch in (1, 32, 128) if engine else ():
        rounds[batch] = report.section(
            f"rounds {batch}", lambda b=batch: time_lengths(engine, b, plans, 2 * repeats)
        )
    for stage in (Stage.DRAFT, Stage.VERIFY):
        for batch in (1, 32, 128) if engine else ():
            report.section(
                f"kernels of {stage} at batch {batch}",
                lambda s=stage, b=batch: kernels_of(engine, s, b, CONTEXT),
            )
    engine = None
    for length in () if options.quick else (1, 2, 4, 8):
        gc.collect()
        torch.cuda.empty_cache()
        engine = built(report, f"engine of {length}", options.verifier, (length,), most)
        for batch in (1, 32, 128) if engine else ():
            fixed = report.section(
                f"rounds {batch} of an engine of {length}",
                lambda e=engine, b=batch, g=length: time_lengths(e, b, {str(g): (g,)}, 2 * repeats),
            )
            ratio = rounds[batch][str(length)] / fixed[str(length)]
            report.section(
                f"{length} drafts at batch {batch}, over an engine of {length}", lambda r=ratio: r
            )
        engine = None
    table(report)


def table(report: Report) -> None:
    print("\nbatch   head step / floor   draft 4   verify 4 / floor   decode   launch d/v (ms)")
    for name, row in report.results.items():
        if name.startswith("steps") and "step_ms" in row:
            print(
                f"{row['batch']:5d}  {row['step_ms']:6.3f} / {row['step_floor_ms']:5.3f} "
                f"{row['step_over_floor']:5.2f}  {row['draft_4_ms']:7.3f}  "
                f"{row['verify_4_ms']:7.3f} / {row['verify_4_floor_ms']:6.3f}  "
                f"{row['decode_ms']:7.3f}  "
                f"{row['draft_4_host_ms']:5.3f} {row['verify_4_host_ms']:5.3f}"
            )
        elif not name.startswith("kernels"):
            print(f"{name}: {row}")


if __name__ == "__main__":
    main()
