"""What a run leaves behind: one row per request, one row per stage execution.

Both worlds fill the same `Recorder`. Rows go into flat arrays of doubles, so that a run of a
million request-rounds stays small.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pdvsim.core import Request, Stage, Stream
from pdvsim.result_file import make_folder, write_parquet

if TYPE_CHECKING:
    import polars as pl

STAGE_COLUMNS = (
    "stage",
    "lane",
    "stream",
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
_STAGES = list(Stage)
_STREAMS = list(Stream)
_STAGE_CODE = {stage: float(i) for i, stage in enumerate(_STAGES)}
_STREAM_CODE = {stream: float(i) for i, stream in enumerate(_STREAMS)}


class Execution(Protocol):
    """What either world knows of a stage that has ended; see STAGE_COLUMNS."""

    stage: Stage
    stream: Stream
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
    """Collects stage rows while a run goes on. Not thread-safe: worlds guard it."""

    def __init__(self, lanes: Sequence[str]) -> None:
        self.lanes = list(lanes)
        self._rows = bytearray()
        self._member_ids = array("I")  # unsigned numbers pack three times as fast
        self._member_tokens = bytearray()  # a round yields 17 at most
        self._last_batch: Sequence[Request] = ()
        self._last_ids = self._member_ids

    def stage(self, done: Execution, lane: int, settled_s: float, emitted: Sequence[int]) -> None:
        """Append one stage execution that yielded `emitted` to its requests, if anything."""
        batch = done.batch
        self._rows += _ROW.pack(
            _STAGE_CODE[done.stage],
            lane,
            _STREAM_CODE[done.stream],
            len(batch),
            done.query_tokens,
            done.context_tokens,
            done.queued_s,
            done.launched_s,
            done.launch_end_s,
            done.started_s,
            done.ended_s,
            settled_s,
            done.launch_alone_s,
            done.device_alone_s,
            sum(emitted),
        )
        if batch is not self._last_batch:  # the stages of a round share one
            self._last_batch = batch
            self._last_ids = array("I", [request.id for request in batch])
        self._member_ids.extend(self._last_ids)
        self._member_tokens += bytes(emitted) if emitted else bytes(len(batch))

    def finish(
        self, requests: Sequence[Request], end_s: float, busy_s: dict[str, float], **about: Any
    ) -> RunRecord:
        """Close the books at `end_s`."""
        rows = np.frombuffer(self._rows, dtype=np.float64).reshape(-1, len(STAGE_COLUMNS))
        return RunRecord(
            requests=[request for request in requests if request.arrival_s <= end_s],
            stage_rows=rows,
            member_ids=np.frombuffer(self._member_ids, dtype=np.int32),
            member_tokens=np.frombuffer(self._member_tokens, dtype=np.uint8).astype(np.int32),
            lanes=self.lanes,
            end_s=end_s,
            busy_s=busy_s,
            about=about,
        )


@dataclass(frozen=True, eq=False)
class RunRecord:
    """Everything one run produced.

    Attributes:
        requests: those that had arrived by the end.
        stage_rows: shape (stage executions, len(STAGE_COLUMNS)).
        member_ids, member_tokens: the requests of each stage execution, end to end in row order,
            and the output tokens that each got from it.
        busy_s: seconds in which the device had work, by name ("device", or a stream's).
        about: architecture, executor, world, workload limits, ...
    """

    requests: list[Request]
    stage_rows: NDArray[np.float64]
    member_ids: NDArray[np.int32]
    member_tokens: NDArray[np.int32]
    lanes: list[str]
    end_s: float
    busy_s: dict[str, float]
    about: dict[str, Any]

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

    def request_table(self) -> pl.DataFrame:
        """One row per request."""
        import polars as pl

        columns = (
            "id",
            "prompt_tokens",
            "output_tokens",
            "produced_tokens",
            "rounds",
            "drafted_tokens",
            "accepted_tokens",
            "arrival_s",
            "admitted_s",
            "first_token_s",
            "completed_s",
        )
        data = {name: [getattr(r, name) for r in self.requests] for name in columns}
        kinds = {n: pl.Float64 if n.endswith("_s") else pl.Int64 for n in columns}
        return pl.DataFrame(data, schema=kinds)

    def stage_table(self) -> pl.DataFrame:
        """One row per stage execution, with the ids of its requests."""
        import polars as pl

        rows = self.stage_rows
        data: dict[str, Any] = {name: rows[:, i] for i, name in enumerate(STAGE_COLUMNS)}
        data["stage"] = [str(_STAGES[int(code)]) for code in data["stage"]]
        data["lane"] = [self.lanes[int(code)] for code in data["lane"]]
        data["stream"] = [str(_STREAMS[int(code)]) for code in data["stream"]]
        for name in ("batch", "query_tokens", "context_tokens", "tokens"):
            data[name] = data[name].astype(np.int64)
        ends = np.cumsum(data["batch"])
        data["requests"] = [ids.tolist() for ids in np.split(self.member_ids, ends)[:-1]]
        return pl.DataFrame(data)

    def write(self, folder: Path, stem: str) -> None:
        """Write `<stem>_requests.parquet` and `<stem>_stages.parquet`."""
        make_folder(folder)
        write_parquet(folder / f"{stem}_requests.parquet", self.request_table())
        write_parquet(folder / f"{stem}_stages.parquet", self.stage_table())
