"""A record comes back from its files as it was, and nothing else comes back at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdvsim.architectures import ARCHITECTURES
from pdvsim.cli import run as pdvsim
from pdvsim.core import EXECUTORS
from pdvsim.des import simulate
from pdvsim.errors import InputError
from pdvsim.metrics import summarize
from pdvsim.parquet_file import read_table
from pdvsim.record_files import KEY, _digest, paths, read, write
from pdvsim.records import RunRecord
from pdvsim.result_file import write_parquet
from pdvsim.workload import Lengths, closed_loop, poisson
from tests.fakes import ACCEPTANCE, HOST, FixedCosts, config_of


def a_run(name: str = "pdv", executor: str = "eager", open_loop: bool = False) -> RunRecord:
    seed, lengths = np.random.SeedSequence(5), Lengths(8, 10, 0.5)
    plan = (
        poisson(400.0, 12, lengths, ACCEPTANCE, seed, deadline_s=0.2)
        if open_loop
        else closed_loop(3, lengths, ACCEPTANCE, seed)
    )
    config = config_of(name, EXECUTORS[executor], 2, prefill_batch=2)
    return simulate(config, plan, FixedCosts(), HOST)


@pytest.mark.parametrize("open_loop", [False, True])
@pytest.mark.parametrize("executor", list(EXECUTORS))
@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_a_record_comes_back_whole(
    name: str, executor: str, open_loop: bool, tmp_path: Path
) -> None:
    record = a_run(name, executor, open_loop)
    write(record, tmp_path, "no name says anything", {"seed": 7})
    again, about = read(tmp_path / "no name says anything")
    assert about["cell"] == {"seed": 7}
    assert again.config == record.config
    assert (again.world, again.lanes, again.end_s) == (record.world, record.lanes, record.end_s)
    for field in ("stage_rows", "member_ids", "member_tokens", "shut_s"):
        assert np.array_equal(getattr(again, field), getattr(record, field)), field
    found, expected = summarize(again), summarize(record)
    assert found.metrics == expected.metrics
    assert found.acceptance_per_position == expected.acceptance_per_position


def test_a_batch_of_none_and_a_run_of_nothing_come_back(tmp_path: Path) -> None:
    workload = closed_loop(1, Lengths(4, 4), ACCEPTANCE, np.random.SeedSequence(0))
    record = simulate(config_of("pd"), replace(workload, deadline_s=1e-9), FixedCosts())
    write(record, tmp_path, "short")
    assert len(read(tmp_path / "short")[0].stage_rows) == 0


def forge(folder: Path, change: Callable[[RunRecord], RunRecord]) -> Path:
    """Files of a changed record, with the digest that fits."""
    write(change(a_run()), folder, "forged")
    return folder / "forged"


def with_column(record: RunRecord, name: str, values: Any) -> RunRecord:
    rows = record.stage_rows.copy()
    replace(record, stage_rows=rows).column(name)[:] = values
    return replace(record, stage_rows=rows)


def first_request(**changes: Any) -> Callable[[RunRecord], RunRecord]:
    return lambda record: replace(
        record, requests=[replace(record.requests[0], **changes), *record.requests[1:]]
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (first_request(completed_s=0.0), "times: request 0"),
        (first_request(admitted_s=float("inf")), "times: request 0"),
        (first_request(arrival_s=-1.0), "times: request 0"),
        (first_request(first_token_s=-1.0), "times: request 0"),
        (first_request(produced_tokens=1), "tokens: request 0 counts 1"),
        (lambda r: replace(r, requests=[*r.requests, r.requests[0]]), "request 0 is listed 2"),
        (lambda r: replace(r, requests=r.requests[1:]), "request 0 was served but never arrived"),
        (lambda r: with_column(r, "queued_s", np.inf), "queued_s = inf"),
        (lambda r: with_column(r, "started_s", -1.0), "started_s = -1"),
        (lambda r: with_column(r, "launch_alone_s", np.inf), "launch_alone_s = inf"),
        (lambda r: with_column(r, "ended_s", 1e9), "ended_s = 1e+09"),
        (lambda r: with_column(r, "query_tokens", 2**40), "query_tokens is beyond"),
        (first_request(id=2**31 - 1), "id is beyond"),
        (lambda r: replace(r, stage_rows=r.stage_rows[::-1]), "no run can leave this"),
        (lambda r: replace(r, end_s=0.0), "times: request"),
        (lambda r: replace(r, end_s=1e6), "where no request leaves and no deadline is"),
        (lambda r: replace(r, shut_s=np.array([[0.5, 0.1]])), "admission"),
        (lambda r: replace(r, shut_s=np.array([[0.0, 1e9]])), "admission"),
    ],
)
def test_impossible_records_are_refused_even_with_a_digest(
    change: Callable[[RunRecord], RunRecord], says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as refused:
        read(forge(tmp_path, change))
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def rewrite(path: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Change a table and keep its metadata."""
    write_parquet(path, change(pl.read_parquet(path)), {KEY: metadata(path)})


def metadata(path: Path) -> str:
    return pl.read_parquet_metadata(path)[KEY]


TABLE_CHANGES: list[tuple[int, Callable[[pl.DataFrame], pl.DataFrame]]] = [
    (0, lambda t: pl.concat([t, t])),
    (0, lambda t: t.with_columns(completed_s=pl.lit(0.0))),
    (0, lambda t: t.drop("rounds")),
    (0, lambda t: t.with_columns(id=pl.lit(None, pl.Int64))),
    (0, lambda t: t.with_columns(id=pl.col("id").cast(pl.String))),
    (0, lambda t: t.reverse()),
    (1, lambda t: t.reverse()),
    (1, lambda t: pl.concat([t, t])),
    (1, lambda t: t.head(5)),
    (1, lambda t: t.drop("take")),
    (1, lambda t: t.with_columns(batch=-pl.col("batch"))),
    (1, lambda t: t.with_columns(lane=pl.lit(None, pl.String))),
    (1, lambda t: t.with_columns(stage=pl.lit("brew"))),
    (1, lambda t: t.with_columns(started_s=-pl.col("started_s"))),
    (1, lambda t: t.with_columns(settled_s=pl.col("settled_s") + 1e-12)),
    (1, lambda t: t.with_columns(requests=pl.lit(None, pl.List(pl.Int64)))),
    (1, lambda t: t.with_columns(launch_alone_s=pl.lit(float("inf")))),
]


@pytest.mark.parametrize(("which", "change"), TABLE_CHANGES)
def test_changed_tables_are_refused(
    which: int,
    change: Callable[[pl.DataFrame], pl.DataFrame],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(a_run(), tmp_path, "run")
    rewrite(paths(tmp_path / "run")[which], change)
    assert pdvsim(["explain", "--records", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("pdvsim: ") and said.count("\n") == 1


@pytest.mark.parametrize("key", ["end_s", "lanes", "config", "workload", "shut_s", "digest"])
@pytest.mark.parametrize("value", [None, -1, [], {}, "x", [["a"]]])
def test_changed_metadata_are_refused(key: str, value: Any, tmp_path: Path) -> None:
    write(a_run(), tmp_path, "run")
    for path in paths(tmp_path / "run"):
        changed = {**json.loads(metadata(path)), key: value}
        write_parquet(path, pl.read_parquet(path), {KEY: json.dumps(changed)})
    with pytest.raises(InputError):
        read(tmp_path / "run")


@settings(max_examples=60, deadline=None)
@given(which=st.integers(0, 1), place=st.floats(0.0, 1.0), bit=st.integers(0, 7))
def test_flipped_bits_are_refused_or_change_nothing(
    which: int, place: float, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    record = a_run()
    write(record, folder, "run")
    path = paths(folder / "run")[which]
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1 << bit
    path.write_bytes(content)
    try:
        again, _ = read(folder / "run")
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert np.array_equal(again.stage_rows, record.stage_rows)
        assert again.requests[0].completed_s == record.requests[0].completed_s


@pytest.mark.parametrize("bit", [640, 2112, 3664, 8192])
def test_bits_that_would_end_the_process_are_refused(bit: int, tmp_path: Path) -> None:
    write(a_run(), tmp_path, "run")
    path = paths(tmp_path / "run")[0]
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(content)
    with pytest.raises(InputError, match="no readable Parquet file"):
        read(tmp_path / "run")


def test_what_others_wrote_is_tried_by_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pl.DataFrame({"a": [1, 2]}).write_parquet(path)
    assert read_table(path, "a table").to_dict(as_series=False) == {"a": [1, 2]}
    content = path.read_bytes()
    for place in range(4, 40, 4):
        path.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
        try:
            read_table(path, "a table")
        except InputError as error:
            assert "no readable Parquet file" in str(error)


def test_files_of_two_runs_do_not_go_together(tmp_path: Path) -> None:
    write(a_run("pd"), tmp_path, "a")
    write(a_run("pdv"), tmp_path, "b")
    paths(tmp_path / "b")[1].replace(paths(tmp_path / "a")[1])
    with pytest.raises(InputError, match="of different runs"):
        read(tmp_path / "a")


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read(tmp_path / "nowhere")
    for path in paths(tmp_path / "text"):
        path.write_text("text")
    with pytest.raises(InputError, match="no readable Parquet file"):
        read(tmp_path / "text")
    write(a_run(), tmp_path, "plain")
    for path in paths(tmp_path / "plain"):
        pl.read_parquet(path).write_parquet(path)
    with pytest.raises(InputError, match="does not say what ran"):
        read(tmp_path / "plain")


def test_the_digest_covers_all(tmp_path: Path) -> None:
    record = a_run()
    moved = with_column(record, "settled_s", record.column("settled_s") + 1e-15)
    assert _digest(record, {}) != _digest(moved, {})


def test_the_committed_records_open() -> None:
    results = Path(__file__).parents[1] / "results"
    stems = sorted(results.glob("*/*_stages.parquet"))
    if not stems:
        pytest.skip("the results are not in this clone")
    for path in stems[::11]:
        record, about = read(path.with_name(path.name.removesuffix("_stages.parquet")))
        assert record.world == "real"
        assert about["cell"]["architecture"] == record.config.architecture
        assert path.name.startswith(record.config.name)
