"""What a GPU's memory goes to: its context, weights, KV cache, CUDA graphs, and how many pages are
left for requests. `pdvsim.kv_cache` must come to the same pages from the size of the card alone.

    python benchmarks/gpu_memory.py --json memory.json [--pair tinyllama-1.1b:llama-2-7b]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from pdvsim.models import pair
from realengine.graph.build import build_engine
from realengine.graph.config import GraphConfig

DRAFT_TOKENS = 4


def smi_bytes() -> int | None:
    """All of the GPU's memory, as the driver counts it."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", "--id=0"]
    try:
        return int(subprocess.run(query, capture_output=True, text=True, check=True).stdout) << 20
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def engine_memory(reference: str, requests: int, context_tokens: int) -> dict[str, Any]:
    """Bytes before and after an engine was built for so many requests of such a length."""
    torch.cuda.empty_cache()
    before, began_s = torch.cuda.mem_get_info()[0], time.perf_counter()
    config = GraphConfig(DRAFT_TOKENS, requests, context_tokens)
    engine = build_engine(reference, config, "cuda")
    torch.cuda.synchronize()
    return {
        "pair": reference,
        "requests": requests,
        "context_tokens": context_tokens,
        "weight_bytes": pair(reference).weight_bytes,
        "free_before": before,
        "pages": engine.pages,
        "free_after": torch.cuda.mem_get_info()[0],
        "allocated": torch.cuda.memory_allocated(),
        "reserved": torch.cuda.memory_reserved(),
        "graphs": engine.about_graphs,
        "build_s": time.perf_counter() - began_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--pair", default="tinyllama-1.1b:llama-2-7b")
    parser.add_argument("--shape", default="256x1284", help="REQUESTSxCONTEXT,...")
    options = parser.parse_args()
    torch.cuda.init()
    torch.zeros(1, device="cuda")
    free, total = torch.cuda.mem_get_info()
    found: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(),
        "smi_bytes": smi_bytes(),
        "total_bytes": total,
        "free_with_a_context": free,
        "engines": [],
    }
    print(found, flush=True)
    for shape in options.shape.split(","):
        requests, context = map(int, shape.split("x"))
        try:
            found["engines"].append(engine_memory(options.pair, requests, context))
        except Exception:
            found["engines"].append({"error": traceback.format_exc()})
        print(found["engines"][-1], flush=True)
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
