"""Speed of two revisions, measured in turn, so that what else the machine does falls on both.

    python benchmarks/in_turn.py 3c0fb19 HEAD --times 3 > results/speed_in_turn.json

Of each: 10,000 requests of the Azure conversation trace on one core (`sim_speed.py`), and cold
starts of `pdvsim predict` with a page and with the eager executor. CPU seconds include helpers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sim_speed import REPOSITORY, default_trace

COMMANDS = {
    "predict with a page": ["predict", "--concurrency", "256", "--report", "page.html"],
    "predict, eager": ["predict", "--concurrency", "256", "--executor", "eager"],
}
REPLAY = """
import json, pathlib, sys
sys.path[:0] = ["benchmarks", "."]
import sim_speed
path = pathlib.Path(sys.argv[1])
sim_speed.replay(path, 1.0, requests=100)
print(json.dumps([sim_speed.replay(path, scale) for scale in (1.0, sim_speed.BUSY_TIME_SCALE)]))
"""


def taken(revision: str, folder: Path) -> Path:
    """The files of `revision`, in `folder`."""
    folder.mkdir()
    archive = subprocess.run(
        ["git", "-C", str(REPOSITORY), "archive", revision], check=True, capture_output=True
    )
    subprocess.run(["tar", "x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(tree: Path) -> dict[str, Any]:
    """Everything once."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    replay = subprocess.run(
        [sys.executable, "-P", "-c", REPLAY, str(default_trace())],
        cwd=tree,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    own, busy = json.loads(replay.stdout)
    found: dict[str, Any] = {"trace, own rate": own, "trace, 4 x its rate": busy}
    for name, command in COMMANDS.items():
        began_s, began_cpu_s = time.perf_counter(), cpu_s()
        subprocess.run(
            [sys.executable, "-m", "pdvsim", *command],
            cwd=tree,
            env=environment,
            check=True,
            capture_output=True,
        )
        found[name] = {"wall_s": time.perf_counter() - began_s, "cpu_s": cpu_s() - began_cpu_s}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--times", type=int, default=3)
    arguments = parser.parse_args()
    revisions = [
        subprocess.run(
            ["git", "-C", str(REPOSITORY), "rev-parse", "--short", one],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for one in (arguments.before, arguments.after)
    ]
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        trees = [taken(revision, Path(folder) / revision) for revision in revisions]
        for tree in trees * (arguments.times + 1):
            result = {"revision": tree.name, "load_average": os.getloadavg()[0], **measured(tree)}
            runs.append(result)
            print(tree.name, result, file=sys.stderr)
    document = {
        "benchmark": "in_turn",
        "command": f"python benchmarks/in_turn.py {' '.join(revisions)} --times {arguments.times}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "runs": runs[len(trees) :],  # the first of each compiles
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
