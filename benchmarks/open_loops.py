"""Open loops against theory: when a run is called overloaded, how sure a run is of its p99, and
how a p99 goes with the length of the run.

Single servers are exact recursions (Lindley), so what is tested is `pdvsim.open_loop` alone; their
p99 is held against theory. The last part simulates `pd` from the shipped profile.

    python benchmarks/open_loops.py --json results/open_loops.json
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pdvsim.cell import Cell, Values
from pdvsim.machine import Replication
from pdvsim.open_loop import drift, enough, excursions
from pdvsim.pool import run_all
from pdvsim.profile import select_profile
from pdvsim.records import RunRecord
from pdvsim.result_file import write_text
from pdvsim.statistics import prediction_interval
from pdvsim.sweep import simulate_cell

Times = NDArray[np.float64]
RUNS, LONG_RUNS, LONGEST = 400, 200, 128_000
SERVICES = ("alike", "exponential")


@dataclass(frozen=True, slots=True)
class _Request:
    arrival_s: float
    completed_s: float


@dataclass(frozen=True, slots=True)
class _Server:
    batch_cap: int = 1


@dataclass(frozen=True, slots=True)
class _Run:
    """What `drift` looks at."""

    requests: list[_Request]
    config: _Server = _Server()


def single_server(
    load: float, count: int, services: str, rng: np.random.Generator
) -> tuple[Times, Times]:
    """Arrivals and completions at a server that takes 1 s each on average, in order."""
    arrivals = np.cumsum(rng.exponential(1.0 / load, count))
    works = rng.exponential(1.0, count) if services == "exponential" else np.ones(count)
    # Completion = the largest of (arrival of any before, and all work since): a running maximum.
    done = np.cumsum(works)
    return arrivals, done + np.maximum.accumulate(arrivals - done + works)


def called_overloaded(load: float, count: int, services: str) -> float:
    """Share of runs."""
    rng = np.random.default_rng(1)
    servers = (single_server(load, count, services, rng) for _ in range(RUNS))
    runs = (
        _Run([_Request(*times) for times in zip(*map(np.ndarray.tolist, server), strict=True)])
        for server in servers
    )
    found = (drift(cast(RunRecord, run)) for run in runs)
    return sum(one is not None and one.overloaded for one in found) / RUNS


def tails(load: float, within: float) -> dict[str, Any]:
    """Of M/M/1, whose time in system is exponential: p99s of runs that are doubled until they have
    the excursions that are wanted."""
    rng = np.random.default_rng(2)
    truth, wanted, found = log(100.0) / (1.0 - load), enough(0.99, within), []
    for _ in range(LONG_RUNS):
        arrivals, completed = single_server(load, LONGEST, "exponential", rng)
        times = completed - arrivals
        count = 1_000
        while count < LONGEST and excursions(times[count // 10 : count]) < wanted:
            count *= 2
        p99 = float(np.quantile(times[count // 10 : count], 0.99, method="inverted_cdf"))
        found.append((count, p99 / truth - 1.0))
    settled = [(count, off) for count, off in found if count < LONGEST]
    return {
        "load": load,
        "within": within,
        "settled": len(settled) / LONG_RUNS,
        "median_requests": float(np.median([count for count, _ in settled] or [LONGEST])),
        "inside": float(np.mean([abs(off) <= within for _, off in settled] or [0.0])),
        "mean_error": float(np.mean([off for _, off in settled] or [0.0])),
    }


def lengths(rate: float, count: int, replications: int) -> dict[str, Any]:
    """`pd` at C = 32, prompts one at a time: its p99 of TTFT in runs of so many requests."""
    profile = select_profile(None, None, None)
    cell = Cell(
        profile.pair.name,
        profile.executor.name,
        "pd",
        32,
        parameters=Values({"prefill_batch": 1}),
        protocol="poisson",
        rate_per_s=rate,
        requests=count,
    )
    cells = [Replication(replace(cell), profile, i) for i in range(replications)]
    runs = run_all(simulate_cell, cells)
    known = [value for run in runs if (value := run.metrics["p99_ttft_ms"]) is not None]
    drifts = [run.drift for run in runs if run.drift is not None]
    overloaded = [one for one in drifts if one.overloaded]
    found = prediction_interval(known, least=0.0) if known else None
    return {
        "rate_per_s": rate,
        "requests": count,
        "p99_ttft_ms": found and {"value": found.value, "low": found.low, "high": found.high},
        "overloaded": len(overloaded) / replications,
        "growth_per_s": float(np.mean([one.growth_per_s for one in overloaded] or [0.0])),
        "served_per_s": float(np.mean([one.served_per_s for one in drifts])) if drifts else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--replications", type=int, default=16)
    asked = parser.parse_args()
    document: dict[str, Any] = {"command": "python benchmarks/open_loops.py", "runs": RUNS}
    document["overloads"] = [
        {"load": load, "requests": n, "services": s, "called": called_overloaded(load, n, s)}
        for s in SERVICES
        for load in (0.9, 0.95, 0.98, 1.05, 1.1, 1.5)
        for n in (1_000, 4_000)
    ]
    document["tails"] = [tails(load, share) for load in (0.3, 0.5, 0.8) for share in (0.2, 0.4)]
    document["lengths"] = [
        lengths(rate, n, asked.replications)
        for rate in (16.0, 33.0, 49.0, 60.0, 200.0)
        for n in (256, 1_000, 4_000)
    ]
    for part in ("overloads", "tails", "lengths"):
        for line in document[part]:
            print(part, line, flush=True)
    write_text(asked.json, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
