"""What one more replication costs: CPU seconds of a run of each architecture, C = 256, one core.

    python benchmarks/replications.py > results/replications.json

The least of three runs of the default cell of each executor: drawing machine and requests,
simulating, and checking and measuring the record.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from sim_speed import revision

from pdvsim.architectures import ARCHITECTURES
from pdvsim.cell import DEFAULT_PAIR, Cell
from pdvsim.machine import Replication
from pdvsim.profile import select_profile
from pdvsim.sweep import evaluate

CONCURRENCY = 256
TIMES = 3
T = TypeVar("T")


def least_s(call: Callable[[], T]) -> tuple[float, T]:
    """Least CPU seconds of a few calls, and what the last gave."""
    seconds = []
    for _ in range(TIMES):
        began_s = time.process_time()
        result = call()
        seconds.append(time.process_time() - began_s)
    return min(seconds), result


def costs(executor: str) -> list[dict[str, object]]:
    profile = select_profile(None, None, executor)
    rows: list[dict[str, object]] = []
    for name in ARCHITECTURES:
        one = Replication(Cell(DEFAULT_PAIR, executor, name, CONCURRENCY), profile, 0)
        drawn_s, _ = least_s(lambda one=one: (one.machine(), one.workload()))
        run_s, record = least_s(one.run)
        checked_s, _ = least_s(
            lambda one=one, record=record: evaluate(
                one.cell, record, profile.extrapolations(record)
            )
        )
        rows.append(
            {
                "architecture": name,
                "stage_executions": len(record.stage_rows),
                "drawn_s": drawn_s,
                "simulated_s": run_s - drawn_s,
                "checked_s": checked_s,
            }
        )
    return rows


def main() -> None:
    document = {
        "benchmark": "replications",
        "command": "python benchmarks/replications.py",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": revision(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "load_average": os.getloadavg()[0],
        "concurrency": CONCURRENCY,
        "cpu_s": {executor: costs(executor) for executor in ("graph", "eager")},
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
