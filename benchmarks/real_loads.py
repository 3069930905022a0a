"""Loads as they are, run for real, for `pdvsim validate --bench` to be held against: open loops up
to and beyond what can be served, log-normal lengths, and acceptance that differs between requests
and along them. Writes after every cell, and starts none after `--seconds`.

    python benchmarks/real_loads.py --seconds 200 -o real_loads.json
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pdvsim.cell import Cell
from pdvsim.core import EXECUTORS
from pdvsim.models import pair
from pdvsim.store import Store
from pdvsim.sweep import CellResult
from realengine.bench import Measured, bench, warm_up
from realengine.build import Demand, open_engine
from realengine.device import physical_index
from realengine.document import benchmark
from realengine.provenance import provenance

CONTEXT = 1_900  # TinyLlama's positions are 2,048
CACHE_TOKENS = 64_000


def cells(
    models: str, drafter: str, seed: int, load: int, rates: Sequence[float]
) -> Iterator[Cell]:
    """What a fixed load leaves out, the open loops first."""
    base = Cell(models, "graph", "pd", load, drafter=drafter, seed=seed)
    for rate in rates:
        for name in ("pd", "plain"):
            yield replace(
                base, architecture=name, protocol="poisson", rate_per_s=rate, requests=1_000
            )
    longer = replace(base, prompt_tokens=256, output_tokens=128, requests=4 * load)
    wide = replace(longer, spread="lognormal:1", max_context_tokens=CONTEXT)
    for name in ("pd", "baseline", "plain"):
        yield replace(wide, architecture=name)
    differing = replace(longer, acceptance_spread=0.2)
    for name in ("pd", "baseline"):
        yield replace(differing, architecture=name)
    yield replace(differing, acceptance_lasts=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", default="tinyllama-1.1b:llama-2-7b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--rates", type=float, nargs="+", default=[33.0, 50.0, 80.0])
    parser.add_argument("--seconds", type=float, default=200.0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    asked = parser.parse_args()
    until_s = time.monotonic() + asked.seconds
    models, load = pair(asked.pair), asked.concurrency
    every = list(cells(models.name, str(models.drafter), asked.seed, load, asked.rates))
    demand = Demand(4, load, CONTEXT + 8, CACHE_TOKENS, asked.seed)
    opened = open_engine(asked.pair, EXECUTORS["graph"], asked.device, demand)
    about = provenance(opened.device, asked.seed, "injected")
    warm_up(every[0], opened.engine)
    gpu = physical_index(opened.device)
    found: list[tuple[CellResult, Sequence[Measured]]] = []
    command = f"python benchmarks/real_loads.py --pair {asked.pair} --seed {asked.seed}"
    for cell in every:
        began_s = time.monotonic()
        if began_s > until_s:
            break
        try:
            found.extend(bench([cell], 1, opened.engine, Store(None, {}), gpu_index=gpu))
        except Exception as error:  # the others still say something
            print(f"{cell.file_name}: {error!r}", flush=True)
            continue
        print(f"{time.monotonic() - began_s:5.1f} s  {cell.file_name}", flush=True)
        benchmark(found, about, opened.pair, command).save(asked.output)
    print(f"{len(found)} of {len(every)} cells")


if __name__ == "__main__":
    main()
