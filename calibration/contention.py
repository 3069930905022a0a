"""How much stages slow each other down when they run on two streams at the same time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from calibration.fit import estimate
from calibration.plan import Beside
from calibration.stages import Blocker, time_stage
from calibration.trains import quiet_requests
from pdvsim.core import PREFILLS, Executor, Request, Stage, Stream
from pdvsim.profile_file import ContentionFit, StageFit
from pdvsim.work import Work, work_of
from realengine.engine import Engine, Ticket

REPEATS = 2
BUSY_S = 0.15  # of work on each stream, at least
SETTLING = 0.25  # share of the time together in which the GPU's clock finds its level
LEAST_LAUNCHES, MOST_LAUNCHES = 4, 64
OUTPUT_TOKENS = MOST_LAUNCHES + 8
ROUND_TOKENS = 160  # prompts of requests in rounds
_ROUNDS = (Stage.DRAFT, Stage.VERIFY, Stage.DECODE)


def side_by_side(executor: Executor) -> list[tuple[Stage, Stage]]:
    """Pairs of stages that some architecture runs at the same time on `executor`: a prefill beside
    a round, and the lanes of a round beside each other."""
    own = (*executor.speculate, *executor.check)
    rounds = [stage for stage in _ROUNDS if stage in own or stage is Stage.DECODE]
    lanes = [own] if own == (Stage.DRAFT, Stage.VERIFY) else []
    return [*product(executor.prefill, rounds), *lanes]


def request_tokens(draft_tokens: int) -> int:
    """Cache tokens that each request in a round of `measure_pairs` takes at most, the rest of a
    page too.

    Two stages of a round, side by side, have their own requests each.
    """
    return ROUND_TOKENS + OUTPUT_TOKENS + draft_tokens + 16


def measure_pairs(
    engine: Engine, at: Beside, first_id: int, block: Blocker
) -> list[dict[str, Any]]:
    """Run each pair side by side, `at.batch` requests in a round stage and one in a prefill.

    Each stage is launched again and again, as in a busy engine. A pair that meets once, on a GPU
    that was idle, is quicker: at its power limit an H100 goes from 1,980 to 1,700 MHz.

    Returns:
        One row per stage of each repeat: what a launch was, how many were looked at, and the
        device seconds that these took, each of them beside the other stage from start to end.
    """
    rows: list[dict[str, Any]] = []
    pairs = side_by_side(engine.executor)
    for first, second in pairs:
        for repeat in range(REPEATS):
            start = first_id + 10_000 * repeat + 1_000 * pairs.index((first, second))
            groups = [
                _ready(engine, stage, at, start + 500 * i)
                for i, stage in enumerate((first, second))
            ]
            drafts = at.draft_tokens
            alone_s = [_alone_s(engine, group, block, drafts) for group in groups]
            spans = _together(engine, groups, alone_s, block, drafts)
            for i, (stage, requests) in enumerate(groups):
                inside = beside(spans[i], spans[1 - i])
                rows.append(
                    {
                        "stage": stage,
                        "other": groups[1 - i][0],
                        "beside": at.batch,
                        "draft_tokens": at.draft_tokens,
                        "prompt_tokens": at.prompt_tokens,
                        **work_of(engine.executor, stage, requests, drafts)._asdict(),
                        "launches": len(inside),
                        "together_s": sum(end - start for start, end in inside),
                    }
                )
                for request in requests:
                    engine.release(request)
    return rows


Group = tuple[Stage, list[Request]]
Span = tuple[float, float]


def _ready(engine: Engine, stage: Stage, at: Beside, first_id: int) -> Group:
    """Requests that are about to run `stage`; a prefill's are entered by the run itself. Every
    draft of theirs is rejected, so that a verify takes little room; that changes no cost."""
    batch, prompt = (1, at.prompt_tokens) if stage in PREFILLS else (at.batch, ROUND_TOKENS)
    requests = quiet_requests(first_id, batch, prompt, OUTPUT_TOKENS)
    if stage not in PREFILLS:
        prefill = (
            engine.executor.plain_prefill if stage is Stage.DECODE else engine.executor.prefill
        )
        for earlier in prefill:
            time_stage(engine, earlier, requests)
    return stage, requests


def _alone_s(engine: Engine, group: Group, block: Blocker, drafts: int) -> float:
    """Device seconds of the group's stage; the group can run it again. Only says how many
    launches keep the device busy for long enough."""
    stage, requests = group
    sample = time_stage(engine, stage, requests, block, drafts)
    if stage in PREFILLS:
        for request in requests:
            engine.release(request)
            request.produced_tokens = 0
            request.tokens.clear()
    return sample.device_s


def _together(
    engine: Engine,
    groups: Sequence[Group],
    alone_s: Sequence[float],
    block: Blocker,
    drafts: int,
) -> list[list[Span]]:
    """Keep both streams busy with their stage. Returns the device spans of the launches.

    Nothing is settled in between, so the host stays ahead of the device; a prefill writes the same
    pages each time, and a verify's tokens find the room that the request has for its output.
    """
    streams = (Stream.PREFILL, Stream.VERIFY)
    busy_s = max(BUSY_S, LEAST_LAUNCHES * max(alone_s))
    launches = [min(MOST_LAUNCHES, math.ceil(busy_s / seconds)) for seconds in alone_s]
    for stream in streams:
        block(stream)
    tickets: list[list[Ticket]] = [[], []]
    for turn in range(max(launches)):
        for i, (stage, requests) in enumerate(groups):
            if turn < launches[i]:
                tickets[i].append(engine.launch(stage, requests, streams[i], (), drafts))
    for ticket in (*tickets[0], *tickets[1]):
        ticket.wait()
    return [[ticket.device_span_s() or (0.0, 0.0) for ticket in one] for one in tickets]


def beside(spans: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    """Those of `spans` that lie within the time in which both streams were busy, but for its
    beginning."""
    start = max(spans[0][0], others[0][0])
    end = min(spans[-1][1], others[-1][1])
    settled = start + SETTLING * (end - start)
    return [span for span in spans if settled <= span[0] and span[1] <= end]


def fit_contention(
    rows: Sequence[dict[str, Any]], stages: Mapping[Stage, StageFit], rng: np.random.Generator
) -> list[ContentionFit]:
    """Speed of each stage beside each other one, by size: what its launches should have taken,
    by the fitted cost that a simulation starts from, over what they took."""
    speeds: dict[tuple[str, str, int, int], list[float]] = defaultdict(list)
    for row in rows:
        if row["launches"]:
            fit = stages[Stage(row["stage"])]
            cost_s = fit.device_s(Work(*[row[name] for name in Work._fields]))
            speed = row["launches"] * cost_s / row["together_s"]
            key = row["stage"], row["other"], *_sizes(row)
            speeds[key].append(float(np.clip(speed, 0.05, 1.0)))
    return [
        ContentionFit(
            stage=Stage(stage),
            other=Stage(other),
            rows=rows,
            prompt_tokens=prompt,
            speed=estimate(values, rng),
        )
        for (stage, other, rows, prompt), values in sorted(speeds.items())
    ]


def _sizes(row: Mapping[str, Any]) -> tuple[int, int]:
    """(rows of the round whose size decides, tokens of the prompt)."""
    stage, other = Stage(row["stage"]), Stage(row["other"])
    decides = stage if other in PREFILLS else other
    rows = row["beside"] * (row["draft_tokens"] + 1 if decides is Stage.VERIFY else 1)
    return rows, row["prompt_tokens"] if {stage, other} & {*PREFILLS} else 0
