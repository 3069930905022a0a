"""Many tasks in processes: the same results, and no process that outlives its parent."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from pdvsim import pool
from pdvsim.errors import CapacityError, InputError
from pdvsim.json_file import read_json
from pdvsim.pool import Helper, run_all

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_tasks(workers: int) -> None:
    seen: list[tuple[int, int]] = []
    tasks = list(range(40))
    found = run_all(math.sqrt, tasks, workers, lambda done, of: seen.append((done, of)))
    assert found == list(map(math.sqrt, tasks))
    assert seen == [(i + 1, 40) for i in range(40)]
    assert run_all(math.sqrt, [], workers) == []


def test_helpers_are_used_again() -> None:
    first = Helper()
    pid = first.call(_pid, 0)
    assert pid != os.getpid()
    pool._idle.append(first)
    run_all(_nap, [0.05] * 6, 2)
    assert first in pool._idle
    assert first.call(_pid, 0) == pid


def test_a_helper_that_was_begun_answers_the_next_call() -> None:
    helper = Helper()
    helper.begin(_forget, 1)
    helper.begin(_forget, 2)
    assert helper.call(math.sqrt, 9.0) == 3.0
    assert helper.call(math.sqrt, 4.0) == 2.0
    helper.end()
    helper.begin(_forget, 3)
    with pytest.raises(CapacityError):
        helper.call(math.sqrt, 1.0)


def test_helpers_started_before_there_are_tasks_do_them() -> None:
    pool.prepare("pdvsim.sweep")
    assert run_all(math.sqrt, [1.0, 4.0, 9.0]) == [1.0, 2.0, 3.0]


def _forget(_: int) -> None:
    return


def _pid(_: int) -> int:
    return os.getpid()


def _nap(seconds: float) -> None:
    print("a task may print")
    time.sleep(seconds)


def test_errors_of_tasks_come_back() -> None:
    with pytest.raises(InputError, match="cannot read"):
        run_all(_read, [Path("/no/such/file")] * 4, 2)
    helper = Helper()
    with pytest.raises(InputError, match="cannot read") as caught:
        helper.call(_read, Path("/no/such/file"))
    assert "in a helping process" in caught.value.__notes__[0]
    helper.end()


def _read(path: Path) -> object:
    return read_json(path, "a file")


def test_a_killed_helper_is_a_sentence() -> None:
    helper = Helper()
    with pytest.raises(CapacityError, match="exit code 3"):
        helper.call(os._exit, 3)


def run_script(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, input=text, env=environment, capture_output=True, text=True)


SCRIPT = """
from math import sqrt
from pdvsim.pool import run_all
print(run_all(sqrt, [4.0] * 50, workers=3)[-1])
"""


def test_scripts_need_no_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    for arguments in ([str(tmp_path / "script.py")], ["-c", SCRIPT], ["-"]):
        done = run_script(SCRIPT, *arguments)
        assert (done.stdout, done.stderr, done.returncode) == ("2.0\n", "", 0)


def test_what_only_the_script_has_is_worked_on_by_the_script(tmp_path: Path) -> None:
    script = tmp_path / "own.py"
    script.write_text(
        "from pdvsim.pool import run_all\n"
        "class Own:\n"
        "    value = 3\n"
        "def own(task): return task.value\n"
        "print(run_all(own, [Own()] * 9, 2), run_all(lambda x: x, [1, 2, 3], 2))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == f"{[3] * 9} [1, 2, 3]"
    assert done.stderr == ""


def test_threads_and_forks_may_call_it() -> None:
    done = run_script(
        SCRIPT
        + """
import os, threading
thread = threading.Thread(target=lambda: print(run_all(sqrt, [9.0] * 50, workers=3)[-1]))
thread.start(); thread.join()
print(end="", flush=True)  # a fork would write it again
if os.fork():
    os.wait()
else:
    print(run_all(sqrt, [16.0] * 50, workers=3)[-1])
""",
        "-",
    )
    assert done.stdout.split() == ["2.0", "3.0", "4.0"]
    assert done.stderr == ""


def living(mark: str) -> list[int]:
    """Processes that have `mark` in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL, signal.SIGINT])
def test_no_helper_outlives_its_parent_nor_holds_its_output(number: signal.Signals) -> None:
    mark = uuid.uuid4().hex
    code = "import time; from pdvsim.pool import run_all; run_all(time.sleep, [60] * 9, workers=3)"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), "MARK": mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline_s = time.monotonic() + 30
    while len(living(mark)) < 3 and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert len(living(mark)) == 3
    process.send_signal(number)
    process.communicate(timeout=30)
    while living(mark) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert living(mark) == []
