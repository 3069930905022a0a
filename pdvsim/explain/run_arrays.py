"""What an explanation needs to know of one run, as arrays: from a record, or from its two files.

Rows are stage executions in the order in which lanes wanted them. *Entries* are (request, row)
pairs, in the order of the requests and then of the rows. A *take* is what a lane took from a
queue in one go: it holds those requests until all of them have been worked on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pdvsim.architectures import ARCHITECTURES, Config
from pdvsim.architectures.lane import BATCH_END
from pdvsim.core import EXECUTORS, Stage, Stream
from pdvsim.errors import InputError, ProfileError
from pdvsim.records import RunRecord
from pdvsim.workload import PROTOCOLS

if TYPE_CHECKING:
    from pdvsim.profile import Profile
    from pdvsim.profile_file import StageFit

Times = NDArray[np.float64]
Codes = NDArray[np.int64]

STAGES, STREAMS = list(Stage), list(Stream)
ROW_TIMES = ("queued_s", "launched_s", "launch_end_s", "started_s", "ended_s", "settled_s")
ROW_COUNTS = ("batch", "query_tokens", "context_tokens")
ROW_ALONE = ("launch_alone_s", "device_alone_s")
REQUEST_NUMBERS = ("arrival_s", "completed_s", "admitted_s", "drafted_tokens", "accepted_tokens")
PREFILLS = (STAGES.index(Stage.PREFILL_DRAFT), STAGES.index(Stage.PREFILL_VERIFIER))

# As `pdvsim bench --records` names its files.
_STEM = re.compile(
    rf"(?P<architecture>{'|'.join(ARCHITECTURES)})-(?P<executor>{'|'.join(EXECUTORS)})-"
    rf"(?P<protocol>{'|'.join(PROTOCOLS)})-c(?P<concurrency>\d+)-(?P<index>\d+)"
)


@dataclass(frozen=True, eq=False)
class Trace:
    """One run.

    Attributes:
        world: "simulated" or "real".
        warmup: completions to leave out at the start.
        lanes: names; `lane` holds indexes into them.
        stage, lane, stream: codes of each row.
        rows: the columns `ROW_TIMES`, `ROW_COUNTS` and `ROW_ALONE` of each row, by name.
        requests: ids and the columns `REQUEST_NUMBERS` of each request, by name; NaN where a
            time has not come.
        entry_request, entry_row: indexes of each entry's request and row.
    """

    config: Config
    world: str
    warmup: int
    end_s: float
    lanes: list[str]
    stage: Codes
    lane: Codes
    stream: Codes
    rows: dict[str, Times]
    requests: dict[str, Times]
    entry_request: Codes
    entry_row: Codes

    def row(self, name: str) -> Times:
        """A column of the rows."""
        return self.rows[name]

    @cached_property
    def first_entry(self) -> NDArray[np.bool_]:
        """Whether an entry is its request's first."""
        request = self.entry_request
        return np.concatenate((np.ones(min(1, len(request)), bool), request[1:] != request[:-1]))

    @cached_property
    def entry_prefill(self) -> NDArray[np.bool_]:
        """Whether an entry is a prefill."""
        return np.isin(self.stage[self.entry_row], PREFILLS)

    @cached_property
    def take(self) -> Codes:
        """The take of each row, numbered in order of their starts."""
        return _takes(self)

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


def _takes(trace: Trace) -> Codes:
    """Tells takes apart, lane by lane, by what cannot be in one.

    A take holds prefills or rounds, not both; as many requests as the lane may take; and only
    requests that were in a queue before the take began.
    """
    queued, settled = trace.row("queued_s").tolist(), trace.row("settled_s").tolist()
    groups: list[tuple[int, ...]] = [()] * len(queued)
    ends = np.cumsum(trace.row("batch").astype(np.int64))
    order = np.argsort(trace.entry_row, kind="stable")
    members = trace.entry_request[order].tolist()
    for i, (start, end) in enumerate(zip(ends - trace.row("batch"), ends, strict=True)):
        groups[i] = tuple(members[int(start) : int(end)])
    limits = _limits(trace.config)
    whole_life = trace.config.architecture == "baseline"
    put_back: list[float] = trace.requests["arrival_s"].tolist()
    current: dict[int, tuple[int, float, int, tuple[int, ...], int]] = {}
    take = np.empty(len(queued), dtype=np.int64)
    taken = 0
    for i, (stage, lane) in enumerate(zip(trace.stage.tolist(), trace.lane.tolist(), strict=True)):
        group = groups[i]
        number, began_s, count, last, before = current.get(lane, (-1, 0.0, 0, (), -1))
        if group == last and (stage > before or whole_life):
            current[lane] = (number, began_s, count, last, stage)
        elif (
            number >= 0
            and (stage in PREFILLS) == (before in PREFILLS)
            and group != last
            and count < limits.get(stage, 1)
            and put_back[group[0]] <= began_s
        ):
            current[lane] = (number, began_s, count + 1, group, stage)
        else:
            current[lane] = (taken, queued[i], 1, group, stage)
            taken += 1
        take[i] = current[lane][0]
        for member in group:
            put_back[member] = settled[i]
    return take


def _limits(config: Config) -> dict[int, int]:
    """Launches in one take, by the stage that its requests begin with; 1 where not named.

    A batched executor serves a take in one launch. A lane that holds no batch together takes
    one request at a time (`Lanes.turn_limit`).
    """
    if config.executor.batched:
        return {}
    limits = dict.fromkeys(PREFILLS, config.parameters.get("prefill_batch", 1))
    if config.architecture in ("pdv", "plain") and BATCH_END not in config.switched_off:
        limits.update({STAGES.index(s): config.batch_cap for s in (Stage.DRAFT, Stage.DECODE)})
    if config.architecture == "three_lane" and BATCH_END not in config.switched_off:
        limits[STAGES.index(Stage.VERIFY)] = config.parameters["verify_batch_backlogged"]
    return limits


def of_record(record: RunRecord) -> Trace:
    """The trace of a run that has just ended."""
    requests = {
        name: np.array([getattr(r, name) for r in record.requests], dtype=np.float64)
        for name in ("id", *REQUEST_NUMBERS)
    }
    batch = record.column("batch").astype(np.int64)
    codes = [record.column(name).astype(np.int64) for name in ("stage", "lane", "stream")]
    rows = {name: record.column(name) for name in (*ROW_TIMES, *ROW_COUNTS, *ROW_ALONE)}
    return _trace(
        record.about["config"],
        str(record.about["world"]),
        record.about["workload"].warmup,
        record.end_s,
        record.lanes,
        codes,
        rows,
        requests,
        np.repeat(np.arange(len(batch)), batch),
        record.member_ids,
    )


def of_files(stem: Path, profile: Profile | None = None) -> Trace:
    """The trace of a real run, from `<stem>_requests.parquet` and `<stem>_stages.parquet`.

    The run's configuration is read off the name, as `pdvsim bench --records` gives it. It ends
    with the last thing seen.

    Args:
        profile: what stages take alone; None takes what the run itself says (the thread's CPU
            time for a launch, and no slow-down on the device).

    Raises:
        InputError: a file is missing or not such a table, or the name says nothing.
        ProfileError: the profile knows nothing of a stage that ran.
    """
    import polars as pl

    match = _said(stem)
    config = config_of(stem)
    try:
        stages = pl.read_parquet(f"{stem}_stages.parquet")
        about = pl.read_parquet(f"{stem}_requests.parquet")
        lanes = sorted(set(stages["lane"].to_list()))
        codes = [
            np.array([known.index(value) for value in stages[name].to_list()], dtype=np.int64)
            for name, known in (("stage", STAGES), ("lane", lanes), ("stream", STREAMS))
        ]
        rows = {name: _floats(stages[name]) for name in (*ROW_TIMES, *ROW_COUNTS, *ROW_ALONE)}
        requests = {name: _floats(about[name]) for name in ("id", *REQUEST_NUMBERS)}
        members = stages["requests"]
        entry_row = np.repeat(np.arange(len(members)), members.list.len().to_numpy())
        member_ids = members.explode().to_numpy()
    except FileNotFoundError as error:
        raise InputError(f"{stem}: no such record ({error.filename or error})") from None
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise InputError(f"{stem}: not the tables of a run ({error})") from None
    count = len(requests["id"])
    trace = _trace(
        config,
        "real",
        config.batch_cap if match["protocol"] == "closed-loop" else _warmup(match, count),
        float(max(rows["settled_s"].max(initial=0.0), np.nanmax(requests["completed_s"]))),
        lanes,
        codes,
        rows,
        requests,
        entry_row,
        member_ids,
    )
    return trace if profile is None else _calibrated(trace, profile)


def config_of(stem: Path) -> Config:
    """The configuration that the name of a record says.

    Raises:
        InputError: it says none.
    """
    match = _said(stem)
    return Config(
        match["architecture"],
        executor=EXECUTORS[match["executor"]],
        batch_cap=int(match["concurrency"]),
    )


def _said(stem: Path) -> re.Match[str]:
    match = _STEM.fullmatch(stem.name)
    if match is None:
        raise InputError(
            f"{stem}: the name does not say what ran; expected ARCHITECTURE-EXECUTOR-PROTOCOL-cC-I"
        )
    return match


def _warmup(match: re.Match[str], count: int) -> int:
    """As `pdvsim.workload` cuts it for an open loop."""
    return 0 if match["protocol"] == "pdverify" else count // 10


def _floats(column: Any) -> Times:
    values: Times = column.cast(float).fill_null(float("nan")).to_numpy().copy()
    return values


def _trace(
    config: Config,
    world: str,
    warmup: int,
    end_s: float,
    lanes: Sequence[str],
    codes: Sequence[Codes],
    rows: dict[str, Times],
    requests: dict[str, Times],
    member_row: Codes,
    member_ids: NDArray[np.int32],
) -> Trace:
    """Put rows and entries in their orders."""
    order = np.lexsort((rows["launched_s"], rows["queued_s"]))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    by_id = np.argsort(requests["id"], kind="stable")
    entry_request = by_id[np.searchsorted(requests["id"][by_id], member_ids)]
    entry_row = place[member_row]
    entries = np.lexsort((entry_row, entry_request))
    return Trace(
        config,
        world,
        warmup,
        end_s,
        list(lanes),
        codes[0][order],
        codes[1][order],
        codes[2][order],
        {name: values[order] for name, values in rows.items()},
        requests,
        entry_request[entries],
        entry_row[entries],
    )


def _calibrated(trace: Trace, profile: Profile) -> Trace:
    """The trace with what stages take alone taken from a calibration."""
    keys = [trace.stage, *(trace.row(name).astype(np.int64) for name in ROW_COUNTS)]
    points, which = np.unique(np.column_stack(keys), axis=0, return_inverse=True)
    fits = profile.file.stages
    missing = {str(STAGES[code]) for code in trace.stage.tolist()} - {str(stage) for stage in fits}
    if missing:
        raise ProfileError(f"profile {profile.name} has no costs for {', '.join(sorted(missing))}")
    costs = np.array([_cost(fits[STAGES[stage]], *work) for stage, *work in points.tolist()])
    host, device = costs.reshape(-1, 2)[which.ravel()].T
    return replace(trace, rows={**trace.rows, "launch_alone_s": host, "device_alone_s": device})


def _cost(fit: StageFit, batch: int, query_tokens: int, context_tokens: int) -> tuple[float, float]:
    """(host, device) seconds alone; a captured graph runs at the next batch it was captured for."""
    host_s = fit.host.seconds(batch, query_tokens, context_tokens)
    padded = next((size for size in fit.buckets if size >= batch), batch)
    query_tokens = query_tokens * padded // batch
    return host_s, fit.device.seconds(padded, query_tokens, context_tokens)
