"""When a device had work, from the stage rows of a run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pdvsim.records import STREAMS, RunRecord


def busy_seconds(record: RunRecord) -> dict[str, float]:
    """Seconds with at least one stage on the device, and on each stream that was used.

    Stages that had not been settled by the end of the run have no row and do not count.
    """
    started = record.column("started_s")
    ended = np.minimum(record.column("ended_s"), record.end_s)
    stream = record.column("stream")
    busy = {"device": _union_s(started, ended)}
    for code, name in enumerate(STREAMS):
        on_it = stream == code
        if on_it.any():
            busy[str(name)] = _union_s(started[on_it], ended[on_it])
    return busy


def _union_s(started: NDArray[np.float64], ended: NDArray[np.float64]) -> float:
    """Total length of the union of intervals."""
    if not len(started):
        return 0.0
    order = np.argsort(started)
    started, latest = started[order], np.maximum.accumulate(ended[order])
    # Each interval adds what lies beyond the latest end before it.
    before = np.concatenate(([-np.inf], latest[:-1]))
    return float(np.maximum(0.0, latest - np.maximum(started, before)).sum())
