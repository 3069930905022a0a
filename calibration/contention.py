"""How much stages slow each other down when they run on two streams at the same time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from calibration.fit import estimate
from calibration.stages import Blocker, finish, requests_for, time_stage
from pdvsim.core import Request, Stage, Stream
from pdvsim.profile import ContentionFit
from realengine.engine import Engine

REPEATS = 4
PREFILL_TOKENS = 256
_PREFILLS = (Stage.PREFILL_DRAFT, Stage.PREFILL_VERIFIER)
_ROUNDS = (Stage.DRAFT, Stage.VERIFY, Stage.DECODE)
# Pairs that some architecture runs at the same time: a prefill beside a round, and the lanes of a
# round beside each other.
PAIRS = (*product(_PREFILLS, _ROUNDS), (Stage.DRAFT, Stage.VERIFY))


def measure_pairs(
    engine: Engine, batch: int, first_id: int, seed: int, block: Blocker
) -> list[dict[str, Any]]:
    """Run each pair side by side, `batch` requests in a round stage and one in a prefill.

    Returns:
        One row per stage of each run: its seconds alone, its seconds beside the other, and for how
        long the two overlapped.
    """
    rows: list[dict[str, Any]] = []
    for first, second in PAIRS:
        for repeat in range(REPEATS):
            start = first_id + 10_000 * repeat + 1_000 * PAIRS.index((first, second))
            groups = [
                _ready(engine, stage, 1 if stage in _PREFILLS else batch, start + 500 * i, seed)
                for i, stage in enumerate((first, second))
            ]
            alone = [_device_s(engine, stage, block) for stage in groups]
            rows += _together(engine, groups, alone, block)
            for _, requests in groups:
                for request in requests:
                    engine.release(request)
    return rows


Group = tuple[Stage, list[Request]]


def _ready(engine: Engine, stage: Stage, batch: int, first_id: int, seed: int) -> Group:
    """Requests that are about to run `stage`; a prefill's are entered by the run itself."""
    requests = requests_for(engine, batch, PREFILL_TOKENS, 6, first_id, seed)
    if stage not in _PREFILLS:
        prefill = engine.executor.plain_prefill if stage is Stage.DECODE else _PREFILLS
        for earlier in prefill:
            time_stage(engine, earlier, requests)
    return stage, requests


def _device_s(engine: Engine, group: Group, block: Blocker) -> float:
    """Device seconds of the group's stage alone; the group is ready to run it again."""
    stage, requests = group
    sample = time_stage(engine, stage, requests, block)
    if stage in _PREFILLS:
        for request in requests:
            engine.release(request)
            request.produced_tokens = 0
            request.tokens.clear()
    return sample.device_s


def _together(
    engine: Engine, groups: Sequence[Group], alone_s: Sequence[float], block: Blocker
) -> list[dict[str, Any]]:
    streams = (Stream.PREFILL, Stream.VERIFY)
    for stream in streams:
        block(stream)
    tickets = [
        engine.launch(stage, requests, stream, ())
        for (stage, requests), stream in zip(groups, streams, strict=True)
    ]
    for ticket in tickets:
        finish(engine, ticket)
    spans = [ticket.device_span_s() or (0.0, 0.0) for ticket in tickets]
    overlap_s = max(0.0, min(end for _, end in spans) - max(start for start, _ in spans))
    return [
        {
            "stage": groups[i][0],
            "other": groups[1 - i][0],
            "beside": max(len(requests) for _, requests in groups),
            "alone_s": alone_s[i],
            "together_s": spans[i][1] - spans[i][0],
            "overlap_s": overlap_s,
        }
        for i in range(2)
    ]


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
