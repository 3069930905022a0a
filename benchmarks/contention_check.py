"""Holds the stages of recorded runs against a profile's contention.

    python benchmarks/contention_check.py PROFILE RUN_stages.parquet ... [--json OUT.json]

By stage, and by how many other streams were busy for most of it: the work that the profile sees
done while it ran (its time beside the others, at the profile's speeds) over the work that was due
(its fitted cost). 1 is right; above 1 the run was slower than the profile says. And by pair of
stages, where at least eight launches ran beside one other stage alone for nine tenths of their
time: the mean speed in the runs, due / taken, beside the profile's.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pdvsim.core import Stage
from pdvsim.des.contention import Speeds, sizes_of
from pdvsim.profile import Profile, load_profile
from pdvsim.work import uniform_work

Row = dict[str, Any]


def neighbours(rows: list[Row], i: int) -> list[Row]:
    """Stages on other streams that ran while row `i` did; rows are in order of their start."""
    own = rows[i]
    return [
        row
        for row in rows[max(0, i - 12) : i + 20]
        if row["stream"] != own["stream"]
        and min(row["ended_s"], own["ended_s"]) > max(row["started_s"], own["started_s"])
    ]


def check(profile: Profile, paths: list[Path]) -> dict[str, Any]:
    points: dict[tuple[Stage, Stage], list[tuple[int, int, float]]] = defaultdict(list)
    for entry in profile.file.contention:
        point = entry.rows, entry.prompt_tokens, entry.speed.value
        points[entry.stage, entry.other].append(point)
    speeds = {pair: Speeds(measured) for pair, measured in points.items()}
    work: dict[str, list[tuple[float, float]]] = defaultdict(list)
    pairs: dict[str, list[tuple[float, float, int]]] = defaultdict(list)
    for path in paths:
        rows = pl.read_parquet(path).sort("started_s").to_dicts()
        for i, row in enumerate(rows):
            stage, others = Stage(row["stage"]), neighbours(rows, i)
            start, end = row["started_s"], row["ended_s"]
            counts = [row[name] for name in ("batch", "query_tokens", "context_tokens")]
            due_s = profile.file.seconds(stage, uniform_work(profile.executor, stage, *counts))[1]
            moments = [t for o in others for t in (o["started_s"], o["ended_s"])]
            cuts = sorted({start, end, *(t for t in moments if start < t < end)})
            done_s, busy = 0.0, np.zeros(3)
            beside: dict[Stage, float] = defaultdict(float)
            said: dict[Stage, float] = {}
            for low, high in pairwise(cuts):
                middle = (low + high) / 2
                now = [o for o in others if o["started_s"] < middle < o["ended_s"]]
                slowness = 1.0
                for other in now:
                    kind = Stage(other["stage"])
                    sizes = sizes_of(
                        (stage, row["batch"], row["query_tokens"]),
                        (kind, other["batch"], other["query_tokens"]),
                    )
                    said[kind] = speeds[stage, kind].at(*sizes)
                    slowness += 1.0 / said[kind] - 1.0
                if len(now) == 1:
                    beside[Stage(now[0]["stage"])] += high - low
                busy[min(len(now), 2)] += high - low
                done_s += (high - low) / slowness
            most = int(np.argmax(busy))
            work[f"{stage} beside {most}"].append((done_s, due_s))
            for other_stage, seconds in beside.items():
                if seconds > 0.9 * (end - start):
                    name = f"{stage} beside {other_stage}"
                    pairs[name].append((due_s / (end - start), said[other_stage], row["batch"]))
    return {
        "work_done_over_due": {
            name: {"launches": len(w), "ratio": sum(d for d, _ in w) / sum(u for _, u in w)}
            for name, w in sorted(work.items())
        },
        "speeds": {
            name: dict(zip(("run", "profile", "batch"), np.mean(p, axis=0).tolist(), strict=True))
            | {"launches": len(p)}
            for name, p in sorted(pairs.items())
            if len(p) >= 8
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = check(load_profile(options.profile), options.runs)
    document = {"profile": options.profile, "runs": [str(run) for run in options.runs], **found}
    text = json.dumps(document, indent=1)
    if options.json is None:
        print(text)
    else:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
