"""What can be compared, over what: sides, axes, and the simulated runs behind a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pdvsim.acceptance import Acceptance
from pdvsim.architectures import Config, architecture, shared
from pdvsim.core import Executor, Model, Stage
from pdvsim.crossover.search import Sample, Sampler
from pdvsim.des.gpu import Contention
from pdvsim.des.host import HostCosts
from pdvsim.des.world import StageCosts
from pdvsim.errors import InputError
from pdvsim.pool import run_all
from pdvsim.profile import Profile
from pdvsim.quantities import LATENCY_METRICS, PDVERIFY_METRICS
from pdvsim.records import RunRecord
from pdvsim.sweep import Cell, Load, simulate_cell
from pdvsim.sweep import Model as Machine
from pdvsim.workload import Lengths

RATES = ("output_throughput", "request_throughput", "total_token_throughput")
COMPARED = (*RATES, *LATENCY_METRICS, *PDVERIFY_METRICS[:2])


def lower_is_better(metric: str) -> bool:
    return metric.endswith("_ms")


@dataclass(frozen=True, slots=True)
class Setting:
    """Where two sides meet; any one field can be the axis.

    Attributes:
        acceptance: per draft position.
        model_ratio: times of the draft model's stages, relative to the calibrated ones.
        admission_factor, prefill_batch: of the sides that have them; None for their defaults.
        rate_per_s: arrivals, of the poisson protocol.
    """

    concurrency: int = 32
    acceptance: float = 0.7
    draft_tokens: int = 4
    prompt_tokens: int = 128
    output_tokens: int = 64
    admission_factor: float | None = None
    prefill_batch: int | None = None
    model_ratio: float = 1.0
    rate_per_s: float | None = None
    protocol: str = "closed-loop"

    @property
    def parameters(self) -> dict[str, float | None]:
        """Parameters of architectures, which go to those that have them."""
        return {"admission_factor": self.admission_factor, "prefill_batch": self.prefill_batch}

    def check_parameters(self, sides: Sequence[Side]) -> None:
        """Refuse what no side has.

        Raises:
            InputError: names the parameter.
        """
        shared([architecture(side.architecture) for side in sides], self.parameters)


@dataclass(frozen=True, slots=True)
class Axis:
    """One thing that is varied.

    Attributes:
        field: of `Setting`.
        logarithmic: what is fitted and printed goes by its logarithm.
        whole: only whole numbers exist.
        low, high: where it is looked at unless asked otherwise.
    """

    name: str
    field: str
    logarithmic: bool
    whole: bool
    low: float
    high: float

    def grid(self, low: float | None, high: float | None, points: int) -> list[float]:
        """About `points` values from `low` to `high`, evenly spaced as the axis goes."""
        first = self.low if low is None else low
        last = self.high if high is None else high
        least = 1.0 if self.whole else 0.0
        if not first < last or first < least or (self.logarithmic and first <= 0.0):
            raise InputError(
                f"{self.name} goes from {first:g} to {last:g}; it must grow, from "
                + (f"at least {least:g}" if self.whole or not self.logarithmic else "above 0")
            )
        if not 2 <= points <= 100:
            raise InputError(f"points are {points}; 2 to 100 are possible")
        space = np.geomspace if self.logarithmic else np.linspace
        values = [float(value) for value in space(first, last, points)]
        return sorted({float(round(value)) for value in values} if self.whole else set(values))

    def place(self, setting: Setting, value: float) -> Setting:
        """`setting` with this axis at `value`."""
        changes: dict[str, Any] = {self.field: round(value) if self.whole else value}
        return replace(setting, **changes)


AXES = {
    axis.name: axis
    for axis in (
        Axis("concurrency", "concurrency", True, True, 1, 128),
        Axis("rate", "rate_per_s", True, False, 1, 32),
        Axis("draft-tokens", "draft_tokens", False, True, 1, 8),
        Axis("acceptance", "acceptance", False, False, 0.2, 0.95),
        Axis("prompt-tokens", "prompt_tokens", True, True, 16, 1024),
        Axis("output-tokens", "output_tokens", True, True, 16, 512),
        Axis("admission-factor", "admission_factor", True, False, 0.25, 4.0),
        Axis("model-ratio", "model_ratio", True, False, 0.25, 4.0),
    )
}


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: an architecture, with some of its parameters set."""

    name: str
    architecture: str
    parameters: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Side:
        """`pdv`, or `pdv@admission_factor=1.2,prefill_batch=4`.

        Raises:
            InputError: unknown architecture or parameter, or a value of the wrong kind.
        """
        name, at, rest = text.partition("@")
        found = architecture(name)
        own = {name: one.default for name, one in found.fields().items()}
        defaults = {"batch_cap": 8, "draft_tokens": 4, **own}
        parameters = []
        for part in rest.split(",") if at else ():
            key, equals, value = part.partition("=")
            if key not in defaults or not equals:
                known = ", ".join(defaults)
                raise InputError(
                    f"{text!r}: {part!r} is no PARAMETER=VALUE of {found.name}; it has {known}"
                )
            parameters.append((key, _typed(value, defaults[key], part)))
        return cls(f"{found.name}{at}{rest}", found.reference or found.name, tuple(parameters))

    def cell(self, setting: Setting, executor: Executor, pair: str, machine: Machine) -> Cell:
        """What to simulate for this side at `setting`."""
        given = dict(self.parameters)
        draft_tokens = given.pop("draft_tokens", setting.draft_tokens)
        # C is the batch cap unless a side says otherwise, as everywhere.
        batch_cap = given.pop("batch_cap", setting.concurrency)
        common = {name: value for name, value in setting.parameters.items() if value is not None}
        parameters = {**architecture(self.architecture).own(common), **given}
        load = Load(
            setting.protocol,
            setting.concurrency,
            Lengths(setting.prompt_tokens, setting.output_tokens),
            Acceptance.constant(setting.acceptance, draft_tokens),
            rate_per_s=setting.rate_per_s,
        )
        if setting.model_ratio != 1.0:
            machine = DraftTimes(machine, setting.model_ratio)
        config = Config(self.architecture, executor, batch_cap, draft_tokens, parameters)
        return Cell(config, pair, load, machine)


def _typed(value: str, default: Any, part: str) -> Any:
    try:
        return type(default)(value)
    except ValueError:
        raise InputError(f"{part!r}: the value must be a number like {default}") from None


@dataclass(frozen=True, slots=True)
class DraftTimes:
    """A machine on which the draft model is `factor` times slower: `sweep.Model`."""

    machine: Machine
    factor: float

    def replicate(self, seed: np.random.SeedSequence) -> tuple[StageCosts, HostCosts, Contention]:
        costs, host, contention = self.machine.replicate(seed)
        return _Slower(costs, self.factor), host, contention

    def extrapolations(self, record: RunRecord) -> Sequence[str]:
        return self.machine.extrapolations(record)


@dataclass(frozen=True, slots=True)
class _Slower:
    costs: StageCosts
    factor: float

    def cost(
        self, stage: Stage, batch: int, query_tokens: int, context_tokens: int
    ) -> tuple[float, float]:
        host_s, device_s = self.costs.cost(stage, batch, query_tokens, context_tokens)
        if stage.model is Model.DRAFT:
            return host_s * self.factor, device_s * self.factor
        return host_s, device_s


def simulated(
    sides: tuple[Side, Side],
    axis: Axis,
    setting: Setting,
    metric: str,
    profile: Profile,
    seed: int,
    workers: int | None = None,
    on_run: Callable[[int, int], None] | None = None,
) -> Sampler:
    """Pairs of simulated runs; run i of both sides has the same plan and the same machine."""

    def cell(side: Side, value: float) -> Cell:
        at = axis.place(setting, value)
        return side.cell(at, profile.executor, profile.pair.name, profile)

    def sample(samples: Sequence[Sample]) -> list[tuple[float, float] | None]:
        tasks = [
            (cell(side, value), seed, index, index, None)
            for value, index in samples
            for side in sides
        ]
        values = [run.metrics[metric] for run in run_all(simulate_cell, tasks, workers, on_run)]
        return [
            None if first is None or second is None else (first, second)
            for first, second in zip(values[::2], values[1::2], strict=True)
        ]

    return sample
