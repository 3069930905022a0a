"""What an explanation needs to know of one run, as arrays: from a record, or from its two files.

Rows are stage executions in the order in which lanes wanted them. *Entries* are (request, row)
pairs, in the order of the requests and then of the rows. A *take* is what a lane took from a
queue in one go: it holds those requests until all of them have been worked on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pdvsim.architectures import Config
from pdvsim.cell import Cell
from pdvsim.core import Stage
from pdvsim.errors import ProfileError
from pdvsim.records import STAGES, RunRecord
from pdvsim.spans import Spans
from pdvsim.work import uniform_work

if TYPE_CHECKING:
    from pdvsim.profile import Profile

Times = NDArray[np.float64]
Codes = NDArray[np.int64]

ROW_TIMES = ("queued_s", "launched_s", "launch_end_s", "started_s", "ended_s", "settled_s")
ROW_COUNTS = ("batch", "query_tokens", "context_tokens")
ROW_ALONE = ("launch_alone_s", "device_alone_s")
REQUEST_NUMBERS = ("arrival_s", "completed_s", "admitted_s", "drafted_tokens", "accepted_tokens")


@dataclass(frozen=True, eq=False)
class Trace:
    """One run.

    Attributes:
        world: "simulated" or "real".
        warmup: completions to leave out at the start.
        lanes: names; `lane` holds indexes into them.
        shut: when something waited for its prefill and the architecture admitted nothing.
        full: the same, as far as it was for want of memory alone.
        stage, lane, stream, take: codes of each row; takes are numbered from 0 without gaps.
        rows: the columns `ROW_TIMES`, `ROW_COUNTS` and `ROW_ALONE` of each row, by name.
        requests: ids and the columns `REQUEST_NUMBERS` of each request, by name; NaN where a
            time has not come.
        entry_request, entry_row: indexes of each entry's request and row.
        cell: what was specified, where a record says so.
    """

    config: Config
    world: str
    warmup: int
    end_s: float
    lanes: list[str]
    shut: Spans
    full: Spans
    stage: Codes
    lane: Codes
    stream: Codes
    take: Codes
    rows: dict[str, Times]
    requests: dict[str, Times]
    entry_request: Codes
    entry_row: Codes
    cell: Cell | None = None

    def row(self, name: str) -> Times:
        """A column of the rows."""
        return self.rows[name]

    @cached_property
    def first_entry(self) -> NDArray[np.bool_]:
        """Whether an entry is its request's first."""
        request = self.entry_request
        return np.concatenate((np.ones(min(1, len(request)), bool), request[1:] != request[:-1]))

    @cached_property
    def take_start(self) -> Times:
        """When each take's first stage was wanted."""
        starts = np.full(int(self.take.max(initial=-1)) + 1, np.inf)
        np.minimum.at(starts, self.take, self.row("queued_s"))
        return starts

    @cached_property
    def take_end(self) -> Times:
        """When the lane knew of the end of each take's last stage."""
        ends = np.zeros(int(self.take.max(initial=-1)) + 1)
        np.maximum.at(ends, self.take, self.row("settled_s"))
        return ends

    @cached_property
    def take_lane(self) -> Codes:
        """The lane of each take."""
        lanes = np.zeros(len(self.take_start), dtype=np.int64)
        lanes[self.take] = self.lane
        return lanes


def of_record(record: RunRecord) -> Trace:
    """The trace of a run."""
    requests = {
        name: np.array([getattr(r, name) for r in record.requests], dtype=np.float64)
        for name in ("id", *REQUEST_NUMBERS)
    }
    queued, launched = record.column("queued_s"), record.column("launched_s")
    order = np.lexsort((launched, queued))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    codes = {
        name: record.column(name).astype(np.int64)[order]
        for name in ("stage", "lane", "stream", "take")
    }
    # Takes that were cut by the end of the run left no rows.
    codes["take"] = np.unique(codes["take"], return_inverse=True)[1]
    rows = {name: record.column(name)[order] for name in (*ROW_TIMES, *ROW_COUNTS, *ROW_ALONE)}
    by_id = np.argsort(requests["id"], kind="stable")
    entry_request = by_id[np.searchsorted(requests["id"][by_id], record.member_ids)]
    entry_row = place[np.repeat(np.arange(len(order)), record.column("batch").astype(np.int64))]
    entries = np.lexsort((entry_row, entry_request))
    return Trace(
        record.config,
        record.world,
        record.workload.warmup,
        record.end_s,
        record.lanes,
        shut=Spans(*record.shut_s.T),
        full=Spans(*record.full_s.T),
        stage=codes["stage"],
        lane=codes["lane"],
        stream=codes["stream"],
        take=codes["take"],
        rows=rows,
        requests=requests,
        entry_request=entry_request[entries],
        entry_row=entry_row[entries],
    )


def of_files(stem: Path, profile: Profile | None = None) -> Trace:
    """The trace of a run that was written as `<stem>_requests.parquet` and `_stages.parquet`.

    Args:
        profile: what stages take alone; None takes what the run itself says (of a real run the
            thread's CPU time for a launch, and no slow-down on the device).

    Raises:
        InputError: the files are not those of a run that can be.
        ProfileError: the profile knows nothing of a stage that ran.
    """
    from pdvsim.record_files import cell_of, read

    record, about = read(stem)
    trace = replace(of_record(record), cell=cell_of(about, record.config))
    return trace if profile is None else priced(trace, profile)


def priced(trace: Trace, profile: Profile) -> Trace:
    """The trace with what stages take alone taken from a calibration. Mixed passes, whose parts the
    rows don't tell, keep what the run says.

    Raises:
        ProfileError: the profile knows nothing of a stage that ran.
    """
    keys = [trace.stage, *(trace.row(name).astype(np.int64) for name in ROW_COUNTS)]
    fits = profile.file.stages
    mixed = trace.stage == STAGES.index(Stage.MIXED)
    ran = {str(STAGES[code]) for code in trace.stage[~mixed].tolist()}
    missing = ran - {str(stage) for stage in fits}
    if missing:
        raise ProfileError(f"profile {profile.name} has no costs for {', '.join(sorted(missing))}")
    points, which = np.unique(np.column_stack(keys)[~mixed], axis=0, return_inverse=True)
    executor = trace.config.executor
    costs = np.array(
        [
            profile.file.seconds(STAGES[stage], uniform_work(executor, STAGES[stage], *counts))
            for stage, *counts in points.tolist()
        ]
    )
    alone = np.column_stack([trace.row(name) for name in ROW_ALONE])
    alone[~mixed] = costs.reshape(-1, 2)[which.ravel()]
    return replace(trace, rows={**trace.rows, **dict(zip(ROW_ALONE, alone.T, strict=True))})
