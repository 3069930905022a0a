"""Whether anything predicted beats what the hardware can do, in random cells of all profiles.

    python benchmarks/floors.py [--count 1000] [--seed 1] [--json OUT.json]

Each cell is one run on a drawn machine. Every stage is held against its floor: bytes of weights and
cache over the copy rate, FLOPs over the matrix rate. Every run: all it moved and multiplied, over
its length. And the formula of perfect overlap, which a run without luck cannot beat.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pdvsim.architectures import ARCHITECTURES
from pdvsim.cell import Cell
from pdvsim.core import Stage
from pdvsim.errors import InputError
from pdvsim.machine import Replication
from pdvsim.profile import Profile, load_profile, shipped_profiles
from pdvsim.records import STAGES, RunRecord
from pdvsim.work import uniform_work

Row = dict[str, Any]


def cells(profile: Profile, rng: np.random.Generator) -> Iterator[Cell]:
    """Random cells that `profile` can answer."""
    drafter = profile.pair.drafter
    names = [n for n in ARCHITECTURES if drafter != "none" or n in ("plain", "continuous")]
    while True:
        drafts = int(rng.integers(1, 17))
        batched = profile.executor.batched
        cell = Cell(
            pair=profile.pair.name,
            drafter=str(drafter),
            executor=profile.executor.name,
            architecture=str(rng.choice(names)),
            concurrency=int(rng.choice([1, 2, 5, 16, 64, 256] if batched else [1, 4, 16])),
            prompt_tokens=int(rng.choice([10, 64, 300, 1000, 1700])),
            output_tokens=int(rng.choice([8, 40, 120])),
            draft_tokens=drafts,
            acceptance=(float(rng.uniform(0.1, 1.0)),) * drafts,
            cycles=1,
            seed=int(rng.integers(1 << 30)),
        )
        try:
            profile.check(cell)
        except InputError:
            continue
        yield cell


def least_of(profile: Profile, record: RunRecord) -> np.ndarray[Any, Any]:
    """Of each stage but mixed passes, whose rows don't tell their parts: least seconds, of reading
    and of arithmetic, and what the run says; shape (stages, 3)."""
    found = []
    names = ("stage", "batch", "query_tokens", "context_tokens", "device_alone_s")
    for code, batch, new, context, seconds in zip(*map(record.column, names), strict=True):
        stage = STAGES[int(code)]
        if stage is Stage.MIXED:
            continue
        work = uniform_work(profile.executor, stage, int(batch), int(new), int(context))
        floor = profile.file.floor(stage)
        read_s = work.passes * (floor.pass_s + context * floor.context_s)
        found.append((read_s, new * floor.token_s, seconds))
    return np.array(found).reshape(-1, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    profiles = [load_profile(name) for name in shipped_profiles()]
    drawn = [cells(profile, rng) for profile in profiles]
    counts: Counter[str] = Counter()
    closest: dict[str, float] = {"stage": np.inf, "reading": 0.0, "arithmetic": 0.0}
    for i in range(options.count):
        profile = profiles[i % len(profiles)]
        record = Replication(next(drawn[i % len(profiles)]), profile, 0).run()
        least = least_of(profile, record)
        counts["runs"] += 1
        counts["stages"] += len(least)
        floor_s = least[:, :2].max(axis=1)
        timed = floor_s > 0.0
        counts["stages below their floor"] += int((least[:, 2] < floor_s * (1 - 1e-9)).sum())
        if timed.any():
            ratio = float((least[timed, 2] / floor_s[timed]).min())
            closest["stage"] = min(closest["stage"], ratio)
        for j, name in enumerate(("reading", "arithmetic")):
            share = float(least[:, j].sum() / record.end_s)
            closest[name] = max(closest[name], share)
            counts[f"runs above their bound of {name}"] += share > 1.0
    document = {
        "seed": options.seed,
        **counts,
        "least stage over floor": closest["stage"],
        "most of the copy rate used by a run": closest["reading"],
        "most of the matrix rate used by a run": closest["arithmetic"],
    }
    print(json.dumps(document, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
