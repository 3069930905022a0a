"""A profile on another GPU than the one it was measured on, from two readings of that GPU.

What a stage takes on the device is its floor, the larger of bytes / copy rate and FLOPs / matrix
rate, and what the kernels need beyond it. The floor of the other GPU follows from its two rates.
What lies beyond scales with it, as far as kernels reach the same share of a rate there, or stays as
it is, as far as it is time between them: by a power of the floors' ratio between 0 and 1, which
nothing tells, so that each plausible machine has its own for each stage. Host, waking and
contention are taken as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from pdvsim.core import Stage
from pdvsim.des.costs import StageCosts
from pdvsim.errors import InputError
from pdvsim.floors import Floor, floor_of
from pdvsim.gpus import Gpu, called, gpus
from pdvsim.machine import Machine
from pdvsim.profile import HostState, Profile
from pdvsim.profile_file import Ceilings
from pdvsim.strata import Strata
from pdvsim.work import Work

# Standard deviation of the logarithm of a rate: of one that is taken from a data sheet, reaching
# the same share of its peak as on the measured GPU; and of one that was read on another copy.
OF_SHEET, OF_READING = 0.05, 0.01
READINGS = {"copy_tb_s": 1e12, "matrix_tflops": 1e12, "memory_gb": 1e9}
APART = 7  # of the seeds of a transfer, from those of the machine


@dataclass(frozen=True, slots=True)
class Target:
    """Another GPU.

    Attributes:
        rates: that it reaches, both.
        spread: of the logarithm of (copy rate, matrix rate).
        memory_bytes: None where it is not known.
    """

    name: str
    rates: Ceilings
    spread: tuple[float, float]
    memory_bytes: int | None

    @classmethod
    def parse(cls, text: str, measured: Ceilings, measured_on: str) -> Target:
        """Parse `h200`, or `h200@copy_tb_s=4.2,matrix_tflops=780`, or with any name a GPU that is
        not known and of which both rates are given.

        Args:
            measured: rates of the GPU that the profile is of, called `measured_on`.

        Raises:
            InputError: an unknown GPU or reading.
        """
        name, _, rest = text.partition("@")
        sheet, own = gpus().get(name.strip().lower()), _readings(text, rest)
        if sheet is None and not {"copy_tb_s", "matrix_tflops"} <= own.keys():
            raise InputError(
                f"unknown GPU {name!r}; known are {', '.join(gpus())}, and any other is described "
                f"by {name}@copy_tb_s=...,matrix_tflops=...,memory_gb=..."
            )
        copy, copy_spread = _rate(
            own.get("copy_tb_s"), sheet, "copy_bytes_per_s", measured, measured_on
        )
        matrix, matrix_spread = _rate(
            own.get("matrix_tflops"), sheet, "matmul_flops_per_s", measured, measured_on
        )
        memory = own.get("memory_gb", None if sheet is None else float(sheet.memory_bytes))
        return cls(
            name if sheet is None else sheet.driver_name,
            Ceilings(copy_bytes_per_s=copy, matmul_flops_per_s=matrix),
            (copy_spread, matrix_spread),
            None if memory is None else int(memory),
        )


def _readings(text: str, rest: str) -> dict[str, float]:
    found = {}
    for part in filter(None, rest.split(",")):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in READINGS:
            raise InputError(
                f"{text!r}: a GPU has no reading {key!r}; known are {', '.join(READINGS)}"
            )
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if not 0.0 < number < 1e6:
            raise InputError(f"{text!r}: {key} is {value!r}; it must be a number above 0")
        found[key] = number * READINGS[key]
    return found


def _rate(
    read: float | None, sheet: Gpu | None, name: str, measured: Ceilings, measured_on: str
) -> tuple[float, float]:
    """(rate, spread of its logarithm): as read, else the same share of the vendor's peak as the
    measured GPU reaches of its own."""
    if read is not None:
        return read, OF_READING
    ours = called(measured_on)
    assert sheet is not None
    if ours is None:
        raise InputError(
            f"what {measured_on} reaches of its data sheet is not known; give both rates: "
            "--gpu NAME@copy_tb_s=...,matrix_tflops=..."
        )
    return getattr(sheet, name) * getattr(measured, name) / getattr(ours, name), OF_SHEET


class Transferred(Profile):
    """A profile as it should be on another GPU."""

    def __init__(self, source: Profile, target: Target) -> None:
        file, rates = source.file, source.file.ceilings
        assert rates is not None
        where = file.provenance.model_copy(update={"gpu": target.name})
        changes = {
            "provenance": where,
            "ceilings": target.rates,
            "gpu_bytes": target.memory_bytes,
            "name": f"{file.name} on {target.name}",
        }
        super().__init__(file.model_copy(update=changes))
        self.transferred_from = file.provenance.gpu
        self.notes = (_note(self.transferred_from, target),)
        self._source, self._target = source, target

    def draw(self, seed: np.random.SeedSequence, state: HostState | None = None) -> Machine:
        """One plausible machine: one of the measured kind, with the other GPU in it."""
        machine = self._source.draw(seed, state)
        key = (*seed.spawn_key, APART)
        luck = Strata(np.random.SeedSequence(seed.entropy, spawn_key=key))
        copy, matrix = (float(np.exp(luck.normal(spread))) for spread in self._target.spread)
        rates = self._target.rates
        elsewhere = {}
        for stage in dict.fromkeys((*self._source.file.stages, Stage.MIXED)):
            there = floor_of(
                stage,
                self.file.draft,
                self.file.verifier,
                copy * rates.copy_bytes_per_s,
                matrix * rates.matmul_flops_per_s,
            )
            elsewhere[stage] = self._source.file.floor(stage), there, luck.uniform()
        return replace(machine, costs=_Elsewhere(machine.costs, elsewhere), memory=self.memory)


def _note(measured_on: str, target: Target) -> str:
    """How far this is to be believed."""
    copy, matrix = target.rates.copy_bytes_per_s / 1e12, target.rates.matmul_flops_per_s / 1e12
    return (
        f"Transferred, not measured: stages were timed on {measured_on} and scaled to "
        f"{target.name} by copying {copy:.3g} TB/s and multiplying matrices at {matrix:.4g} "
        "TFLOP/s; intervals hold what two rates leave open about the rest."
    )


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """Costs on another GPU.

    Attributes:
        floors: of each stage here, there, and the power of their ratio by which what lies beyond
            the floor scales.
    """

    costs: StageCosts
    floors: Mapping[Stage, tuple[Floor, Floor, float]]

    def cost(self, stage: Stage, work: Work) -> tuple[float, float]:
        host_s, device_s = self.costs.cost(stage, work)
        known = self.floors.get(stage)
        if known is None:
            return host_s, device_s
        here, there, power = known
        here_s, there_s = here.seconds(work), there.seconds(work)
        if not here_s:
            return host_s, device_s
        beyond_s = max(device_s - here_s, 0.0)
        return host_s, there_s + beyond_s * (there_s / here_s) ** power


def transferred(profile: Profile, gpu: str) -> Transferred:
    """`profile` on another GPU, as `Target.parse` reads it.

    Raises:
        InputError: no such GPU; or the rates of the measured one are not known.
    """
    if profile.file.ceilings is None:
        raise InputError(
            f"profile {profile.name} holds no copy and matrix rate of its GPU; only with them can "
            "it be transferred to another"
        )
    target = Target.parse(gpu, profile.file.ceilings, profile.file.provenance.gpu)
    return Transferred(profile, target)
