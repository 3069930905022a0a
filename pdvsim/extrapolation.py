"""Where a simulated run left what its calibration measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pdvsim.core import PREFILLS, Request, Stage
from pdvsim.models import ModelShape
from pdvsim.records import STAGE_CODE, STAGE_COLUMNS, STAGES, RunRecord

if TYPE_CHECKING:
    from pdvsim.profile_file import ProfileFile


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


def _stages(file: ProfileFile, record: RunRecord) -> list[str]:
    reasons: list[str] = []
    codes = record.column("stage").astype(int)
    for code, stage in enumerate(STAGES):
        rows = record.stage_rows[codes == code]
        fit = file.stages.get(stage)
        if fit is None or not len(rows):
            continue
        for name in ("batch", "query_tokens", "context_tokens"):
            low, high = getattr(fit.measured, name)
            seen = rows[:, STAGE_COLUMNS.index(name)]
            outside = [f"{v:.0f}" for v in (seen.min(), seen.max()) if not low <= v <= high]
            if outside:
                values = " and ".join(dict.fromkeys(outside))
                verb = "is" if values == outside[0] else "are"
                reasons.append(
                    f"{stage}: {name} {values} {verb} outside the measured {low} to {high}"
                )
    return reasons


def _mixed(file: ProfileFile, record: RunRecord) -> list[str]:
    if not np.any(record.column("stage") == STAGE_CODE[Stage.MIXED]):
        return []
    return [
        "mixed passes were not calibrated: each is composed of its round and of its prompts' "
        "prefill, with one reading of the weights"
    ]


def _contention(file: ProfileFile, record: RunRecord) -> list[str]:
    """Stages on two streams at once slow each other by what was measured at some batches; between
    these that is interpolated, beyond them it is taken from the nearest."""
    measured = sorted({entry.batch for entry in file.contention})
    batches = side_by_side(record)
    if not measured or not len(batches):
        return []
    # A launch for one request reads the weights as one for two does, and contends as it does.
    if measured[0] <= 2 * batches.min() and batches.max() <= measured[-1]:
        return []
    return [
        f"streams side by side at batches {batches.min():.0f} to {batches.max():.0f}; how much "
        f"they slow each other was measured at {', '.join(map(str, measured))}"
    ]


def side_by_side(record: RunRecord) -> NDArray[np.float64]:
    """The deciding batch of each stage that ran beside another on a second stream; only
    neighbours in time are looked at."""
    order = np.argsort(record.column("started_s"), kind="stable")
    stage, stream, batch, start, end = (
        record.column(name)[order] for name in ("stage", "stream", "batch", "started_s", "ended_s")
    )
    prefill = np.isin(stage, [STAGE_CODE[one] for one in PREFILLS])
    both = (stream[1:] != stream[:-1]) & (start[1:] < end[:-1])
    later = np.where(prefill[:-1], batch[1:], batch[:-1])[both]
    earlier = np.where(prefill[1:], batch[:-1], batch[1:])[both]
    batches: NDArray[np.float64] = np.concatenate([earlier, later])
    return batches
