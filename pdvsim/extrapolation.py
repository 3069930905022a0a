"""Where a simulated run left what its calibration measured."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pdvsim.core import PREFILLS, Request, Stage
from pdvsim.des.contention import sizes_of
from pdvsim.models import ModelShape
from pdvsim.records import STAGE_CODE, STAGE_COLUMNS, STAGES, RunRecord
from pdvsim.work import draft_passes, padded

if TYPE_CHECKING:
    from pdvsim.profile_file import ProfileFile

# The least and the most of a variable; None where the least does not matter.
Ends: TypeAlias = tuple[int | None, int]


def extrapolations(file: ProfileFile, record: RunRecord) -> list[str]:
    """Which stages of `record` left the range that `file` was measured in, one sentence each."""
    return [*_stages(file, record), *_mixed(file, record), *_contention(file, record)]


def too_long(requests: Iterable[Request], models: Iterable[ModelShape]) -> list[str]:
    """A sentence on the requests that `models` cannot take, if there are any."""
    lengths = [request.prompt_tokens + request.output_tokens for request in requests]
    reach = {model.name: model.max_context_tokens for model in models}
    beyond = [length for length in lengths if length > min(reach.values())]
    if not beyond:
        return []
    short = [f"{name} ({most})" for name, most in reach.items() if most < max(beyond)]
    return [
        f"{len(beyond)} of {len(lengths)} requests, of up to {max(beyond)} tokens with their "
        f"output, do not fit the context of {' and '.join(short)}: no engine can run them"
    ]


def farthest(reasons: Iterable[str]) -> list[str]:
    """Of sentences that differ in their numbers only the one that is farthest out."""
    kept: dict[str, str] = {}
    for reason in reasons:
        kind = re.sub(r"[\d,]+(\.\d+)?(e[+-]\d+)?", "#", reason)
        if kind not in kept or _times(reason) > _times(kept[kind]):
            kept[kind] = reason
    return list(kept.values())


def _times(reason: str) -> float:
    """By how much it is out, up or down; 0 where it does not say."""
    found = re.search(r"([\d.e+-]+) x the measured", reason)
    return abs(math.log(max(float(found[1]), 1e-9))) if found else 0.0


def told(reasons: Sequence[str]) -> tuple[str, ...]:
    """The note that a document has on them."""
    return (f"Extrapolated: {'; '.join(reasons)}.",) if reasons else ()


def _stages(file: ProfileFile, record: RunRecord) -> list[str]:
    reasons: list[str] = []
    codes = record.column("stage").astype(int)
    for code, stage in enumerate(STAGES):
        rows = record.stage_rows[codes == code]
        fit = file.stages.get(stage)
        if fit is None or not len(rows):
            continue
        for name, (least, most) in _seen(stage, fit.token_buckets, rows, record).items():
            measured: tuple[int, int] | None = getattr(fit.measured, name)
            if measured is not None:
                (low, high), near = measured, NEAR if name == "chunk_tokens" else 1.0
                reasons += _outside(f"{stage}: {LABELS[name]}", least, most, low, high, near)
    return reasons


# The variables of `pdvsim.profile_file.Range`, as sentences name them.
LABELS = {
    "batch": "batch",
    "passes": "passes",
    "new_tokens": "new tokens of a request",
    "context_tokens": "longest context",
    "chunk_tokens": "tokens of a pass",
}
NEAR = 1.2  # times the measured, sizes of whole passes count as inside: they are sums, and smooth


def _seen(
    stage: Stage, padding: Sequence[int], rows: NDArray[np.float64], record: RunRecord
) -> dict[str, Ends]:
    """Least and most of each variable of the launches in `rows`.

    Of a batch whose requests differ, rows hold sums; what one of them had at most is taken from
    the requests. Short contexts are left out: they cost next to nothing. So are prompts that are
    padded to what was measured, and mixed passes of few requests, which are prefills at last.
    """
    batch, new = (rows[:, STAGE_COLUMNS.index(name)] for name in ("batch", "query_tokens"))
    least, most = int(np.ceil((new / batch).min())), int(np.ceil((new / batch).max()))
    seen: dict[str, Ends] = {"batch": (int(batch.min()), int(batch.max()))}
    executor = record.config.executor
    if stage in PREFILLS:
        prompts = [request.prompt_tokens for request in record.requests]
        shortest = padded(padding, min(least, min(prompts)))
        return seen | {"new_tokens": (shortest, min(max(prompts), int(new.max())))}
    longest = max(request.context_tokens for request in record.requests)
    seen["context_tokens"] = (None, longest)
    if stage is Stage.DRAFT:
        drafts = (each + executor.synchronous for each in (least, most))
        low, high = (draft_passes(executor, each) for each in drafts)
        return seen | {"passes": (low, high)}
    if stage is Stage.MIXED:
        seen["batch"] = (None, int(batch.max()))
        return seen | {"chunk_tokens": (None, int(new.max()))}
    return seen | {"new_tokens": (least, most)}


def _outside(
    what: str, least: int | None, most: int, low: int, high: int, near: float = 1.0
) -> list[str]:
    """The sentence on values from `least` to `most` where `low` to `high` was measured; none where
    all are inside, or within `near` times the ends."""
    beyond = [(least, low)] if least is not None and least * near < low else []
    if most > high * near:
        beyond.append((most, high))
    if not beyond:
        return []
    values = " and ".join(f"{value:,}" for value, _ in beyond)
    times = " and ".join(f"{value / max(end, 1):.2g}" for value, end in beyond)
    ends = " and ".join(f"{end:,}" for _, end in beyond)
    return [f"{what} {values} {'is' if len(beyond) == 1 else 'are'} {times} x the measured {ends}"]


def _mixed(file: ProfileFile, record: RunRecord) -> list[str]:
    if Stage.MIXED in file.stages or not np.any(record.column("stage") == STAGE_CODE[Stage.MIXED]):
        return []
    return [
        "mixed passes were not calibrated: each is composed of its round and of its prompts' "
        "prefill, with one reading of the weights"
    ]


def _contention(file: ProfileFile, record: RunRecord) -> list[str]:
    """Stages on two streams at once slow each other by what was measured at some sizes; between
    these that is interpolated, beyond them it is taken from the nearest."""
    reasons: list[str] = []
    sizes = side_by_side(record)
    if not file.contention or not len(sizes):
        return []
    # Few rows contend as fewer do: both pass over the weights and do little else.
    reasons += _outside(
        "streams side by side: new tokens of a round's pass",
        None,
        int(sizes[:, 0].max()),
        0,
        max(entry.rows for entry in file.contention),
        NEAR,
    )
    prompts = [entry.prompt_tokens for entry in file.contention if entry.prompt_tokens]
    prefills = sizes[sizes[:, 1] > 0, 1]
    if prompts and len(prefills):
        reasons += _outside(
            "streams side by side: tokens of prompts",
            *(int(prefills.min()), int(prefills.max()), min(prompts), max(prompts), NEAR),
        )
    return reasons


def side_by_side(record: RunRecord) -> NDArray[np.float64]:
    """`pdvsim.des.contention.sizes_of` each stage that ran beside another on a second stream, shape
    (pairs, 2); only neighbours in time are looked at."""
    order = np.argsort(record.column("started_s"), kind="stable")
    stage, stream, batch, new, start, end = (
        record.column(name)[order]
        for name in ("stage", "stream", "batch", "query_tokens", "started_s", "ended_s")
    )
    both = np.flatnonzero((stream[1:] != stream[:-1]) & (start[1:] < end[:-1]))
    kinds = np.column_stack((stage, batch, new)).astype(np.int64)
    pairs = np.unique(np.column_stack((kinds[both], kinds[both + 1])), axis=0)
    found = []
    for one, one_batch, one_new, other, other_batch, other_new in pairs.tolist():
        mine, theirs = (STAGES[one], one_batch, one_new), (STAGES[other], other_batch, other_new)
        found += [sizes_of(mine, theirs), sizes_of(theirs, mine)]
    return np.array(found, dtype=np.float64).reshape(-1, 2)
