"""What a run leaves behind: one row per request, one row per stage execution.

Both worlds fill the same `Recorder`. Rows go into flat arrays of doubles, so that a run of a
million request-rounds stays small. `pdvsim.record_files` writes a record and reads it back.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from struct import Struct
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pdvsim.architectures.config import Config
from pdvsim.core import Request, Stage, Stream
from pdvsim.workload import Workload

STAGE_COLUMNS = (
    "stage",
    "lane",
    "stream",
    "take",  # numbers what lanes took from queues in one go, from 0; a stage serves one of them
    "batch",
    "query_tokens",
    "context_tokens",
    "queued_s",  # the lane wanted the stage (before it waited for the model's lock)
    "launched_s",  # the host began to launch
    "launch_end_s",  # the host had launched
    "started_s",  # the device began
    "ended_s",  # the device finished
    "settled_s",  # the lane knew
    "launch_alone_s",  # what launching takes without another thread
    "device_alone_s",  # what the device takes without another stream
    "tokens",
)
_ROW = Struct(f"{len(STAGE_COLUMNS)}d")
# The codes of stages and streams in the rows are their places in these.
STAGES, STREAMS = tuple(Stage), tuple(Stream)
STAGE_CODE = {stage: float(i) for i, stage in enumerate(STAGES)}
STREAM_CODE = {stream: float(i) for i, stream in enumerate(STREAMS)}


class Execution(Protocol):
    """What either world knows of a stage that has ended; see STAGE_COLUMNS."""

    stage: Stage
    stream: Stream
    take: int
    batch: Sequence[Request]
    query_tokens: int
    context_tokens: int
    queued_s: float
    launched_s: float
    launch_end_s: float
    started_s: float
    ended_s: float
    launch_alone_s: float
    device_alone_s: float


class Recorder:
    """Collects a run's stage rows and shut admission. Not thread-safe: worlds guard it.

    Attributes:
        shut: whether something waits for its prefill and the architecture admits nothing.
        full: whether that is for want of memory alone.
    """

    def __init__(self, lanes: Sequence[str]) -> None:
        self.lanes = list(lanes)
        self.shut = self.full = False
        self._turns: list[float] = []  # when admission shut, opened, shut, ...
        self._full_turns: list[float] = []  # when memory was full, no longer full, ...
        self._rows = bytearray()
        self._member_ids = array("I")  # unsigned numbers pack three times as fast
        self._member_tokens = bytearray()  # a round yields 17 at most
        self._last_batch: Sequence[Request] = ()
        self._last_ids = self._member_ids

    def stage(self, done: Execution, lane: int, settled_s: float, emitted: Sequence[int]) -> None:
        """Append one stage execution that yielded `emitted` to its requests, if anything."""
        batch = done.batch
        start = (
            STAGE_CODE[done.stage],
            lane,
            STREAM_CODE[done.stream],
            done.take,
            len(batch),
            done.query_tokens,
            done.context_tokens,
            done.queued_s,
            done.launched_s,
            done.launch_end_s,
            done.started_s,
            done.ended_s,
        )
        self.row(batch, emitted, start, settled_s, done.launch_alone_s, done.device_alone_s)

    def row(
        self,
        batch: Sequence[Request],
        emitted: Sequence[int],
        start: tuple[float, ...],
        settled_s: float,
        launch_s: float,
        device_s: float,
    ) -> None:
        """Append a row: `start` are its STAGE_COLUMNS up to `ended_s`."""
        if emitted:
            tokens = sum(emitted)
            self._member_tokens += bytes(emitted)
        else:
            tokens = 0
            self._member_tokens += bytes(len(batch))
        self._rows += _ROW.pack(*start, settled_s, launch_s, device_s, tokens)
        if batch is not self._last_batch:  # the stages of a round share one
            self._last_batch = batch
            self._last_ids = array("I", [request.id for request in batch])
        self._member_ids.extend(self._last_ids)

    def admission(self, shut: bool, full: bool, now_s: float) -> None:
        """What `shut` and `full` are from `now_s` on."""
        if shut is not self.shut:
            self.shut = shut
            _turn(self._turns, now_s)
        if full is not self.full:
            self.full = full
            _turn(self._full_turns, now_s)

    def finish(
        self,
        requests: Sequence[Request],
        end_s: float,
        busy_s: Mapping[str, float],
        config: Config,
        workload: Workload,
        world: str,
        verbs: int = 0,
        verb_overhead_s: float = 0.0,
    ) -> RunRecord:
        """Close the books at `end_s`; the other arguments are `RunRecord`'s."""
        rows = np.frombuffer(self._rows, dtype=np.float64).reshape(-1, len(STAGE_COLUMNS))
        return RunRecord(
            requests=[request for request in requests if request.arrival_s <= end_s],
            stage_rows=rows,
            member_ids=np.frombuffer(self._member_ids, dtype=np.int32),
            member_tokens=np.frombuffer(self._member_tokens, dtype=np.uint8).astype(np.int32),
            lanes=self.lanes,
            shut_s=_spans(self._turns, self.shut, end_s),
            full_s=_spans(self._full_turns, self.full, end_s),
            end_s=end_s,
            busy_s=dict(busy_s),
            config=config,
            workload=workload,
            world=world,
            verbs=verbs,
            verb_overhead_s=verb_overhead_s,
        )


def _turn(turns: list[float], now_s: float) -> None:
    """Something begins or ends; what lasts no time leaves no trace."""
    if turns and turns[-1] == now_s:
        turns.pop()
    else:
        turns.append(now_s)


def _spans(turns: list[float], open_ended: bool, end_s: float) -> NDArray[np.float64]:
    """Beginnings and ends in turn as spans up to `end_s`, shape (spans, 2)."""
    ended = [*turns, end_s] if open_ended else turns
    return np.minimum(np.array(ended, dtype=np.float64), end_s).reshape(-1, 2)


@dataclass(frozen=True, eq=False)
class RunRecord:
    """Everything one run produced.

    Attributes:
        requests: those that had arrived by the end.
        stage_rows: shape (stage executions, len(STAGE_COLUMNS)), in the order in which lanes knew
            of their ends.
        member_ids, member_tokens: the requests of each stage execution, end to end in row order,
            and the output tokens that each got from it.
        lanes: names of the threads; the column `lane` holds places in it.
        shut_s: shape (spans, 2): from when to when something waited for its prefill while the
            architecture admitted nothing, memory included.
        full_s: the same, as far as it was for want of memory alone.
        busy_s: seconds in which the device had work, by name ("device", or a stream's).
        world: "simulated" or "real".
        verbs, verb_overhead_s: of a real run: verbs of all lanes, and host seconds in the world
            itself.
    """

    requests: list[Request]
    stage_rows: NDArray[np.float64]
    member_ids: NDArray[np.int32]
    member_tokens: NDArray[np.int32]
    lanes: list[str]
    shut_s: NDArray[np.float64]
    end_s: float
    busy_s: dict[str, float]
    config: Config
    workload: Workload
    world: str
    verbs: int = 0
    verb_overhead_s: float = 0.0
    full_s: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))

    def column(self, name: str) -> NDArray[np.float64]:
        """One column of the stage rows."""
        return self.stage_rows[:, STAGE_COLUMNS.index(name)]

    @cached_property
    def emissions(self) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.int32]]:
        """(request id, time, tokens) of every emission, ordered by request and then time."""
        when = np.repeat(self.column("settled_s"), self.column("batch").astype(np.int64))
        some = self.member_tokens > 0
        ids, times, tokens = self.member_ids[some], when[some], self.member_tokens[some]
        order = np.lexsort((times, ids))
        return ids[order], times[order], tokens[order]

    def write(self, folder: Path, stem: str, cell: Mapping[str, Any] | None = None) -> None:
        """Write `<stem>_requests.parquet` and `<stem>_stages.parquet`; see `record_files`."""
        from pdvsim.record_files import write

        write(self, folder, stem, cell)
