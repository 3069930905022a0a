"""Models with known costs, in place of a calibrated profile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pdvsim.acceptance import Acceptance
from pdvsim.architectures import Config, architecture
from pdvsim.cell import Cell, Value
from pdvsim.core import EAGER, Executor, Stage
from pdvsim.cost_fit import CostFit
from pdvsim.des.host import HostCosts
from pdvsim.machine import Machine
from pdvsim.models import pair
from pdvsim.profile_file import Estimate, HostFit, ProfileFile, Provenance, Range, StageFit
from pdvsim.records import RunRecord
from pdvsim.work import Work

ACCEPTANCE = Acceptance.constant(0.7, 4)
HOST = HostCosts(1e-4, 5e-5, 2e-5, 6e-5, (1.0, 0.55, 0.36))


def config_of(
    name: str,
    executor: Executor = EAGER,
    batch_cap: int = 8,
    draft_tokens: int = 4,
    switched_off: Iterable[str] = (),
    **parameters: Value,
) -> Config:
    """A configuration with those of the parameters and switches that the architecture has."""
    found = architecture(name)
    off = frozenset(switched_off) & found.switches.keys()
    return Config(name, executor, batch_cap, draft_tokens, found.own(parameters), frozenset(off))


@dataclass(frozen=True)
class FixedCosts:
    """Every stage costs the same, `scale` times over."""

    launch_s: float = 0.001
    device_s: float = 0.002
    scale: float = 1.0

    def cost(self, stage: Stage, work: Work) -> tuple[float, float]:
        return self.scale * self.launch_s, self.scale * self.device_s


@dataclass(frozen=True)
class TableCosts:
    """Device seconds by stage, no host time; stages not named are free."""

    device_s: Mapping[Stage, float]

    def cost(self, stage: Stage, work: Work) -> tuple[float, float]:
        return 0.0, self.device_s.get(stage, 0.0)


@dataclass(frozen=True)
class FakeModel:
    """Costs known up to `spread` (relative standard deviation)."""

    spread: float = 0.05
    host: HostCosts = HOST

    def draw(self, seed: np.random.SeedSequence) -> Machine:
        scale = float(np.exp(np.random.default_rng(seed).normal(0.0, self.spread)))
        return Machine(FixedCosts(scale=scale), self.host, {})

    def extrapolations(self, record: RunRecord) -> list[str]:
        batch = record.column("batch").max()
        return [f"batch {batch:.0f} is outside the measured 1 to 8"] if batch > 8 else []

    def impossible(self, record: RunRecord) -> list[str]:
        return []


def cell(
    architecture: str = "pdv",
    executor: str = "eager",
    protocol: str = "closed-loop",
    concurrency: int = 4,
    **changes: Any,
) -> Cell:
    """A small cell."""
    small = {"pair": "tiny:tiny", "prompt_tokens": 16, "output_tokens": 16}
    return Cell(
        executor=executor,
        architecture=architecture,
        concurrency=concurrency,
        protocol=protocol,
        **small | changes,
    )


def profile_file(
    pair_name: str = "tinyllama-1.1b:llama-2-7b", executor: str = "eager"
) -> ProfileFile:
    """A whole profile with made-up numbers; 16 ms a stage, as eager stages roughly take."""

    def cost(seconds: float) -> CostFit:
        draws = [[seconds * (1 + 0.01 * i)] for i in range(-2, 3)]
        return CostFit(
            terms=["fixed"],
            weights=[seconds],
            draws=draws,
            noise=[0.98, 1.0, 1.02],
            outliers=0,
            residual_rms=0.01,
        )

    def about(seconds: float) -> Estimate:
        return Estimate(value=seconds, low=0.9 * seconds, high=1.1 * seconds)

    models = pair(pair_name)
    measured = Range(
        batch=(1, 64),
        passes=(1, 4),
        new_tokens=(1, 512),
        context_tokens=(0, 4096),
        chunk_tokens=(1, 512),
    )
    return ProfileFile(
        schema_version=3,
        name="made-up",
        draft=models.draft,
        verifier=models.verifier,
        executor=executor,
        stages={
            stage: StageFit(host=cost(0.014), device=cost(0.016), measured=measured)
            for stage in Stage
        },
        host=HostFit(
            wake_s=about(1e-4),
            lock_wake_s=about(5e-5),
            event_wake_s=about(2e-5),
            poll_overhead_s=about(6e-5),
            gil_speeds=[about(1.0), about(0.55), about(0.36)],
            run_spread=0.01,
        ),
        contention=[],
        ceilings=None,
        provenance=Provenance(
            gpu="no GPU: made up for tests",
            driver="none",
            torch="none",
            transformers="none",
            python="3.11",
            host_cpu="none",
            git_revision="none",
            created="2026-01-01",
            command="none",
            seed=0,
            acceptance="injected",
            measurements="none",
        ),
    )
