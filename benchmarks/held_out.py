"""Cells that nobody tuned on, run for real, for `pdvsim validate --bench` to be held against.

They are drawn at random over architecture, load, lengths, draft length and acceptance, from a seed
that says which; three in ten are open loops at 50 to 85 % of what their closed loop has just been
measured to serve. `--lengths` runs the grid of draft lengths instead: which one is best, at which
load and acceptance. Runs until the cells or `--seconds` are used up, and writes after every tenth.

    python benchmarks/held_out.py --seed 1 --count 60 --seconds 240 -o held_out.json
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pdvsim.architectures import ARCHITECTURES
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

LENGTHS = (1, 2, 3, 4, 5, 6, 8)
LOADS = (1, 2, 3, 5, 6, 12, 16, 24, 48, 64, 96, 160, 200, 256)
PROMPTS = (48, 100, 200, 350, 600, 900, 1200, 1500)
OUTPUTS = (24, 48, 96, 160, 256)
KEPT = (0.4, 0.5, 0.6, 0.75, 0.8, 0.9)
MOST_TOKENS = 2_040  # TinyLlama's positions, less a round
CACHE_TOKENS = 96_000  # of all requests together: what fits beside both models on 80 GB

Found = list[tuple[CellResult, Sequence[Measured]]]


def drawn(models: str, drafter: str, seed: int, count: int) -> Iterator[Cell]:
    """Random closed loops on the batched executor, those that fit the cache."""
    rng = np.random.default_rng(seed)
    names = [one for one in ARCHITECTURES if drafter != "none" or one in ("plain", "continuous")]
    found = 0
    while found < count:
        load, prompt, output = (int(rng.choice(axis)) for axis in (LOADS, PROMPTS, OUTPUTS))
        length, kept = int(rng.choice(LENGTHS)), float(rng.choice(KEPT))
        name = str(rng.choice(names))
        whole = prompt + output
        if whole > MOST_TOKENS or load * whole > CACHE_TOKENS or load * output > 20_000:
            continue
        found += 1
        yield Cell(
            pair=models,
            drafter=drafter,
            executor="graph",
            architecture=name,
            concurrency=load,
            prompt_tokens=prompt,
            output_tokens=output,
            draft_tokens=length,
            acceptance=(kept,) * length,
            cycles=1 if load > 32 else 2 if load > 4 else 4,
            seed=seed,
        )


def lengths_grid(models: str, drafter: str, architecture: str, seed: int) -> Iterator[Cell]:
    """Every draft length at five loads and three acceptances, 256 prompt and 128 output tokens."""
    for load in (1, 8, 32, 128, 256):
        for kept in (0.4, 0.6, 0.8):
            for length in LENGTHS:
                yield Cell(
                    pair=models,
                    drafter=drafter,
                    executor="graph",
                    architecture=architecture,
                    concurrency=load,
                    prompt_tokens=256,
                    output_tokens=128,
                    draft_tokens=length,
                    acceptance=(kept,) * length,
                    cycles=4 if load == 1 else 1,
                    seed=seed,
                )


def opened_up(closed: CellResult, rng: np.random.Generator) -> Cell:
    """The cell as an open loop, at 50 to 85 % of what it served as a closed one."""
    cell = closed.cell
    served = closed.metrics["output_throughput"]
    assert served is not None
    share = float(rng.choice((0.5, 0.7, 0.85)))
    rate_per_s = round(share * served.value / cell.output_tokens, 3)
    count = int(np.clip(6 * rate_per_s, 40, 400))
    return replace(cell, protocol="poisson", rate_per_s=rate_per_s, requests=count, cycles=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", default="tinyllama-1.1b:llama-2-7b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--lengths", metavar="ARCHITECTURE")
    parser.add_argument("-o", "--output", type=Path, required=True)
    asked = parser.parse_args()
    until_s = time.monotonic() + asked.seconds
    models = pair(asked.pair)
    drafter, name = str(models.drafter), models.name
    if asked.lengths:
        cells = list(lengths_grid(name, drafter, asked.lengths, asked.seed))
    else:
        cells = list(drawn(name, drafter, asked.seed, asked.count))
    longest = max(cell.prompt_tokens + cell.output_tokens for cell in cells)
    most = max(cell.concurrency for cell in cells)
    demand = Demand(
        4, most, longest + 18, CACHE_TOKENS + 24 * most, asked.seed, draft_lengths=LENGTHS
    )
    opened = open_engine(asked.pair, EXECUTORS["graph"], asked.device, demand)
    about = provenance(opened.device, asked.seed, "injected")
    warm_up(cells[0], opened.engine)
    command = f"python benchmarks/held_out.py --pair {asked.pair} --seed {asked.seed}"
    if asked.lengths:
        command += f" --lengths {asked.lengths}"
    gpu = physical_index(opened.device)
    found: Found = []

    def save() -> None:
        document = benchmark(found, about, opened.pair, command)
        document.save(asked.output)

    def ran(cell: Cell) -> CellResult:
        began_s = time.monotonic()
        found.extend(bench([cell], 1, opened.engine, Store(None, {}), gpu_index=gpu))
        result = found[-1][0]
        print(f"{len(found):3d} {time.monotonic() - began_s:5.1f} s  {cell.file_name}", flush=True)
        if len(found) % 10 == 0:
            save()
        return result

    rng = np.random.default_rng((asked.seed, 1))
    for cell in cells:
        if time.monotonic() > until_s:
            break
        closed = ran(cell)
        if not asked.lengths and rng.random() < 0.3:
            ran(opened_up(closed, rng))
    save()
    print(f"{len(found)} cells of {len(cells)} closed ones asked for")


if __name__ == "__main__":
    main()
