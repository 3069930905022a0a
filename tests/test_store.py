"""Finished measurements survive a kill, and nothing else is taken for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest

from pdvsim.errors import InputError
from pdvsim.store import Store

IDENTITY = {"pair": "a:b", "seed": 0}


def test_a_measurement_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    calls: list[int] = []
    for _ in range(2):
        store = Store(path, IDENTITY)
        assert store.measure("k", lambda: calls.append(1) or {"value": 3}) == {"value": 3}
    assert calls == [1]
    store.remove()
    assert not path.exists()


def test_a_half_written_line_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    store = Store(path, IDENTITY)
    store.measure("a", lambda: 1)
    store.measure("b", lambda: 2)
    path.write_text(path.read_text()[:-5])
    again = Store(path, IDENTITY)
    assert "a" in again and "b" not in again
    assert again.measure("b", lambda: 20) == 20


def test_measurements_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    Store(path, IDENTITY).measure("a", lambda: 1)
    with pytest.raises(InputError, match="seed differ"):
        Store(path, IDENTITY | {"seed": 1})


BENCH = {
    "--device": "cpu",
    "--pair": "tiny:tiny",
    "--executor": "eager",
    "--architecture": "plain,baseline,pdv",
    "--concurrency": "1,2",
    "--requests": "8",
    "--output-tokens": "24",
}


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


@pytest.mark.slow
def test_a_killed_bench_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "bench.json"
    partial = tmp_path / "bench.partial.jsonl"
    command = [sys.executable, "-m", "pdvsim", "bench", *chain(*BENCH.items()), "-o", str(out)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **quiet)
    while process.poll() is None and lines(partial) < 3:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    kept = partial.read_text().splitlines()[1]
    assert subprocess.run(command, check=False, **quiet).returncode == 0
    assert out.exists() and not partial.exists()
    # What was finished before the kill is in the result, to the last digit.
    elapsed = kept.split('"elapsed_s": ')[1].split(",")[0]
    assert elapsed in out.read_text()
