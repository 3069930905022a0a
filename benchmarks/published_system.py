"""Stage times near the published ones: where helping processes can import them from."""

from __future__ import annotations

import numpy as np

from pdvsim.core import Stage
from pdvsim.des import HostCosts
from pdvsim.machine import Machine
from pdvsim.records import RunRecord


class PublishedSystem:
    """Constant stage times near the published ones, with 5 % between runs; `Calibration`."""

    def draw(self, seed: np.random.SeedSequence) -> Machine:
        factor = float(np.random.default_rng(seed).normal(1.0, 0.05))
        host = HostCosts(wake_s=50e-6, gil_speeds=(1.0, 0.69, 0.43))
        return Machine(Constant(factor), host, {})

    def extrapolations(self, record: RunRecord) -> list[str]:
        return []

    def impossible(self, record: RunRecord) -> list[str]:
        return []


class Constant:
    def __init__(self, factor: float) -> None:
        self._factor = factor

    def cost(self, stage: Stage, *_: int) -> tuple[float, float]:
        seconds = {Stage.DRAFT: 0.051, Stage.PREFILL_DRAFT: 0.02, Stage.PREFILL_VERIFIER: 0.025}
        host_s = seconds.get(stage, 0.019) * self._factor
        return host_s, host_s
