"""A measurement that was cut off goes on only with what is truly the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pdvsim import cli
from pdvsim.errors import InputError
from pdvsim.store import Store

pytest.importorskip("torch")

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
Bench = Callable[..., int]


def write_trace(path: Path, output_tokens: int) -> None:
    """Six requests, the longest of 9 tokens, so that the engine is the same for all of these."""
    outputs = [*[output_tokens] * 5, 9]
    rows = [f"2023-11-16 18:15:00.{i},8,{output}" for i, output in enumerate(outputs)]
    path.write_text(HEADER + "\n".join(rows) + "\n")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Runs two architectures over a trace, on the CPU."""

    def call(*words: str) -> int:
        return cli.run(
            [
                *("bench", "--device", "cpu", "--pair", "tiny:tiny", "--concurrency", "2"),
                *("--architecture", "plain,pd", "--protocol", "trace", "--json"),
                *("--trace", str(tmp_path / "trace.csv"), "-o", str(tmp_path / "bench.json")),
                *words,
            ]
        )

    return call


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets the next bench end after its first run; returns how to mend that."""
    from realengine import bench as module

    whole, done = module._run_cell, []

    def first_only(*arguments: Any) -> Any:
        if done:
            raise KeyboardInterrupt
        done.append(True)
        return whole(*arguments)

    monkeypatch.setattr(module, "_run_cell", first_only)
    return lambda: monkeypatch.setattr(module, "_run_cell", whole)


@pytest.mark.slow
def test_a_changed_trace_is_measured_anew(
    bench: Bench,
    cut_off: Callable[[], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_trace(tmp_path / "trace.csv", 3)
    assert bench() == 130
    assert (tmp_path / "bench.json.partial.jsonl").read_text().count("\n") == 2
    write_trace(tmp_path / "trace.csv", 7)
    cut_off()
    capsys.readouterr()
    assert bench() == 0
    rows = json.loads(capsys.readouterr().out)["cells"]
    assert [row["metrics"]["completed"]["value"] for row in rows] == [6, 6]
    tokens = [
        row["metrics"]["output_throughput"]["value"] * row["metrics"]["duration_s"]["value"]
        for row in rows
    ]
    assert tokens == pytest.approx([5 * 7 + 9] * 2)  # none of 5 * 3 + 9
    assert not (tmp_path / "bench.json.partial.jsonl").exists()


@pytest.mark.slow
def test_the_same_goes_on(
    bench: Bench,
    cut_off: Callable[[], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_trace(tmp_path / "trace.csv", 3)
    assert bench() == 130
    kept = json.loads((tmp_path / "bench.json.partial.jsonl").read_text().splitlines()[1])
    cut_off()
    capsys.readouterr()
    assert bench() == 0
    rows = json.loads(capsys.readouterr().out)["cells"]
    assert rows[0]["runs"][0]["elapsed_s"] == kept["value"]["elapsed_s"]


@pytest.mark.slow
def test_another_engine_is_refused(
    bench: Bench,
    cut_off: Callable[[], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_trace(tmp_path / "trace.csv", 3)
    assert bench() == 130
    cut_off()
    capsys.readouterr()
    assert bench("--draft-tokens", "2") == 2
    said = capsys.readouterr().err
    assert "holds an unfinished run of something else (engine differ)" in said
    assert said.count("\n") == 1


def test_a_second_bench_on_an_output_is_refused_before_its_engine_opens(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def opening(*arguments: Any) -> Any:
        opened.append(arguments)
        raise InputError("no engine today")

    opened: list[Any] = []
    monkeypatch.setattr("realengine.build.open_engine", opening)
    write_trace(tmp_path / "trace.csv", 3)
    partial = tmp_path / "bench.json.partial.jsonl"
    with Store(partial, {"another": "run"}):
        assert bench() == 2
        assert "another run is writing to it" in capsys.readouterr().err
        assert not opened
    partial.unlink()
    # One that fails to open leaves nothing in the way.
    assert bench() == 2 and len(opened) == 1
    assert "no engine today" in capsys.readouterr().err and not partial.exists()
