"""When a device had work, from the stage rows of a run."""

from __future__ import annotations

import numpy as np

from pdvsim.records import STREAMS, RunRecord
from pdvsim.spans import Spans


def busy_seconds(record: RunRecord) -> dict[str, float]:
    """Seconds with at least one stage on the device, and on each stream that was used.

    Stages that had not been settled by the end of the run have no row and do not count.
    """
    started = record.column("started_s")
    ended = np.minimum(record.column("ended_s"), record.end_s)
    stream = record.column("stream")
    busy = {"device": Spans(started, ended).length_s}
    for code, name in enumerate(STREAMS):
        on_it = stream == code
        if on_it.any():
            busy[str(name)] = Spans(started[on_it], ended[on_it]).length_s
    return busy
