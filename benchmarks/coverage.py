"""Do the intervals hold the machine of a user, 95 times in 100?

    python benchmarks/coverage.py -o results/coverage.json [--only metrics|crossings]

*Metrics*: of each cell, predictions of different seeds are held against single runs on other
machines drawn from the profile (their own machine, their own workload plan). *Crossings*: each
question is searched with different seeds; each of the other machines has its own crossing, found
by runs on it (`PLANS` workload plans at each of `PLACES` loads), and lies inside the interval or
not. A machine's curve is the mean of all machines', and a parabola of its own beside it: single
runs are chance, which a machine's crossing does not depend on, and what the parabola leaves is
held against the chance of plans. Machines of truths and of predictions have seeds apart.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import process_time, time
from typing import Any

import numpy as np

from pdvsim.api import closed_loop, crossover, poisson
from pdvsim.cell import Cell
from pdvsim.crossover.space import AXES
from pdvsim.machine import Replication
from pdvsim.pool import run_all
from pdvsim.profile import Profile, load_profile
from pdvsim.sweep import Run, combine, replications_for, simulate_cell

LATENCIES = tuple(
    f"{at}_{name}_ms" for name in ("ttft", "tpot", "e2el") for at in ("median", "p99")
)
HELD = ("output_throughput", *LATENCIES)
TRUTH_SEED = 1_000_003
GRAPH = "h100_tinyllama-1.1b_llama-2-7b_graph"
# Questions: (first, second, axis, low, high, load); the load is what does not vary.
QUESTIONS: tuple[tuple[str, str, str, float, float, dict[str, Any]], ...] = (
    ("plain@prefill_batch=8", "baseline", "concurrency", 1, 256, {}),
    (
        "plain@prefill_batch=8",
        "baseline",
        "acceptance",
        0.2,
        0.95,
        {"concurrency": 32, "prompt_tokens": 256, "output_tokens": 128},
    ),
    ("plain@prefill_batch=8", "pd@prefill_batch=8", "concurrency", 32, 512, {}),
    (
        "plain@prefill_batch=8",
        "pd@prefill_batch=8",
        "draft-tokens",
        1,
        8,
        {"concurrency": 64, "acceptance": 0.6},
    ),
)
MACHINES, PLANS, PLACES = 40, 2, 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", choices=("metrics", "crossings"))
    parser.add_argument("--predictions", type=int, default=5)
    parser.add_argument("--truths", type=int, default=60)
    parser.add_argument("--searches", type=int, default=3)
    options = parser.parse_args()
    began, cpu = time(), process_time()
    profile = load_profile(GRAPH)
    document: dict[str, Any] = {
        "benchmark": "coverage",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "profile": profile.name,
        **{name: value for name, value in vars(options).items() if isinstance(value, int)},
    }
    if options.only != "crossings":
        document["metrics"] = [
            held(cell, profile, options.predictions, options.truths) for cell in cells(profile)
        ]
        document["summary"] = summary(document["metrics"])
        print(json.dumps(document["summary"], indent=1), flush=True)
    if options.only != "metrics":
        document["crossings"] = [
            crossings_held(question, profile, options.searches) for question in QUESTIONS
        ]
    document |= {"wall_s": time() - began, "own_cpu_s": process_time() - cpu}
    options.output.write_text(json.dumps(document, indent=1) + "\n")


def cells(profile: Profile) -> list[Cell]:
    """Closed loops and two rates, on the lengths of the measured cells and on the default ones."""
    long = {"prompt_tokens": 256, "output_tokens": 128}
    found = [
        cell for load in (1, 8, 32, 128) for cell in closed_loop(load, **long).cells(profile, "all")
    ]
    for load in (8, 256):
        found += closed_loop(load).cells(profile, "plain,baseline,pd")
    for rate in (20.0, 40.0):
        found += poisson(rate).cells(profile, "pd,pdv")
    return found


def runs(cells: Sequence[Cell], profile: Profile, indices: Sequence[int]) -> list[list[Run]]:
    tasks = [Replication(cell, profile, i) for cell in cells for i in indices]
    found = run_all(simulate_cell, tasks, None, None)
    return [found[i : i + len(indices)] for i in range(0, len(found), len(indices))]


def held(cell: Cell, profile: Profile, predictions: int, truths: int) -> dict[str, Any]:
    """How many of the truths each metric's intervals hold."""
    (other,) = runs([replace(cell, seed=TRUTH_SEED)], profile, range(truths))
    seeded = [replace(cell, seed=seed) for seed in range(predictions)]
    shares: dict[str, list[float]] = {name: [] for name in HELD}
    widths: list[float] = []
    below = 0
    for one, found in zip(
        seeded, runs(seeded, profile, range(replications_for([cell]))), strict=True
    ):
        metrics = combine(one, "", found).metrics
        for name in HELD:
            interval = metrics[name]
            known = [v for run in other if (v := run.metrics[name]) is not None]
            if interval is None or interval.low is None or interval.high is None or not known:
                continue
            low, high = interval.low, interval.high
            shares[name].append(float(np.mean([low <= value <= high for value in known])))
            below += low <= 0.0
            if name == "output_throughput":
                widths.append((high - low) / 2.0 / interval.value)
    requests = float(np.mean([run.metrics["completed"] or 0.0 for run in other]))
    row = {
        "cell": f"{cell.architecture} C={cell.concurrency} {cell.protocol} "
        f"{cell.prompt_tokens}+{cell.output_tokens}"
        + ("" if cell.rate_per_s is None else f" {cell.rate_per_s:g}/s"),
        "requests": requests,
        "half_width_of_throughput": float(np.median(widths)),
        "intervals_that_reach_zero": below,
        "held": {name: float(np.mean(each)) for name, each in shares.items() if each},
    }
    print(json.dumps(row), flush=True)
    return row


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Over cells: mean coverage of each metric, and the least; and the median half width."""
    by_metric = {name: [row["held"][name] for row in rows if name in row["held"]] for name in HELD}
    return {
        "cells": len(rows),
        "coverage": {name: float(np.mean(each)) for name, each in by_metric.items()},
        "least": {name: float(np.min(each)) for name, each in by_metric.items()},
        "median_half_width_of_throughput": float(
            np.median([row["half_width_of_throughput"] for row in rows])
        ),
    }


def crossings_held(
    question: tuple[str, str, str, float, float, dict[str, Any]], profile: Profile, searches: int
) -> dict[str, Any]:
    """How many machines cross inside the interval of each search."""
    first, second, axis, low, high, fixed = question
    found = []
    for seed in range(searches):
        load = closed_loop(**fixed, seed=seed)
        document = crossover(
            first, second, profile, load, over=axis, low=low, high=high, workers=None
        )
        found.append(document.crossings[-1] if document.crossings else None)
    known = [one for one in found if one is not None]
    ends = [end for one in known for end in (one.at.low, one.at.high) if end is not None]
    span = (max(low, min(ends) / 1.3), min(high, max(ends) * 1.3))
    own, left = own_crossings(question, profile, span)
    shares = [
        0.0 if one is None else float(np.mean([_inside(place, one) for place in own]))
        for one in found
    ]
    row = {
        "question": f"{first} {second} over {axis} {fixed or ''}".strip(),
        "intervals": [
            one and [one.at.low, one.at.value, one.at.high, one.before, one.beyond] for one in found
        ],
        "machines": [None if np.isinf(place) else place for place in own],
        "held": shares,
        "left_over_chance": left,
        "coverage": float(np.mean(shares)),
    }
    print(json.dumps({k: v for k, v in row.items() if k != "machines"}), flush=True)
    return row


def _inside(place: float, found: Any) -> bool:
    """An end that was left open holds all beyond."""
    low = -np.inf if found.before > 0.025 else found.at.low
    high = np.inf if found.beyond > 0.025 else found.at.high
    return bool(low <= place <= high)


def own_crossings(
    question: tuple[str, str, str, float, float, dict[str, Any]],
    profile: Profile,
    span: tuple[float, float],
) -> tuple[list[float], float]:
    """Of other machines, and what their parabolas leave over the chance of plans (standard
    deviations; 1: nothing but chance). Infinite where one never crosses up to the end of `span`, 0
    where it has before. On whole axes the first whole number from which on it has."""
    first, second, name, *_, fixed = question
    axis = AXES[name]
    sides = closed_loop(**fixed, seed=TRUTH_SEED).cells(profile, f"{first},{second}")
    places = axis.grid(*span, PLACES)
    assert axis.move is not None
    tasks = [
        Replication(
            axis.move(side, place),
            profile,
            machine,
            10**6 + PLANS * (MACHINES * i + machine) + plan,
        )
        for machine in range(MACHINES)
        for i, place in enumerate(places)
        for plan in range(PLANS)
        for side in sides
    ]
    values = [run.metrics["output_throughput"] for run in run_all(simulate_cell, tasks, None, None)]
    table = np.log(np.array(values, dtype=float)).reshape(MACHINES, len(places), PLANS, 2)
    each = table[..., 1] - table[..., 0]
    ratios = each.mean(axis=2)
    x = np.log(places) if axis.logarithmic else np.array(places)
    mean, basis = ratios.mean(axis=0), np.vander((x - x.mean()) / np.ptp(x), 3)
    smooth = mean + (ratios - mean) @ (basis @ np.linalg.pinv(basis)).T
    free = (MACHINES - 1) * (len(x) - 3)
    left = float(((ratios - smooth) ** 2).sum() / free)
    chance = float(each.var(axis=2, ddof=1).mean() / PLANS)
    ratios = smooth
    falls = ratios.mean(axis=0)[0] > ratios.mean(axis=0)[-1]
    crossed = (ratios < 0.0) if falls else (ratios > 0.0)
    found = []
    for row, ahead in zip(ratios, crossed, strict=True):
        last = np.flatnonzero(~ahead)
        if not len(last):
            found.append(0.0)
        elif last[-1] == len(x) - 1:
            found.append(float("inf"))
        else:
            i = last[-1]
            at = x[i] + (x[i + 1] - x[i]) * row[i] / (row[i] - row[i + 1])
            place = float(np.exp(at)) if axis.logarithmic else float(at)
            found.append(float(np.ceil(place)) if axis.whole else place)
    return found, (left / chance) ** 0.5


if __name__ == "__main__":
    main()
