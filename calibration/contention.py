"""How much stages slow each other down when they run on two streams at the same time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from calibration.fit import estimate
from calibration.stages import Blocker, context_growth, requests_for, time_stage
from pdvsim.core import Request, Stage, Stream
from pdvsim.profile import ContentionFit
from realengine.engine import Engine, Ticket

REPEATS = 3
ALONE_RUNS = 3
BUSY_S = 0.12  # of work on each stream: long enough for power and clocks to be a busy GPU's
MOST_LAUNCHES = 24
MOST_VERIFIES = 6  # each needs room for its tokens in the cache, of every request
PREFILL_TOKENS = 256
_PREFILLS = (Stage.PREFILL_DRAFT, Stage.PREFILL_VERIFIER)
_ROUNDS = (Stage.DRAFT, Stage.VERIFY, Stage.DECODE)
# Pairs that some architecture runs at the same time: a prefill beside a round, and the lanes of a
# round beside each other.
PAIRS = (*product(_PREFILLS, _ROUNDS), (Stage.DRAFT, Stage.VERIFY))


def request_tokens(draft_tokens: int) -> int:
    """Cache tokens that each request of `measure_pairs` takes at most, the rest of a page too.

    Two stages of a round, side by side, have their own requests each.
    """
    output = context_growth(ALONE_RUNS + MOST_VERIFIES, draft_tokens)
    return PREFILL_TOKENS + output + draft_tokens + 16


def measure_pairs(
    engine: Engine, batch: int, first_id: int, seed: int, block: Blocker
) -> list[dict[str, Any]]:
    """Run each pair side by side, `batch` requests in a round stage and one in a prefill.

    Each stage is launched again and again, as in a busy engine: a pair that meets once, on a GPU
    that was idle, is quicker.

    Returns:
        One row per stage of each repeat, summed over its launches: seconds alone, seconds beside
        the other, and for how long the two overlapped.
    """
    rows: list[dict[str, Any]] = []
    for first, second in PAIRS:
        for repeat in range(REPEATS):
            start = first_id + 10_000 * repeat + 1_000 * PAIRS.index((first, second))
            groups = [
                _ready(engine, stage, 1 if stage in _PREFILLS else batch, start + 500 * i, seed)
                for i, stage in enumerate((first, second))
            ]
            alone_s = [_alone_s(engine, group, block) for group in groups]
            spans = _together(engine, groups, alone_s, block)
            rows += [
                {
                    "stage": groups[i][0],
                    "other": groups[1 - i][0],
                    "beside": batch,
                    "launches": len(spans[i]),
                    "alone_s": alone_s[i] * len(spans[i]),
                    "together_s": sum(end - start for start, end in spans[i]),
                    "overlap_s": overlap_s(*spans),
                }
                for i in range(2)
            ]
            for _, requests in groups:
                for request in requests:
                    engine.release(request)
    return rows


Group = tuple[Stage, list[Request]]
Span = tuple[float, float]


def _ready(engine: Engine, stage: Stage, batch: int, first_id: int, seed: int) -> Group:
    """Requests that are about to run `stage`; a prefill's are entered by the run itself."""
    rounds = ALONE_RUNS + MOST_VERIFIES
    requests = requests_for(engine, batch, PREFILL_TOKENS, rounds, first_id, seed)
    if stage not in _PREFILLS:
        prefill = engine.executor.plain_prefill if stage is Stage.DECODE else _PREFILLS
        for earlier in prefill:
            time_stage(engine, earlier, requests)
    return stage, requests


def _alone_s(engine: Engine, group: Group, block: Blocker) -> float:
    """Median device seconds of the group's stage alone; the group can run it again."""
    stage, requests = group
    runs = []
    for _ in range(ALONE_RUNS):
        runs.append(time_stage(engine, stage, requests, block).device_s)
        if stage in _PREFILLS:
            for request in requests:
                engine.release(request)
                request.produced_tokens = 0
                request.tokens.clear()
    return float(np.median(runs))


def _together(
    engine: Engine, groups: Sequence[Group], alone_s: Sequence[float], block: Blocker
) -> list[list[Span]]:
    """Keep both streams busy with their stage. Returns the device spans of the launches.

    Nothing is settled in between, so the host stays ahead of the device; a prefill writes the same
    pages each time, and a verify's tokens find the room that the request has for its output.
    """
    streams = (Stream.PREFILL, Stream.VERIFY)
    launches = [
        min(MOST_VERIFIES if stage is Stage.VERIFY else MOST_LAUNCHES, math.ceil(BUSY_S / seconds))
        for (stage, _), seconds in zip(groups, alone_s, strict=True)
    ]
    for stream in streams:
        block(stream)
    tickets: list[list[Ticket]] = [[], []]
    for turn in range(max(launches)):
        for i, (stage, requests) in enumerate(groups):
            if turn < launches[i]:
                tickets[i].append(engine.launch(stage, requests, streams[i], ()))
    for ticket in (*tickets[0], *tickets[1]):
        ticket.wait()
    return [[ticket.device_span_s() or (0.0, 0.0) for ticket in one] for one in tickets]


def overlap_s(first: Sequence[Span], second: Sequence[Span]) -> float:
    """For how long a span of `first` and one of `second` ran at the same time."""
    return sum(
        max(0.0, min(a_end, b_end) - max(a_start, b_start))
        for a_start, a_end in first
        for b_start, b_end in second
    )


def fit_contention(rows: Sequence[dict[str, Any]], rng: np.random.Generator) -> list[ContentionFit]:
    """Speed of each stage beside each other one, by batch: work done in the overlap / overlap."""
    speeds: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for row in rows:
        if row["overlap_s"] > 0.2 * min(row["alone_s"], row["together_s"]):
            done_s = row["alone_s"] - (row["together_s"] - row["overlap_s"])
            speeds[row["stage"], row["other"], row["beside"]].append(
                float(np.clip(done_s / row["overlap_s"], 0.05, 1.0))
            )
    return [
        ContentionFit(
            stage=Stage(stage), other=Stage(other), batch=batch, speed=estimate(values, rng)
        )
        for (stage, other, batch), values in sorted(speeds.items())
    ]
