"""Every second of each thread and each stream: busy by stage, idle by cause.

A thread is busy from wanting a stage until it knows of its end. When it is not:

- **host work**: it runs its lane program between two stages of one turn.
- **admission hold**: all that waits for it is prompts that its admission rule or a full
  KV cache keeps out.
- **wake-up and polling**: a request waits for it that it may take.
- **no work**: nothing waits for it.
- **end of run**: after its last recorded stage; an unfinished one leaves no record.

A stream is busy while a stage runs on it, also if the host still launches the rest of it. When
it is not, it waits for the next stage's **launch** or **lock wait**; before that for its thread,
which is **busy elsewhere**, or idle itself (**no work**).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pdvsim.explain.causes import entry_moments, in_order, row_moments, waits
from pdvsim.explain.run_arrays import Times, Trace
from pdvsim.records import STAGES, STREAMS
from pdvsim.spans import Spans

Seconds = dict[str, float]


def thread_seconds(trace: Trace) -> dict[str, Seconds]:
    """Seconds of each thread, by stage or cause of idleness; each sums to the run's length."""
    wait = waits(trace, entry_moments(trace))
    shut = trace.shut
    found = {}
    for lane, name in enumerate(trace.lanes):
        rows, first = _chosen(trace.lane == lane)
        if not len(rows):
            found[name] = {"no work": trace.end_s}
            continue
        ordered = _bounded(trace, row_moments(trace, rows, first), first)
        seconds = _by_stage(trace, rows, ordered[:, -1] - ordered[:, 1])
        start, end = ordered[:, 0], ordered[:, 1]
        take = trace.take[rows]
        inside = np.concatenate(([False], take[1:] == take[:-1]))
        mine, prompts = wait.lane == lane, wait.prefill
        ready = Spans(wait.start[mine & ~prompts], wait.end[mine & ~prompts])
        asking = Spans(wait.start[mine & prompts], wait.end[mine & prompts])
        could = (ready | (asking - shut)).within(start, end)
        held = (asking - (asking - shut) - ready).within(start, end)
        idle = ~inside
        _add(seconds, "host work", (end - start)[inside].sum())
        _add(seconds, "admission hold", held[idle].sum())
        _add(seconds, "wake-up and polling", could[idle].sum())
        _add(seconds, "no work", (end - start - held - could)[idle].sum())
        _add(seconds, "end of run", trace.end_s - ordered[-1, -1])
        found[name] = seconds
    return found


def stream_seconds(trace: Trace) -> dict[str, Seconds]:
    """Seconds of each stream that was used, by stage or by what it waited for; each sums to the
    run's length."""
    work = []
    for lane in range(len(trace.lanes)):
        of_lane = trace.take_lane == lane
        work.append(Spans(trace.take_start[of_lane], trace.take_end[of_lane]))
    found = {}
    for stream, name in enumerate(STREAMS):
        rows, first = _chosen(trace.stream == stream)
        if not len(rows):
            continue
        queued, launched, ended = (
            trace.row(n)[rows] for n in ("queued_s", "launched_s", "ended_s")
        )
        # A synchronous executor's kernels run while later ones are being launched.
        began = np.minimum(trace.row("started_s")[rows], ended - trace.row("device_alone_s")[rows])
        moments = np.column_stack((queued, launched, np.maximum(began, launched), ended))
        ordered = _bounded(trace, moments, first)
        seconds = _by_stage(trace, rows, ordered[:, 4] - ordered[:, 3])
        start, end = ordered[:, 0], ordered[:, 1]
        elsewhere = np.zeros(len(rows))
        for lane, spans in enumerate(work):
            mine = trace.lane[rows] == lane
            elsewhere[mine] = spans.within(start[mine], end[mine])
        _add(seconds, "launch", (ordered[:, 3] - ordered[:, 2]).sum())
        _add(seconds, "lock wait", (ordered[:, 2] - ordered[:, 1]).sum())
        _add(seconds, "busy elsewhere", elsewhere.sum())
        _add(seconds, "no work", (end - start - elsewhere).sum())
        _add(seconds, "end of run", trace.end_s - ordered[-1, -1])
        found[str(name)] = seconds
    return found


def _chosen(rows: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Indexes of the chosen rows, as one run of rows."""
    index = np.flatnonzero(rows)
    first = np.zeros(len(index), dtype=bool)
    first[:1] = True
    return index, first


def _bounded(trace: Trace, moments: Times, first: NDArray[np.bool_]) -> Times:
    count = len(moments)
    return in_order(moments, first, np.zeros(count), np.full(count, trace.end_s))


def _by_stage(trace: Trace, rows: NDArray[np.int64], spent: Times) -> Seconds:
    totals = np.bincount(trace.stage[rows], spent, minlength=len(STAGES))
    return {str(stage): float(totals[i]) for i, stage in enumerate(STAGES) if totals[i] > 0.0}


def _add(seconds: Seconds, cause: str, value: float) -> None:
    seconds[cause] = float(value)
