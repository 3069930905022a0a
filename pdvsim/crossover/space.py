"""What can be compared, over what: axes, and the simulated runs behind a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pdvsim.asked import with_draft_tokens
from pdvsim.cell import Cell, Values
from pdvsim.core import Model, Stage
from pdvsim.crossover.search import Sample
from pdvsim.des.costs import StageCosts
from pdvsim.errors import InputError
from pdvsim.extrapolation import farthest
from pdvsim.machine import Calibration, Machine, Replication
from pdvsim.open_loop import Wanted, is_open, long_enough
from pdvsim.pool import run_all
from pdvsim.quantities import QUANTILES
from pdvsim.records import RunRecord
from pdvsim.sweep import Run, simulate_cell
from pdvsim.work import Work

OTHERWISE = 0.9  # the quantile that runs of an open loop have to tell, for what is none above it


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two.

    Attributes:
        fixed: what was given to this side alone; it keeps that wherever the other goes.
    """

    name: str
    cell: Cell
    fixed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Place:
    """Where two sides meet.

    Attributes:
        model_ratio: times of the draft model's stages, relative to the calibrated ones.
    """

    sides: tuple[Side, Side]
    model_ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class Axis:
    """One thing that is varied.

    Attributes:
        option: the field of `Cell`, or the parameter, that it moves.
        move: a side's cell at a value of the axis; None: the axis moves the machine.
        logarithmic: what is fitted and printed goes by its logarithm.
        whole: only whole numbers exist.
        low, high: where it is looked at unless asked otherwise.
    """

    name: str
    option: str
    move: Callable[[Cell, float], Cell] | None
    logarithmic: bool
    whole: bool
    low: float
    high: float

    def grid(self, low: float | None, high: float | None, points: int) -> list[float]:
        """About `points` values from `low` to `high`, evenly spaced as the axis goes."""
        first = self.low if low is None else low
        last = self.high if high is None else high
        if not np.isfinite((first, last)).all():
            raise InputError(f"{self.name} goes from {first:g} to {last:g}; both must be finite")
        least = 1.0 if self.whole else 0.0
        if not first < last or first < least or (self.logarithmic and first <= 0.0):
            raise InputError(
                f"{self.name} goes from {first:g} to {last:g}; it must grow, from "
                + (f"at least {least:g}" if self.whole or not self.logarithmic else "above 0")
            )
        if not 2 <= points <= 100:
            raise InputError(f"--points is {points}; it must be between 2 and 100")
        space = np.geomspace if self.logarithmic else np.linspace
        values = [float(value) for value in space(first, last, points)]
        return sorted({float(round(value)) for value in values} if self.whole else set(values))

    def place(self, place: Place, value: float) -> Place:
        """`place` with this axis at `value`.

        Raises:
            InputError: no cell can have that value.
        """
        if self.move is None:
            return replace(place, model_ratio=value)
        move = self.move
        first, second = (
            side if self.option in side.fixed else replace(side, cell=move(side.cell, value))
            for side in place.sides
        )
        return replace(place, sides=(first, second))


def _field(name: str, whole: bool = False) -> Callable[[Cell, float], Cell]:
    def move(cell: Cell, value: float) -> Cell:
        changes: dict[str, Any] = {name: round(value) if whole else value}
        return replace(cell, **changes)

    return move


def _accepting(cell: Cell, value: float) -> Cell:
    return replace(cell, acceptance=(value,) * cell.draft_tokens)


def _drafting(cell: Cell, value: float) -> Cell:
    return with_draft_tokens(cell, round(value))


def _admitting(cell: Cell, value: float) -> Cell:
    """Sides without an admission factor stay as they are."""
    from pdvsim.architectures import architecture

    own = architecture(cell.architecture).own({"admission_factor": value})
    return replace(cell, parameters=Values({**cell.parameters, **own}))


AXES = {
    axis.name: axis
    for axis in (
        Axis("concurrency", "concurrency", _field("concurrency", True), True, True, 1, 128),
        Axis("rate", "rate_per_s", _field("rate_per_s"), True, False, 1, 32),
        Axis("trace-speed", "time_scale", _field("time_scale"), True, False, 0.25, 16),
        Axis("draft-tokens", "draft_tokens", _drafting, False, True, 1, 8),
        Axis("acceptance", "acceptance", _accepting, False, False, 0.2, 0.95),
        Axis("prompt-tokens", "prompt_tokens", _field("prompt_tokens", True), True, True, 16, 1024),
        Axis("output-tokens", "output_tokens", _field("output_tokens", True), True, True, 16, 512),
        Axis("admission-factor", "admission_factor", _admitting, True, False, 0.25, 4.0),
        Axis("model-ratio", "model_ratio", None, True, False, 0.25, 4.0),
    )
}


@dataclass(frozen=True, slots=True)
class DraftTimes:
    """A calibration on which the draft model is `factor` times slower."""

    calibration: Calibration
    factor: float

    def draw(self, seed: np.random.SeedSequence) -> Machine:
        machine = self.calibration.draw(seed)
        return replace(machine, costs=_Slower(machine.costs, self.factor))

    def extrapolations(self, record: RunRecord) -> Sequence[str]:
        return self.calibration.extrapolations(record)

    def impossible(self, record: RunRecord) -> Sequence[str]:
        return self.calibration.impossible(record)


@dataclass(frozen=True, slots=True)
class _Slower:
    costs: StageCosts
    factor: float

    def cost(self, stage: Stage, work: Work) -> tuple[float, float]:
        host_s, device_s = self.costs.cost(stage, work)
        if stage.model is Model.DRAFT:
            return host_s * self.factor, device_s * self.factor
        return host_s, device_s


class Simulated:
    """A sampler of pairs of simulated runs; run i of both sides has the same plan and the same
    machine.

    Attributes:
        lengths: of each run so far: seconds measured, and requests completed inside them.
        overloaded: runs at each value: of all, and of each side those in which more requests came
            than could be served.
    """

    def __init__(
        self,
        axis: Axis,
        place: Place,
        metric: str,
        calibration: Calibration,
        workers: int | None = None,
        on_run: Callable[[int, int], None] | None = None,
    ) -> None:
        self._axis, self._place, self._metric = axis, place, metric
        self._calibration, self._workers, self._on_run = calibration, workers, on_run
        self.lengths: list[tuple[float, float]] = []
        self.overloaded: dict[float, list[int]] = {}
        self._extrapolated: list[str] = []
        self._long_enough: dict[Cell, Cell] = {}
        share = max(OTHERWISE, QUANTILES.get(metric.partition("_")[0], OTHERWISE))
        self._wanted = Wanted(share=share)

    def _lengthen(self, tasks: Sequence[Replication]) -> list[Replication]:
        """Runs of open loops are as long as the metric needs."""
        new = {
            task.cell: (task.cell, task.calibration, self._wanted)
            for task in tasks
            if is_open(task.cell) and task.cell not in self._long_enough
        }
        for cell, length in zip(
            new, run_all(long_enough, list(new.values()), self._workers), strict=True
        ):
            self._long_enough[cell] = length.cell
        return [replace(task, cell=self._long_enough.get(task.cell, task.cell)) for task in tasks]

    def _count(self, samples: Sequence[Sample], runs: Sequence[Run]) -> None:
        """Note who was overloaded where."""
        for (value, _), *sides in zip(samples, runs[::2], runs[1::2], strict=True):
            counts = self.overloaded.setdefault(value, [0, 0, 0])
            counts[0] += 1
            for i, run in enumerate(sides, 1):
                counts[i] += run.drift is not None and run.drift.overloaded

    @property
    def extrapolated(self) -> tuple[str, ...]:
        """What lay outside the calibrated range, in any run so far."""
        return tuple(self._extrapolated)

    def overloads(self, value: float) -> tuple[bool, bool]:
        """Whether most runs of each side at a value were overloaded."""
        runs, first, second = self.overloaded.get(value, (1, 0, 0))
        return 2 * first >= runs, 2 * second >= runs

    def _tasks(self, value: float, index: int) -> list[Replication]:
        at, its = self._axis.place(self._place, value), self._calibration
        if at.model_ratio != 1.0:
            its = DraftTimes(its, at.model_ratio)
        # At another load another plan: what a machine does at several of them then tells the chance
        # of a run from the machine.
        plan = (index * 1_000_003 + round(1e3 * value)) % 2**31
        return [Replication(side.cell, its, index, plan) for side in at.sides]

    def __call__(self, samples: Sequence[Sample]) -> list[tuple[float, float] | None]:
        both = [task for value, index in samples for task in self._tasks(value, index)]
        runs = run_all(simulate_cell, self._lengthen(both), self._workers, self._on_run)
        self._count(samples, runs)
        self._extrapolated = farthest(
            [*self._extrapolated, *(reason for run in runs for reason in run.extrapolated)]
        )
        self.lengths += [
            (run.metrics["duration_s"] or 0.0, run.metrics["completed"] or 0.0) for run in runs
        ]
        values = [run.metrics[self._metric] for run in runs]
        return [
            None if first is None or second is None else (first, second)
            for first, second in zip(values[::2], values[1::2], strict=True)
        ]
