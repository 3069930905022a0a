"""What a document of `pdvsim bench` says: which cells ran, and on what host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pdvsim.cell import REAL, Cell
from pdvsim.documents.base import Machine as MeasuredOn
from pdvsim.documents.benchmark import Benchmark, Telemetry
from pdvsim.documents.reading import read
from pdvsim.errors import InputError
from pdvsim.machine import Machine
from pdvsim.measured.host_speed import gil_speed, host_factors
from pdvsim.models import Pair, pair
from pdvsim.profile import HostState, Profile, select_profile
from pdvsim.records import RunRecord
from pdvsim.statistics import Interval

Run = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Benched:
    """A measured cell.

    Attributes:
        metrics: intervals by name.
        telemetry: of each run.
        runs: what each run said of its host.
        records: where each run's record lies.
    """

    cell: Cell
    label: str
    metrics: Mapping[str, Interval | None]
    telemetry: Sequence[Telemetry]
    runs: Sequence[Run]
    records: Sequence[Path]


@dataclass(frozen=True, eq=False)
class Bench:
    """A document of `pdvsim bench`; run i of a cell had workload plan i.

    Attributes:
        measured_on: the machine, and when.
        models: that ran; None where only their names are known.
    """

    cells: tuple[Benched, ...]
    measured_on: MeasuredOn
    models: Pair | None = None


def read_bench(path: Path) -> Bench:
    """A document that `pdvsim bench -o` wrote.

    Raises:
        InputError: it is not one, or it is of a version that did not record what is needed here.
    """
    document = read(path)
    if not isinstance(document, Benchmark):
        raise InputError(f"{path}: not a document of pdvsim bench, but a {document.NAME}")
    return bench_of(document, path.parent, str(path))


def bench_of(document: Benchmark, folder: Path, source: str = "the bench") -> Bench:
    """A bench from its document.

    Args:
        folder: where records lie.
        source: what it is called in errors.

    Raises:
        InputError: it lacks something.
    """
    cells = []
    for row in document.cells:
        if row.cell is None:
            raise InputError(f"{source}: it does not say what ran; measure again")
        runs = [run.model_dump(mode="json") for run in row.runs]
        cell = row.cell
        before = f"{cell.architecture}-{cell.executor}-{cell.protocol}-c{cell.concurrency}"
        stems = [run.records or f"{before}-{i}" for i, run in enumerate(row.runs)]
        cells.append(
            Benched(
                cell,
                row.label,
                row.metrics,
                [run.telemetry for run in row.runs],
                runs,
                [folder / stem for stem in stems],
            )
        )
    return Bench(tuple(cells), document.machine, document.models)


def profile_for(benches: Sequence[Bench], name: str | None, gpu: str | None = None) -> Profile:
    """The profile called `name`, or the shipped one, to predict `benches` with; on `gpu`, if that
    is another than it was measured on.

    Raises:
        InputError: it is for another pair or executor than one of them, or there is nothing that
            it could predict.
    """
    cells = [(one.cell, bench.models) for bench in benches for one in bench.cells]
    if not cells:
        raise InputError("the bench holds no cells")
    first, models = cells[0]
    profile = select_profile(name, models or pair(first.pair), first.executor)
    if gpu is not None:
        from pdvsim.transfer import transferred

        profile = transferred(profile, gpu)
    for cell, models in cells:
        check_predictable(cell, profile, models)
    return profile


def check_predictable(cell: Cell, profile: Profile, models: Pair | None = None) -> None:
    """Refuse what `profile` cannot predict.

    Args:
        models: that the cell's name of a pair stands for, where they are known.

    Raises:
        InputError: another pair or executor, acceptance without drawn outcomes, or a trace that is
            not what it was.
    """
    if models is None and cell.pair != profile.pair.name:
        models = pair(cell.pair)
    if models is not None and (difference := profile.pair.difference(models)):
        raise InputError(
            f"the bench ran pair {cell.pair}, the profile is for {profile.pair.name} ({difference})"
        )
    if cell.executor != profile.executor.name:
        raise InputError(
            f"the bench ran executor {cell.executor}, the profile is for {profile.executor.name}"
        )
    if cell.acceptance == REAL:
        raise InputError(
            "a bench with real acceptance has no drawn outcomes to predict with; pdvsim predict "
            "--acceptance-from takes what it measured"
        )
    for file in (cell.trace, cell.lengths_from):
        if file is not None:
            file.check()


class Hosts:
    """The host during measured runs of a synchronous executor, whose time is the host's.

    How fast it was comes from a run's own undisturbed launches. What the GIL took comes from the
    runs of all *other* cells: a run's own would say much about its throughput.
    """

    def __init__(self, benches: Sequence[Bench], profile: Profile) -> None:
        self._profile = profile
        self._speeds = [
            (cell, speed)
            for bench in benches
            for cell in bench.cells
            for run in cell.runs
            if profile.executor.synchronous and (speed := gil_speed(run, profile)) is not None
        ]

    def of(self, cell: Benched, runs: Sequence[Run]) -> HostState:
        """The host during `runs`, some or all of those of `cell`."""
        if not self._profile.executor.synchronous:
            return HostState()
        factors = [factor for run in runs for factor in host_factors(run, self._profile)]
        others = [speed for owner, speed in self._speeds if owner is not cell]
        return HostState(tuple(factors), tuple(others))


@dataclass(frozen=True, slots=True)
class OnHost:
    """A profile on a host whose state is known."""

    profile: Profile
    state: HostState

    def draw(self, seed: np.random.SeedSequence) -> Machine:
        return self.profile.draw(seed, self.state)

    def extrapolations(self, record: RunRecord) -> list[str]:
        return self.profile.extrapolations(record)

    def impossible(self, record: RunRecord) -> list[str]:
        return self.profile.impossible(record)
