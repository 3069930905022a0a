"""Finished measurements survive a kill, and nothing else is taken for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdvsim.errors import InputError
from pdvsim.store import Store, partial_path

IDENTITY = {"pair": "a:b", "seed": 0}
KEYS = ("a", "b", "c", "d")
VALUES = {key: {"x": 0.1 * i, "y": float(i)} for i, key in enumerate(KEYS)}


@dataclass(frozen=True)
class Measured:
    seconds: tuple[float, ...]
    reason: str | None = None


def opened(path: Path, identity: dict[str, Any] = IDENTITY) -> Store:
    return Store(path, identity)


def filled(path: Path) -> None:
    with opened(path) as store:
        for key, value in VALUES.items():
            store.measure(key, lambda value=value: value, dict[str, float])


def kept(path: Path) -> dict[str, Any]:
    """What is found in the file; what is not is measured as None."""
    with opened(path) as store:
        return {key: store.measure(key, lambda: None, Any) for key in KEYS}  # type: ignore[arg-type]


def test_a_measurement_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    calls: list[int] = []

    def make() -> Measured:
        calls.append(1)
        return Measured((1.5, 2.0))

    for _ in range(2):
        with opened(path) as store:
            assert store.measure("k", make, Measured) == Measured((1.5, 2.0))
    assert calls == [1]
    opened(path).remove()
    assert not path.exists()


def test_without_a_file_measurements_live_in_memory() -> None:
    with Store(None, IDENTITY) as store:
        assert store.measure("k", lambda: 1, int) == store.measure("k", lambda: 2, int) == 1
        store.remove()


def test_a_half_written_line_is_measured_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.jsonl"
    filled(path)
    path.write_text(path.read_text()[:-5])
    assert kept(path) == VALUES | {"d": None}
    assert capsys.readouterr().err == ""  # a kill is no damage
    path.write_text(path.read_text().splitlines()[0][:-5])
    assert kept(path) == dict.fromkeys(KEYS)


DAMAGE = {
    "a byte that is not UTF-8": b"\xff",
    "no key": b'{"value": 1}',
    "a list": b"[1]",
    "deep": b"[" * 100_000,
    "not finite": b'{"key": "b", "value": NaN, "digest": "0"}',
    "a value edited": b'{"key": "b", "value": {"x": 3.0}, "digest": "0123456789abcdef"}',
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("line", [0, 2])
def test_damage_costs_the_damaged_line_alone_and_says_so(
    damage: str, line: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.jsonl"
    filled(path)
    lines = path.read_bytes().split(b"\n")
    lines[line] = DAMAGE[damage]
    path.write_bytes(b"\n".join(lines))
    assert kept(path) == (VALUES if line == 0 else VALUES | {"b": None})
    assert "damaged" in capsys.readouterr().err


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.integers(0, 255), st.booleans())
def test_whatever_happens_to_a_byte_no_wrong_value_is_found(
    tmp_path: Path, at: int, byte: int, cut: bool
) -> None:
    path = tmp_path / "x.jsonl"
    path.unlink(missing_ok=True)
    filled(path)
    content = bytearray(path.read_bytes())
    at %= len(content)
    content[at] = byte
    path.write_bytes(content[:at] if cut else content)
    found = kept(path)
    assert all(found[key] in (None, VALUES[key]) for key in KEYS)
    assert cut or sum(value is None for value in found.values()) <= 2  # a newline has two sides


def test_a_value_of_another_kind_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    filled(path)
    with opened(path) as store:
        assert store.measure("a", lambda: Measured((7.0,)), Measured) == Measured((7.0,))


def test_measurements_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    filled(path)
    for other, differs in (({"seed": 1}, "seed"), ({"torch": "2"}, "torch")):
        with pytest.raises(InputError, match=rf"\({differs} differ\); .* delete the file"):
            opened(path, IDENTITY | other)
    assert kept(path) == VALUES


def test_a_file_of_which_nothing_is_known_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    for text in ("hello\n", '{"seed": 0}\n{"key": "a", "value": 1}\n'):
        path.write_text(text)
        with pytest.raises(InputError, match="delete the file"):
            opened(path)
        assert path.read_text() == text


def test_two_runs_on_one_output_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with opened(path), pytest.raises(InputError, match="another run is writing"):
        opened(path)
    opened(path).close()


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    code = (
        "import sys, time; from pathlib import Path; from pdvsim.store import Store;"
        f"store = Store(Path({str(path)!r}), {IDENTITY}); store.measure('a', lambda: 1, int);"
        "print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    with pytest.raises(InputError, match="another run is writing"):
        opened(path)
    process.kill()
    process.wait()
    with opened(path) as store:
        assert "a" in store


def test_outputs_have_partial_files_of_their_own(tmp_path: Path) -> None:
    names = ("run-v1.1", "run-v1.2", "run-v1", "run.json", "run")
    assert len({partial_path(tmp_path / name) for name in names}) == len(names)
    (tmp_path / "link").symlink_to("run")
    assert partial_path(tmp_path / "link") == partial_path(tmp_path / "run")
    assert partial_path(None) is partial_path(Path("/dev/null")) is None


def test_a_place_where_nothing_can_be_kept_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "no" / "x", tmp_path / ("n" * 300)):
        with pytest.raises(InputError, match=str(tmp_path)):
            opened(path)


def test_a_full_disk_is_a_sentence_and_keeps_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    code = (
        "import resource; from pathlib import Path; from pdvsim.store import Store;"
        f"store = Store(Path({str(path)!r}), {IDENTITY});"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400));"
        "[store.measure(k, lambda: {'x': 0.0}, dict[str, float]) for k in map(str, range(99))]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "InputError: cannot write" in done.stderr
    with opened(path) as store:
        assert "0" in store and "98" not in store


BENCH = {
    "--device": "cpu",
    "--pair": "toy",
    "--executor": "graph",
    "--architecture": "plain,pdv",
    "--concurrency": "1,2",
    "--requests": "8",
    "--output-tokens": "48",
}


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


@pytest.mark.slow
def test_a_killed_bench_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "bench.json"
    partial = tmp_path / "bench.json.partial.jsonl"
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


def test_a_changed_trace_or_revision_is_not_joined(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from realengine.provenance import MACHINE, identity

    about = dict.fromkeys(MACHINE, "x")
    trace, folder = tmp_path / "t.csv", tmp_path / "model"
    folder.mkdir()
    seen = []
    for content in ("8,4", "64,40"):
        trace.write_text(content)
        seen.append(identity(about, "tiny:tiny", str(trace)))
        (folder / "weights").write_text(content)
        seen.append(identity(about, f"{folder}:tiny", None))
    seen.append(identity(about | {"driver": "other"}, "tiny:tiny", None))
    seen.append(identity(about | {"git_revision": "other"}, "tiny:tiny", None))
    assert all(one != other for i, one in enumerate(seen) for other in seen[:i])
