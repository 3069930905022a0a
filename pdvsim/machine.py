"""A machine to simulate on, and the one place where a replication is drawn and run.

Replication i of every cell runs the same workload plan on the same draw of the machine (common
random numbers), so cells differ by what they are and not by luck. Its seeds depend on the cell's
seed and on i alone: the result is the same in any process, whatever the number of processes, and
the real engine can draw the same plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pdvsim.architectures import Config
from pdvsim.cell import Cell
from pdvsim.des.contention import Contention
from pdvsim.des.costs import StageCosts
from pdvsim.des.host import HostCosts
from pdvsim.des.world import simulate
from pdvsim.gpu_memory import GpuMemory
from pdvsim.kv_cache import KvCache
from pdvsim.records import RunRecord
from pdvsim.workload import Workload


@dataclass(frozen=True, slots=True)
class Machine:
    """One plausible machine.

    Attributes:
        costs: host and device seconds of a stage.
        host: what threads cost.
        contention: how far stages slow each other down on the device.
        memory: of its GPU, with the models in it; None where it is not known.
    """

    costs: StageCosts
    host: HostCosts
    contention: Contention
    memory: GpuMemory | None = None

    def kv_cache(self, config: Config, workload: Workload) -> KvCache | None:
        """The cache that limits a run; None where all requests fit, or no limit is known.

        Raises:
            CapacityError: something never fits.
        """
        if self.memory is None:
            return None
        return self.memory.for_run(workload, config.batch_cap, config.draft_tokens)


class Calibration(Protocol):
    """What machines are drawn from, such as a profile. Sent to worker processes, so picklable."""

    def draw(self, seed: np.random.SeedSequence) -> Machine:
        """One plausible machine: fitted parameters drawn from their bootstrap."""
        ...

    def extrapolations(self, record: RunRecord) -> Sequence[str]:
        """What `record` asked for outside the measured range, one reason each."""
        ...

    def impossible(self, record: RunRecord) -> Sequence[str]:
        """Why no engine can run what `record` holds, one reason each; empty if one can."""
        ...


def replication_seeds(
    seed: int, index: int
) -> tuple[np.random.SeedSequence, np.random.SeedSequence]:
    """(workload plan, machine) of replication `index`. Spelled out instead of spawned from a
    shared parent, so that any process can do it alone."""
    plan_seed, machine_seed = np.random.SeedSequence(seed, spawn_key=(index,)).spawn(2)
    return plan_seed, machine_seed


def plan_of(cell: Cell, index: int) -> Workload:
    """The workload of replication `index`, predicted or measured."""
    plan_seed, _ = replication_seeds(cell.seed, index)
    return cell.plan(plan_seed)


@dataclass(frozen=True, slots=True)
class Replication:
    """One run to simulate.

    Attributes:
        index: of the machine drawn.
        plan: of the workload plan; None: `index`. Predictions of measured runs take the plans
            of those, several machines to each.
    """

    cell: Cell
    calibration: Calibration
    index: int
    plan: int | None = None

    def workload(self) -> Workload:
        return plan_of(self.cell, self.index if self.plan is None else self.plan)

    def machine(self) -> Machine:
        _, machine_seed = replication_seeds(self.cell.seed, self.index)
        return self.calibration.draw(machine_seed)

    def run(self) -> RunRecord:
        """Simulate it."""
        machine, workload, config = self.machine(), self.workload(), self.cell.config()
        return simulate(
            config,
            workload,
            machine.costs,
            machine.host,
            machine.contention,
            machine.kv_cache(config, workload),
        )
