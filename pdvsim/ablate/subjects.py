"""What can be ablated: a cell of a prediction."""

from __future__ import annotations

from functools import partial

from pdvsim.ablate.mechanisms import Setting
from pdvsim.ablate.shapley import Subject
from pdvsim.cell import Cell
from pdvsim.machine import Calibration, Replication

# Short names, and the figures of a run that they stand for.
METRICS = {
    "e2e": "median_e2el_ms",
    "ttft": "median_ttft_ms",
    "throughput": "output_throughput",
}


def predicted(cell: Cell, calibration: Calibration, replications: int) -> Subject:
    """A cell as `pdvsim predict` simulates it."""
    runs = [Replication(cell, calibration, i) for i in range(replications)]
    return Subject(cell.config().name, [partial(setting_of, run) for run in runs])


def setting_of(run: Replication) -> Setting:
    """What a run is made of."""
    machine, config, workload = run.machine(), run.cell.config(), run.workload()
    cache = machine.kv_cache(config, workload)
    return Setting(config, workload, machine.costs, machine.host, machine.contention, cache)
