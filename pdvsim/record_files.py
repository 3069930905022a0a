"""A run's record as two Parquet files, and back.

`<stem>_requests.parquet` has a row per request, `<stem>_stages.parquet` one per stage execution,
with the ids of its requests and the tokens that each of them got. Both carry the same JSON object
as metadata under the key `pdvsim`: what else there is to know of the run, and a digest of
everything. The files' name is a label, no more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pdvsim import __version__
from pdvsim.architectures import Config, by_name
from pdvsim.cell import Cell, Values
from pdvsim.core import EXECUTORS, Checked, Drafter, Request, equal_shares
from pdvsim.errors import InputError, InvariantError
from pdvsim.invariants import check
from pdvsim.json_file import parse_json
from pdvsim.parquet_file import read_metadata, read_table
from pdvsim.records import STAGE_COLUMNS, STAGES, STREAMS, RunRecord
from pdvsim.result_file import make_folder, write_parquet
from pdvsim.workload import Workload

KEY = "pdvsim"
COUNTS = (
    *("id", "prompt_tokens", "output_tokens", "produced_tokens"),
    *("rounds", "drafted_tokens", "accepted_tokens"),
)
PER_ROUND = ("accepted_per_round", "drafted_per_round")
TIMES = ("arrival_s", "admitted_s", "first_token_s", "completed_s", "failed_s")
CODED = ("stage", "lane", "stream")  # columns that hold a word, not a number
WHOLE = ("take", "batch", "query_tokens", "context_tokens", "tokens")
MOST, MOST_REQUESTS = 2**31 - 1, 10_000_000  # counts in a record, and ids
_PROTOCOL = ("protocol", "in_flight", "warmup", "deadline_s", "stop_after", "notes")
# What tables of other columns, or damaged ones, come to.
_NO_RUN = (
    *(KeyError, TypeError, ValueError, OverflowError),
    *(pl.exceptions.PolarsError, pl.exceptions.PanicException),
)
_NEEDED = "a record that pdvsim bench --records wrote"


def paths(stem: Path) -> tuple[Path, Path]:
    """The request and the stage file of the record called `stem`."""
    return stem.with_name(f"{stem.name}_requests.parquet"), stem.with_name(
        f"{stem.name}_stages.parquet"
    )


def write(
    record: RunRecord, folder: Path, stem: str, cell: Mapping[str, Any] | None = None
) -> None:
    """Write both files.

    Args:
        cell: the specification of what ran, as JSON.
    """
    make_folder(folder)
    about = _about(record, cell)
    metadata = {KEY: json.dumps({**about, "digest": _digest(record, about)})}
    for path, table in zip(
        paths(folder / stem), (request_table(record), stage_table(record)), strict=True
    ):
        write_parquet(path, table, metadata)


def read(stem: Path) -> tuple[RunRecord, dict[str, Any]]:
    """The record called `stem`, checked against the invariants, and its metadata.

    Raises:
        InputError: a file is missing, is no such table, was changed since it was written, or
            tells of a run that cannot be.
    """
    requests_path, stages_path = paths(stem)
    about = _metadata(requests_path)
    if about != _metadata(stages_path):
        raise InputError(f"{stem}: its request and its stage file are of different runs")
    requests, stages = (read_table(path, _NEEDED) for path in (requests_path, stages_path))
    try:
        record = _record(requests, stages, about)
        digest = _digest(record, {name: about[name] for name in about if name != "digest"})
    except _NO_RUN as error:
        raise InputError(f"{stem}: not the tables of a run ({_in_a_line(error)})") from None
    if digest != about.get("digest"):
        raise InputError(f"{stem}: changed since it was written; its digest does not fit")
    try:
        check(record)
    except InvariantError as error:
        raise InputError(f"{stem}: no run can leave this behind: {error}") from None
    return record, about


def cell_of(about: Mapping[str, Any], config: Config) -> Cell | None:
    """What a record says was specified; None where it does not.

    It names what the run did where that is not today's default, since it may have been then.

    Raises:
        InputError: it is no cell.
    """
    if about.get("cell") is None:
        return None
    cell = Cell.read(about["cell"])
    own = by_name(config.name)
    known = {} if own is None else own.checked({})
    other = {
        name: value
        for name, value in config.parameters.items()
        if name in known and value != known[name]
    }
    return replace(cell, parameters=Values({**other, **cell.parameters}))


def request_table(record: RunRecord) -> pl.DataFrame:
    """One row per request."""
    data: dict[str, Any] = {
        name: [getattr(r, name) for r in record.requests] for name in COUNTS + TIMES
    }
    for name in PER_ROUND:
        data[name] = [list(getattr(r, name)) for r in record.requests]
    kinds: dict[str, Any] = {name: pl.Float64 if name in TIMES else pl.Int64 for name in data}
    return pl.DataFrame(data, schema=kinds | dict.fromkeys(PER_ROUND, pl.List(pl.Int64)))


def stage_table(record: RunRecord) -> pl.DataFrame:
    """One row per stage execution, with the ids of its requests and the tokens of each."""
    data: dict[str, Any] = {name: record.column(name) for name in STAGE_COLUMNS}
    data.update(_words(record))
    for name in WHOLE:
        data[name] = data[name].astype(np.int64)
    ends = np.cumsum(data["batch"])
    for name, members in (
        ("requests", record.member_ids),
        ("request_tokens", record.member_tokens),
    ):
        parts = np.split(members, ends)[:-1]
        data[name] = pl.Series([one.tolist() for one in parts], dtype=pl.List(pl.Int64))
    return pl.DataFrame(data)


def _words(record: RunRecord) -> dict[str, list[str]]:
    """The columns that hold words: their codes change when stages or streams are added."""
    known = zip(CODED, (STAGES, record.lanes, STREAMS), strict=True)
    return {name: [str(words[int(code)]) for code in record.column(name)] for name, words in known}


def _about(record: RunRecord, cell: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the tables do not say, as JSON."""
    config, workload = record.config, record.workload
    return {
        "pdvsim": __version__,
        "world": record.world,
        "warmup": workload.warmup,
        "end_s": record.end_s,
        "lanes": record.lanes,
        "shut_s": record.shut_s.tolist(),
        "full_s": record.full_s.tolist(),
        "busy_s": record.busy_s,
        "verbs": record.verbs,
        "verb_overhead_s": record.verb_overhead_s,
        "config": {
            "architecture": config.architecture,
            "name": config.name,
            "executor": config.executor.name,
            "drafter": str(config.executor.drafter),
            "batch_cap": config.batch_cap,
            "draft_tokens": config.draft_tokens,
            "parameters": dict(config.parameters),
            "switched_off": sorted(config.switched_off),
        },
        "workload": {
            **{name: getattr(workload, name) for name in _PROTOCOL},
            "notes": list(workload.notes),
        },
        "cell": None if cell is None else dict(cell),
    }


def _metadata(path: Path) -> dict[str, Any]:
    text = read_metadata(path, _NEEDED).get(KEY)
    if text is None:
        raise InputError(
            f"{path}: does not say what ran, as files of earlier versions and copies do not; "
            f"{_NEEDED} is needed"
        )
    about = parse_json(text, f"{path}, metadata", _NEEDED)
    if not isinstance(about, dict):
        raise InputError(f"{path}: its metadata are no object; {_NEEDED} is needed")
    return about


def _record(requests: pl.DataFrame, stages: pl.DataFrame, about: Mapping[str, Any]) -> RunRecord:
    lanes = [str(lane) for lane in about["lanes"]]
    batch = _whole(stages, "batch")
    rows = np.empty((len(batch), len(STAGE_COLUMNS)))
    for column, name in enumerate(STAGE_COLUMNS):
        if name in CODED:
            words = {"stage": STAGES, "lane": lanes, "stream": STREAMS}[name]
            codes = {str(word): float(code) for code, word in enumerate(words)}
            rows[:, column] = [codes[word] for word in stages[name].to_list()]
        else:
            rows[:, column] = _whole(stages, name) if name in WHOLE else _floats(stages, name)
    config = dict(about["config"])
    executor = EXECUTORS[config.pop("executor")].with_drafter(Drafter(config.pop("drafter")))
    config["switched_off"] = frozenset(config["switched_off"])
    config.setdefault("name", config["architecture"])
    served = _requests(requests)
    return RunRecord(
        requests=served,
        stage_rows=rows,
        member_ids=_members(stages, "requests", batch),
        member_tokens=_members(stages, "request_tokens", batch),
        lanes=lanes,
        shut_s=_spans(about["shut_s"]),
        full_s=_spans(about.get("full_s", [])),  # not told in records from before
        end_s=float(about["end_s"]),
        busy_s={str(name): float(seconds) for name, seconds in about["busy_s"].items()},
        config=Config.recorded(executor=executor, **config),
        workload=_workload(served, **about["workload"]),
        world=str(about["world"]),
        verbs=int(about["verbs"]),
        verb_overhead_s=float(about["verb_overhead_s"]),
    )


def _requests(table: pl.DataFrame) -> list[Request]:
    columns: list[list[Any]] = [_whole(table, name).tolist() for name in COUNTS]
    for name in TIMES:
        values = _floats(table, name, missing=name != "arrival_s")
        if name == "arrival_s" and np.isnan(values).any():
            raise ValueError("arrival_s is missing in a row")
        columns.append([None if np.isnan(value) else value for value in values.tolist()])
    columns.append(_checked(table))
    names = (*COUNTS, *TIMES, "checked")
    return [Request(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def _checked(table: pl.DataFrame) -> list[list[Checked]]:
    """Kept and made drafts of every round of each request."""
    kept = table["accepted_per_round"].to_list()
    if "drafted_per_round" in table.columns:
        made = table["drafted_per_round"].to_list()
    else:  # a record from before a round could draft less than it was asked for
        counts = zip(_whole(table, "drafted_tokens").tolist(), map(len, kept), strict=True)
        made = [equal_shares(*each) for each in counts]
    return [
        [Checked(int(k), int(m)) for k, m in zip(*each, strict=True)]
        for each in zip(kept, made, strict=True)
    ]


def _workload(requests: Sequence[Request], notes: Sequence[str], **protocol: Any) -> Workload:
    """The plan as far as it was run."""
    return Workload(
        prompt_tokens=[request.prompt_tokens for request in requests],
        output_tokens=[request.output_tokens for request in requests],
        outcomes=[request.accepted_per_round for request in requests],
        arrival_s=None if protocol["in_flight"] else [request.arrival_s for request in requests],
        notes=tuple(notes),
        **protocol,
    )


def _spans(rows: Any) -> NDArray[np.float64]:
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def _floats(table: pl.DataFrame, name: str, missing: bool = False) -> NDArray[np.float64]:
    if missing and name not in table.columns:  # a record from before this could happen
        return np.full(len(table), np.nan)
    column = table[name]
    if not missing and column.null_count():
        raise ValueError(f"{name} is missing in a row")
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy().copy()


def _whole(table: pl.DataFrame, name: str) -> NDArray[np.int64]:
    column = table[name]
    if not column.dtype.is_integer() or column.null_count():
        raise ValueError(f"{name} is no column of whole numbers")
    return _in_range(column.to_numpy(), name)


def _members(stages: pl.DataFrame, name: str, batch: NDArray[np.int64]) -> NDArray[np.int32]:
    """The lists of a column, end to end, each as long as its batch."""
    lists = stages[name]
    if lists.null_count() or lists.list.len().to_numpy().tolist() != batch.tolist():
        raise ValueError(f"{name} does not fit the batches")
    members = lists.explode().cast(pl.Int64)
    if members.null_count():
        raise ValueError(f"{name} has gaps")
    return _in_range(members.to_numpy(), name).astype(np.int32)


def _in_range(values: NDArray[Any], name: str) -> NDArray[np.int64]:
    most = MOST_REQUESTS if name in ("id", "requests") else MOST
    if len(values) and not (values.min() >= 0 and values.max() <= most):
        raise ValueError(f"{name} is beyond 0 to {most}")
    return values.astype(np.int64)


def _digest(record: RunRecord, about: Mapping[str, Any]) -> str:
    """Of everything in a record."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    numbers = [i for i, name in enumerate(STAGE_COLUMNS) if name not in CODED]
    for values in (record.stage_rows[:, numbers], record.member_ids, record.member_tokens):
        digest.update(np.ascontiguousarray(values).tobytes())
    for words in _words(record).values():
        digest.update("\n".join(words).encode())
    for request in record.requests:
        # What has not happened, or is as usual, leaves no trace, so that columns may be added.
        row = {name: getattr(request, name) for name in COUNTS + TIMES}
        known = {name: float(value) for name, value in row.items() if value is not None}
        rounds = [list(request.accepted_per_round)]
        made = list(request.drafted_per_round)
        if made != equal_shares(request.drafted_tokens, len(made)):
            rounds.append(made)
        digest.update(json.dumps([known, *rounds]).encode())
    return digest.hexdigest()


def _in_a_line(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"no {error.args[0]!r}"
    return str(error).split("\n")[0]
