"""Where a request's time, and a thread's, went. Sums are exact: causes are the differences
between moments in order, the first and last of which are the ends of the time to explain.

At any moment a request is in exactly one of these states:

- **admission hold**: it waits for its prefill while the architecture admits nobody by its own rule
  (`Architecture.admits`), whatever the lanes do.
- **KV cache full**: the same, for want of memory alone.
- **queueing**: it waits in a queue, admission open, while the lane that will take it works for
  others; or its launched stage waits in its stream behind other stages.
- **wake-up and polling**: it waits in a queue, admission open, while the lane that will take it
  does not work; or its stage has ended on the device and the thread does not know yet.
- **batch mates**: a lane has taken it and works on others of the same turn, before or after.
- **lock wait**: its lane wants its stage and waits for the model's lock.
- **launch**: the host launches its stage, as long as that takes alone, or does the lane
  program's own work between two of its stages. In a synchronous executor, whose device waits for
  the host, the device works meanwhile; in others a launch counts until the device begins.
- **GIL wait**: what launching took beyond that, at most the time in which another thread was
  launching too.
- **device**: its stage is launched and runs, as long as that takes alone.
- **device slow-down**: what it took beyond that, at most the time in which another stream had
  work too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pdvsim.core import Stage
from pdvsim.explain.run_arrays import Times, Trace
from pdvsim.quantities import CAUSES
from pdvsim.records import STAGES
from pdvsim.spans import Spans

# What a row costs whoever waits for it, in the order of its moments.
OWN = ("lock wait", "launch", "queueing", "device", "wake-up and polling")
DRAFTING = (STAGES.index(Stage.DRAFT), STAGES.index(Stage.VERIFY))
MIXED = STAGES.index(Stage.MIXED)
_LEAST_ROWS = 8  # to tell this run's host speed from
_UNDISTURBED = 0.01  # share of a launch in which another thread was launching too


@dataclass(frozen=True, eq=False)
class Requests:
    """Every completed request's latency by cause.

    Attributes:
        index: of the requests in the trace, in order of completion.
        e2e_s: shape (requests,).
        seconds: shape (requests, len(CAUSES)); each row sums to `e2e_s`.
        wasted_s: memo: part of launch, GIL wait and device that went into drafting and verifying
            rejected tokens: the request's share of rejected drafts times its draft and verify
            stages, and times what rounds had of its mixed passes, by tokens.
        turn_end_s: memo: part of batch mates after the request's last own stage.
    """

    index: NDArray[np.int64]
    e2e_s: Times
    seconds: Times
    wasted_s: Times
    turn_end_s: Times


def in_order(moments: Times, first: NDArray[np.bool_], begin: Times, end: Times) -> Times:
    """Make `moments` (rows, k) never decrease along each run of rows that starts at `first`,
    inside [begin, end] of its rows. The last moment before each row comes along as column 0."""
    clipped = np.clip(moments, begin[:, None], end[:, None])
    starts = np.flatnonzero(first)
    ordered = np.empty_like(clipped)
    stops = np.append(starts, len(first))[1:]
    for start, stop in zip(starts, stops, strict=True):
        block = np.maximum.accumulate(clipped[start:stop].ravel())
        ordered[start:stop] = block.reshape(stop - start, -1)
    before = np.empty(len(first))
    before[1:] = ordered[:-1, -1]
    before[first] = begin[first]
    return np.column_stack((before, ordered))


def row_moments(trace: Trace, rows: NDArray[np.int64], first: NDArray[np.bool_]) -> Times:
    """The six moments of each row, as its successor in the same run of rows sees them: chained
    stages overlap, and a stage then lasts until it ended on the device, not until it was known.
    """
    queued, launched, launch_end, started, ended, settled = (
        trace.row(name)[rows]
        for name in ("queued_s", "launched_s", "launch_end_s", "started_s", "ended_s", "settled_s")
    )
    following = np.full(len(rows), np.inf)
    following[:-1] = np.where(first[1:], np.inf, queued[1:])
    until = np.minimum(settled, np.maximum(np.maximum(ended, launch_end), following))
    if not trace.config.executor.synchronous:
        launch_end = np.minimum(launch_end, started)
    return np.column_stack((queued, launched, launch_end, started, ended, until))


def extra_shares(trace: Trace) -> tuple[Times, Times]:
    """Share of each row's launching that waited for the GIL, and of its device time after that
    which was slow-down."""
    launched, launch_end = trace.row("launched_s"), trace.row("launch_end_s")
    launching = launch_end - launched
    overlap = _others(trace.lane, launched, launch_end, launched, launch_end)
    alone = trace.row("launch_alone_s")
    if trace.world == "real":
        alone = alone * _host_speed(launching, alone, overlap)
    gil = np.clip(launching - alone, 0.0, overlap)

    busy, ended, left = (trace.row(n) for n in ("started_s", "ended_s", "device_alone_s"))
    started = busy
    if trace.config.executor.synchronous:  # its kernels ran while later ones were launched
        started = np.maximum(busy, launch_end)
        left = np.maximum(left - launching, 0.0)
    running = np.maximum(ended - started, 0.0)
    slow = np.clip(running - left, 0.0, _others(trace.stream, busy, ended, started, ended))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(gil / launching), np.nan_to_num(slow / running)


def _host_speed(launching: Times, alone: Times, overlap: Times) -> float:
    """How long this run's undisturbed launches took, relative to `alone`: hosts differ from run
    to run, and that is no waiting for the GIL."""
    calm = (overlap < _UNDISTURBED * launching) & (alone > 0.0)
    return float(np.median(launching[calm] / alone[calm])) if calm.sum() >= _LEAST_ROWS else 1.0


def _others(
    owner: NDArray[np.int64], busy_from: Times, busy_to: Times, start: Times, end: Times
) -> Times:
    """Seconds of each [start, end] in which another owner was busy."""
    seconds = np.zeros(len(owner))
    owners = np.unique(owner)
    for one in owners if len(owners) > 1 else ():
        mine = owner == one
        seconds[mine] = Spans(busy_from[~mine], busy_to[~mine]).within(start[mine], end[mine])
    return seconds


def own_seconds(trace: Trace, rows: NDArray[np.int64], spent: Times) -> dict[str, Times]:
    """Split what `rows` cost, shape (rows, len(OWN)), into causes."""
    gil, slow = extra_shares(trace)
    parts = dict(zip(OWN, spent.T, strict=True))
    parts["GIL wait"] = parts["launch"] * gil[rows]
    parts["launch"] = parts["launch"] - parts["GIL wait"]
    parts["device slow-down"] = parts["device"] * slow[rows]
    parts["device"] = parts["device"] - parts["device slow-down"]
    return parts


@dataclass(frozen=True, eq=False)
class Waits:
    """Entries' waits before their rows.

    Attributes:
        start, end: of the wait in a queue, seconds; the rest of the gap is `mates` or `own`.
        mates, own: seconds held by a lane for others, and for itself.
        lane: that took the request in the end.
        prefill: whether the queue was that for prefill.
    """

    start: Times
    end: Times
    mates: Times
    own: Times
    lane: NDArray[np.int64]
    prefill: NDArray[np.bool_]


def entry_moments(trace: Trace) -> Times:
    """For each entry: the end of the one before (or the arrival), then its own six moments."""
    finish = np.where(
        np.isnan(trace.requests["completed_s"]), trace.end_s, trace.requests["completed_s"]
    )
    arrival = trace.requests["arrival_s"]
    of = trace.entry_request
    moments = row_moments(trace, trace.entry_row, trace.first_entry)
    return in_order(moments, trace.first_entry, arrival[of], finish[of])


def waits(trace: Trace, moments: Times) -> Waits:
    """What each entry waited for between the one before and its own row."""
    rows, first = trace.entry_row, trace.first_entry
    begin, end = moments[:, 0], moments[:, 1]
    take = trace.take[rows]
    before = np.concatenate((take[:1], take[:-1]))
    same = ~first & (take == before)
    start = np.where(first, begin, np.clip(trace.take_end[before], begin, end))
    start = np.where(same, end, start)
    taken = np.where(same, end, np.clip(trace.take_start[take], start, end))
    own = np.where(same, end - begin, 0.0)
    return Waits(
        start,
        taken,
        (end - begin) - (taken - start) - own,
        own,
        trace.lane[rows],
        first,
    )


def queue_seconds(trace: Trace, wait: Waits) -> dict[str, Times]:
    """Split each wait in a queue."""
    total = wait.end - wait.start
    shut = trace.shut
    held = np.where(wait.prefill, shut.within(wait.start, wait.end), 0.0)
    busy = np.zeros(len(total))
    for lane in range(len(trace.lanes)):
        of_lane = trace.take_lane == lane
        work = Spans(trace.take_start[of_lane], trace.take_end[of_lane])
        for kind, spans in ((True, work - shut), (False, work)):
            mine = (wait.lane == lane) & (wait.prefill == kind)
            busy[mine] = spans.within(wait.start[mine], wait.end[mine])
    busy = np.minimum(busy, total - held)
    full = np.where(wait.prefill, trace.full.within(wait.start, wait.end), 0.0)
    return {
        "admission hold": held - full,
        "KV cache full": full,
        "queueing": busy,
        "wake-up and polling": total - held - busy,
    }


def explain_requests(trace: Trace) -> Requests:
    """Split the latency of every completed request."""
    moments = entry_moments(trace)
    wait = waits(trace, moments)
    parts = own_seconds(trace, trace.entry_row, np.diff(moments[:, 1:], axis=1))
    rejected = _rejected(trace)
    effort = sum(parts[name] for name in ("launch", "GIL wait", "device", "device slow-down"))
    wasted = effort * _drafting_share(trace) * rejected[trace.entry_request]
    for name, seconds in queue_seconds(trace, wait).items():
        parts[name] = parts.get(name, 0.0) + seconds
    parts["launch"] = parts["launch"] + wait.own
    parts["batch mates"] = wait.mates

    count = len(trace.requests["id"])
    sums = [np.bincount(trace.entry_request, parts[name], minlength=count) for name in CAUSES]
    seconds = np.column_stack(sums).astype(np.float64)
    turn_end, rest = last_leg(trace, moments)
    seconds[:, CAUSES.index("batch mates")] += turn_end
    seconds[:, CAUSES.index("launch")] += rest
    completed = trace.requests["completed_s"]
    index = np.argsort(completed, kind="stable")[: int((~np.isnan(completed)).sum())]
    return Requests(
        index,
        (completed - trace.requests["arrival_s"])[index],
        seconds[index],
        np.bincount(trace.entry_request, wasted, minlength=count).astype(np.float64)[index],
        turn_end[index],
    )


def last_leg(trace: Trace, moments: Times) -> tuple[Times, Times]:
    """From the end of each request's last stage to its completion: seconds until the turn's end,
    and after that."""
    count = len(trace.requests["id"])
    last = np.append(trace.first_entry, True)[1:]
    of, known = trace.entry_request[last], moments[last, -1]
    completed = trace.requests["completed_s"][of]
    done = np.where(np.isnan(completed), known, completed)
    turn_end, rest = np.zeros(count), np.zeros(count)
    end = np.clip(trace.take_end[trace.take[trace.entry_row[last]]], known, done)
    turn_end[of], rest[of] = end - known, done - end
    return turn_end, rest


def _drafting_share(trace: Trace) -> Times:
    """How much of each entry's row went into the drafts of its round: all of a draft or verify
    stage; of a mixed pass in which the request has a round, the share of its tokens that are
    rounds'; else nothing."""
    stage = trace.stage[trace.entry_row]
    share = np.isin(stage, DRAFTING).astype(np.float64)
    # A round in a mixed pass has just been drafted; a chunk has not.
    before = np.concatenate(([-1], stage[:-1]))
    round_ = (stage == MIXED) & (before == DRAFTING[0]) & ~trace.first_entry
    rows = trace.entry_row[round_]
    rounds = np.bincount(rows, minlength=len(trace.stage))[rows]
    tokens = rounds * (1 + trace.config.draft_tokens) / trace.row("query_tokens")[rows]
    share[round_] = np.minimum(tokens, 1.0)
    return share


def _rejected(trace: Trace) -> Times:
    """Share of each request's drafts that were rejected; 0 without drafts."""
    drafted, accepted = trace.requests["drafted_tokens"], trace.requests["accepted_tokens"]
    return np.where(drafted > 0, 1.0 - accepted / np.maximum(drafted, 1.0), 0.0)
