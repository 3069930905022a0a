"""What must hold in every run, simulated or real. Each check raises with the numbers.

Each compares two independent accounts of the same thing: the requests' own counters and times
against the rows of the stages, or a sum over requests against an integral over time.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pdvsim.core import PREFILLS, Stage
from pdvsim.errors import InvariantError
from pdvsim.records import STAGE_CODE, STAGE_COLUMNS, STREAMS, RunRecord
from pdvsim.spans import Spans

# Host and device clocks of a real run are aligned to about 10 us, and CUDA's elapsed times are
# single-precision milliseconds; virtual time is exact.
TOLERANCE = 1e-9
REAL_TOLERANCE = 1e-3


def check(record: RunRecord) -> None:
    """Every check below.

    Raises:
        InvariantError: at the first that fails.
    """
    possible_numbers(record)
    each_request_once(record)
    times_in_order(record, REAL_TOLERANCE if real(record) else TOLERANCE)
    tokens_conserved(record)
    if not real(record):
        # Two real threads may feed one stream kernel by kernel, so that their stages interleave.
        streams_in_order(record)
    device_within_run(record)
    one_lane_per_take(record)
    admission_in_order(record)
    ends_with_a_reason(record)
    littles_law(record)


def real(record: RunRecord) -> bool:
    return record.world == "real"


def possible_numbers(record: RunRecord) -> None:
    """Counts and durations are not negative, nor are times; none is infinite or missing."""
    least = -REAL_TOLERANCE if real(record) else 0.0
    for name in STAGE_COLUMNS:
        values = record.column(name)
        if len(values) and values.min() >= least and values.max() < math.inf:
            continue
        wrong = np.flatnonzero(~(np.isfinite(values) & (values >= least)))
        if len(wrong):
            raise InvariantError(f"stage execution {wrong[0]} has {name} = {values[wrong[0]]:.9g}")
    for request in record.requests:
        moments = (
            *(request.arrival_s, request.admitted_s),
            *(request.first_token_s, request.completed_s),
        )
        if not all(moment is None or 0.0 <= moment < math.inf for moment in moments):
            raise InvariantError(
                f"times: request {request.id} has arrival, admission, first token, completion = "
                f"{moments}"
            )
    for name, seconds in {"the run's end": record.end_s, **record.busy_s}.items():
        if not 0.0 <= seconds < math.inf:
            raise InvariantError(f"{name} is {seconds:.9g} s")


def one_lane_per_take(record: RunRecord) -> None:
    """What was taken from a queue in one go was taken by one lane."""
    take, lane = record.column("take"), record.column("lane")
    order = np.argsort(take, kind="stable")  # quick, since rows nearly stand in this order
    take, lane = take[order], lane[order]
    twice = np.flatnonzero((take[1:] == take[:-1]) & (lane[1:] != lane[:-1]))
    if len(twice):
        raise InvariantError(f"take {take[twice[0]]:.0f} is of two lanes")


def admission_in_order(record: RunRecord) -> None:
    """Admission shuts and opens in turn, during the run; for want of memory only while shut."""
    for spans in (record.shut_s, record.full_s):
        turns = np.concatenate(([0.0], spans.ravel(), [record.end_s]))
        if not np.all(turns[1:] >= turns[:-1]):
            raise InvariantError("admission does not shut and open in turn during the run")
    if not len(record.full_s):
        return
    full, shut = Spans(*record.full_s.T), Spans(*record.shut_s.T)
    if (full - shut).length_s > 0.0:
        raise InvariantError("memory keeps requests out while admission is open")


def ends_with_a_reason(record: RunRecord) -> None:
    """A run ends when a request leaves, or at its deadline."""
    done = [request.left_s for request in record.requests if request.left_s is not None]
    reasons = [max(done, default=0.0), record.workload.deadline_s]
    gaps = [abs(record.end_s - reason) for reason in reasons if reason is not None]
    if min(gaps) > (REAL_TOLERANCE if real(record) else TOLERANCE):
        raise InvariantError(
            f"the run ends at {record.end_s:.9g} s, where no request leaves and no deadline is"
        )


def littles_law(record: RunRecord) -> None:
    """Exact on a sample path: the time average of the number in the system, integrated event by
    event, is arrival rate times mean time in the system, summed request by request."""
    end = record.end_s
    if not record.requests or end <= 0.0:
        return
    arrivals = np.array([request.arrival_s for request in record.requests])
    departures = np.array([r.left_s for r in record.requests if r.left_s is not None])
    when = np.concatenate((arrivals, departures))
    steps = np.concatenate((np.ones(len(arrivals)), -np.ones(len(departures))))
    order = np.lexsort((-steps, when))  # an arrival precedes a departure at the same instant
    when, inside = when[order], np.cumsum(steps[order])
    if inside.min() < 0:
        raise InvariantError(
            f"Little's law: {inside.min():.0f} requests are in the system at "
            f"{when[int(inside.argmin())]:.6f} s"
        )
    average = float((inside * np.diff(when, append=end)).sum()) / end
    sojourn = math.fsum(
        (end if r.left_s is None else r.left_s) - r.arrival_s for r in record.requests
    )
    rate, mean = len(arrivals) / end, sojourn / len(arrivals)
    if not math.isclose(average, rate * mean, rel_tol=1e-6, abs_tol=TOLERANCE):
        raise InvariantError(
            f"Little's law: {average:.9g} requests on average in the system, but "
            f"{rate:.9g} /s x {mean:.9g} s = {rate * mean:.9g}"
        )
    limit = record.workload.in_flight
    if limit is not None and inside.max() > limit + _largest_tie(departures):
        raise InvariantError(
            f"a closed loop of {limit} requests had {inside.max():.0f} in the system"
        )


def _largest_tie(when: NDArray[np.float64]) -> int:
    """Most events at one instant."""
    return int(np.unique(when, return_counts=True)[1].max()) if len(when) else 0


def tokens_conserved(record: RunRecord) -> None:
    """Tokens of the stage rows = tokens of their members = tokens that the requests count, and a
    completed request has what it asked for."""
    batch = record.column("batch").astype(np.int64)
    if batch.sum() != len(record.member_ids):
        raise InvariantError(
            f"tokens: the stages list {batch.sum()} members, but {len(record.member_ids)} are kept"
        )
    row = np.repeat(np.arange(len(batch)), batch)
    per_row = np.bincount(row, record.member_tokens, minlength=len(batch))
    wrong = np.flatnonzero(per_row != record.column("tokens"))
    if len(wrong):
        raise InvariantError(
            f"tokens: stage execution {wrong[0]} yielded {record.column('tokens')[wrong[0]]:.0f}, "
            f"its members {per_row[wrong[0]]:.0f}"
        )
    size = 1 + max((request.id for request in record.requests), default=-1)
    per_request = np.bincount(record.member_ids, record.member_tokens, minlength=size)
    for request in record.requests:
        if request.produced_tokens != per_request[request.id]:
            raise InvariantError(
                f"tokens: request {request.id} counts {request.produced_tokens}, the stages gave "
                f"it {per_request[request.id]:.0f}"
            )
        if request.completed_s is not None and not request.finished:
            raise InvariantError(
                f"tokens: request {request.id} completed with {request.produced_tokens} of "
                f"{request.output_tokens}"
            )
        if request.accepted_tokens > request.drafted_tokens:
            raise InvariantError(
                f"tokens: request {request.id} had {request.accepted_tokens} of "
                f"{request.drafted_tokens} drafts accepted"
            )


def each_request_once(record: RunRecord) -> None:
    """Ids differ, nobody is served who has not arrived, and each admitted request is prefilled
    exactly once by each model that takes part, or in chunks with mixed passes."""
    counts = Counter(request.id for request in record.requests)
    if len(counts) < len(record.requests):
        twice = next(i for i, count in counts.items() if count > 1)
        raise InvariantError(f"request {twice} is listed {counts[twice]} times")
    known = np.fromiter(counts, dtype=np.int64, count=len(counts))
    strangers = np.setdiff1d(record.member_ids, known)
    if len(strangers):
        raise InvariantError(f"request {strangers[0]} was served but never arrived")
    member_stage = np.repeat(
        record.column("stage").astype(np.int64), record.column("batch").astype(np.int64)
    )
    mixed = record.member_ids[member_stage == STAGE_CODE[Stage.MIXED]]
    for stage in PREFILLS:
        ids, times = np.unique(
            record.member_ids[member_stage == STAGE_CODE[stage]], return_counts=True
        )
        ids, times = ids[~np.isin(ids, mixed)], times[~np.isin(ids, mixed)]
        if len(times) and times.max() > 1:
            raise InvariantError(
                f"request {ids[int(times.argmax())]} passed {stage} {times.max()} times"
            )
    prefilled = set(record.member_ids[member_stage == STAGE_CODE[Stage.PREFILL_VERIFIER]])
    prefilled.update(mixed)
    for request in record.requests:
        if request.completed_s is not None and request.id not in prefilled:
            raise InvariantError(f"request {request.id} completed without a prefill")


def times_in_order(record: RunRecord, tolerance_s: float = TOLERANCE) -> None:
    """arrival <= admitted <= first token <= completed <= end of the run, and for a stage
    queued <= launched <= launch end <= settled and started <= ended <= settled; stages are listed
    as lanes knew of their ends, none after the run's."""
    for request in record.requests:
        moments = (
            request.arrival_s,
            request.admitted_s,
            request.first_token_s,
            request.left_s,
            record.end_s,
        )
        known = [moment for moment in moments if moment is not None]
        if any(later < earlier - tolerance_s for earlier, later in pairwise(known)):
            raise InvariantError(
                f"times: request {request.id} has arrival, admission, first token, completion, "
                f"end of run = {moments}"
            )
    settled = np.append(record.column("settled_s"), record.end_s)
    late = np.flatnonzero(settled[1:] < settled[:-1] - tolerance_s)
    if len(late):
        raise InvariantError(
            f"times: stage execution {late[0]} has settled_s = {settled[late[0]]:.9g}, after the "
            f"next or the run, which ends at {record.end_s:.9g}"
        )
    chains = (
        ("queued_s", "launched_s", "launch_end_s", "settled_s"),
        ("started_s", "ended_s", "settled_s"),
    )
    for chain in chains:
        for earlier, later in pairwise(chain):
            late = np.flatnonzero(record.column(earlier) > record.column(later) + tolerance_s)
            if len(late):
                row = late[0]
                raise InvariantError(
                    f"times: stage execution {row} has {earlier} = "
                    f"{record.column(earlier)[row]:.9g} after {later} = "
                    f"{record.column(later)[row]:.9g}"
                )


def streams_in_order(record: RunRecord) -> None:
    """A stream runs one stage at a time."""
    start, ended = record.column("started_s"), record.column("ended_s")
    for code, stream in enumerate(STREAMS):
        on_it = record.column("stream") == code
        order = np.lexsort((ended[on_it], start[on_it]))
        begin, end = start[on_it][order], ended[on_it][order]
        overlap = np.flatnonzero(begin[1:] < end[:-1] - TOLERANCE)
        if len(overlap):
            i = overlap[0]
            raise InvariantError(
                f"stream {stream} began a stage at {begin[i + 1]:.9g} s while another ran "
                f"until {end[i]:.9g} s"
            )


def device_within_run(record: RunRecord) -> None:
    """Nothing is busy for longer than the run."""
    for name, seconds in record.busy_s.items():
        if seconds > record.end_s + TOLERANCE:
            raise InvariantError(
                f"{name} was busy for {seconds:.9g} s in a run of {record.end_s:.9g} s"
            )
