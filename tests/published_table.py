"""A made-up result table in the layout of the published pdverify benchmark.

Two engines serve the benchmark's own arrivals on a machine with one worker, by a loop of a few
lines that shares nothing with the simulator: what `reproduce` and `audit` say of the table can be
held against what was put into it.
"""

from __future__ import annotations

import csv
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pdvsim.pdverify.protocol import arrivals_s

LOADS = (1, 2, 4, 8, 16, 32, 64, 128)
LIMIT_S = 60.0
PREFILL_S, ROUND_S = 0.045, 0.107
SUMMARY = [
    *("Engine", "Concurrency", "Throughput (TPS)", "Latency P50 (ms)", "Latency P99 (ms)"),
    *("Acceptance Rate", "GPU Util %", "GPU Mem (MB)", "Avg Request Latency (ms)"),
]
DETAILED = [
    *("Engine", "Concurrency", "RequestID", "TotalLatency", "PrefillDuration"),
    *("DecodeDuration", "TokensGenerated", "TokensAccepted"),
]


@dataclass
class Served:
    """One request: what it needs, and when it got it (seconds)."""

    id: int
    arrival_s: float
    rounds: int
    tokens: int
    done: int = 0
    prefilled_s: float = 0.0
    completed_s: float | None = None


@dataclass
class Worker:
    """One engine at one load; `speed` is how fast this run's machine is."""

    engine: str
    cap: int
    waiting: deque[Served]
    speed: float
    active: deque[Served] = field(default_factory=deque)
    now_s: float = 0.0

    def serve(self) -> float:
        """Work until all is done or the time is up; the seconds that the run took."""
        while (self.waiting or self.active) and self.now_s < LIMIT_S:
            if not self.active and self.waiting[0].arrival_s > self.now_s:
                self.now_s = self.waiting[0].arrival_s
            self._prefill()
            # PD completes a request at once; PDV's batch of up to C rounds completes as one.
            batch = [
                self.active.popleft()
                for _ in range(min(self.cap if self.engine == "PDV" else 1, len(self.active)))
            ]
            for request in batch:
                self.now_s += ROUND_S / self.speed
                request.done += 1
            for request in batch:
                if request.done < request.rounds:
                    self.active.append(request)
                elif self.now_s <= LIMIT_S:
                    request.completed_s = self.now_s
        return min(self.now_s, LIMIT_S)

    def _prefill(self) -> None:
        if self.waiting and self.waiting[0].arrival_s <= self.now_s and len(self.active) < self.cap:
            request = self.waiting.popleft()
            self.now_s += PREFILL_S / self.speed
            request.prefilled_s = self.now_s
            self.active.append(request)


def write_published_table(
    folder: Path,
    loads: tuple[int, ...] = LOADS,
    seed: int = 0,
    memory_mib: int = 6000,
    name: str = "TinyLlama-TinyLlama",
) -> tuple[Path, Path]:
    """Write `<name>_summary.csv` and `<name>_detailed.csv` into `folder`; their paths.

    PD and PDV at each load. Request i takes the same rounds and tokens in every run; runs differ
    in speed by 1 %. From about 16 requests on the machine cannot keep up, and from 32 on every
    run is cut at 60 s.
    """
    rng = np.random.default_rng(seed)
    work = [(int(rng.integers(11, 15)), int(rng.integers(20, 23))) for _ in range(1000)]
    summary, detailed = [], []
    for engine in ("PD", "PDV"):
        for load in loads:
            requests = [Served(i, arrival, *work[i]) for i, arrival in enumerate(arrivals_s(load))]
            speed = float(np.exp(rng.normal(0.0, 0.01)))
            elapsed_s = Worker(engine, load, deque(requests), speed).serve()
            done = [request for request in requests if request.completed_s is not None]
            summary.append(_summary_row(engine, load, done, elapsed_s, memory_mib))
            detailed += [_detailed_row(engine, load, request, speed) for request in done]
    paths = folder / f"{name}_summary.csv", folder / f"{name}_detailed.csv"
    for path, header, rows in zip(paths, (SUMMARY, DETAILED), (summary, detailed), strict=True):
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    return paths


def _latency_ms(request: Served) -> float:
    assert request.completed_s is not None
    return 1e3 * (request.completed_s - request.arrival_s)


def _summary_row(
    engine: str, load: int, done: list[Served], elapsed_s: float, memory_mib: int
) -> list[object]:
    latencies = [_latency_ms(request) for request in done]
    tokens = sum(request.tokens for request in done)
    drafted = 4 * sum(request.rounds for request in done)
    low, high = np.quantile(latencies, [0.5, 0.99]).round(2).tolist()
    rate, mean = f"{100 * tokens / drafted:.2f}%", round(float(np.mean(latencies)), 2)
    return [engine, load, round(tokens / elapsed_s, 2), low, high, rate, 50.0, memory_mib, mean]


def _detailed_row(engine: str, load: int, request: Served, speed: float) -> list[object]:
    assert request.completed_s is not None
    prefill_ms, decode_ms = (
        1e3 * PREFILL_S / speed,
        1e3 * (request.completed_s - request.prefilled_s),
    )
    counts = [4 * request.rounds, request.tokens]
    name = f"req_{request.id:04}"
    return [engine, load, name, _latency_ms(request), prefill_ms, decode_ms, *counts]
