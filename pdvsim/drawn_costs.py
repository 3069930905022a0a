"""Stage costs of one plausible machine, quick to ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from pdvsim.core import Stage
from pdvsim.cost_fit import CostFit, Load
from pdvsim.des.costs import mixed_cost
from pdvsim.errors import ProfileError
from pdvsim.floors import Floor
from pdvsim.profile_file import StageFit, host_load
from pdvsim.strata import Strata
from pdvsim.work import Work

_NOISE_DRAWS = 2048  # taken in turn; drawing them is most of what a machine costs
Known: TypeAlias = tuple[float, float, float, float, float, float, float]
_KINDS = 5  # leading fields of a Work that its costs are not linear in


class DrawnCost:
    """A cost with drawn weights, and draws of its noise."""

    def __init__(self, fit: CostFit, luck: Strata, factor: float, miss: float = 0.0) -> None:
        """A bootstrap draw of the weights, times `factor`, all off by one draw of `miss`."""
        weights = fit.draws[luck.below(len(fit.draws))]
        times = factor * float(np.exp(luck.normal(miss)))
        self.fit, self.weights = fit, [times * weight for weight in weights]
        self.noise: list[float] = luck.rng.choice(np.array(fit.noise), size=_NOISE_DRAWS).tolist()


class _StageCost:
    """What a launch of each kind takes, `known` by the leading fields of its `Work`.

    Of each: the host's seconds; the device's without context, for a token of it, and for a pair of
    a prompt's tokens; the device's least, and for a token of context; and the least of its
    arithmetic, padding included.
    """

    __slots__ = ("_device", "_fit", "_floor", "_host", "known", "next", "noise")

    def __init__(
        self,
        host: DrawnCost,
        device: DrawnCost,
        fit: StageFit,
        floor: Floor,
    ) -> None:
        self._host, self._device, self._fit, self._floor = host, device, fit, floor
        self.noise = list(zip(host.noise, device.noise, strict=True))
        self.known: dict[tuple[float, ...], Known] = {}
        self.next = 0

    def learn(self, work: Work) -> Known:
        bare = work._replace(context_tokens=0, prompt_pairs=0.0)
        load = self._fit.load(bare)

        def device_s(load: Load) -> float:
            return self._device.fit.seconds_by(self._device.weights, load)

        base_s, floor = device_s(load), self._floor
        found = (
            self._host.fit.seconds_by(self._host.weights, host_load(bare)),
            base_s,
            device_s(load._replace(context=1.0)) - base_s,
            device_s(load._replace(pairs=1.0)) - base_s,
            load.passes * floor.pass_s,
            load.passes * floor.context_s,
            load.passes * load.rows * floor.token_s,
        )
        self.known[work[:_KINDS]] = found
        return found


class DrawnCosts:
    """`pdvsim.des.StageCosts` of one plausible machine. Nothing is faster than its floor.

    Args:
        check: the stage that a mixed pass without prompts is.
    """

    def __init__(
        self,
        stages: Mapping[Stage, tuple[DrawnCost, DrawnCost, StageFit, Floor]],
        check: Stage,
    ) -> None:
        self._stages = {stage: _StageCost(*parts) for stage, parts in stages.items()}
        self._check = check

    def cost(self, stage: Stage, work: Work) -> tuple[float, float]:
        """(host seconds, device seconds) of one launch, with its noise.

        Raises:
            ProfileError: the profile knows nothing of the stage.
        """
        if stage is Stage.MIXED and work.prompts == work.batch:
            stage = Stage.PREFILL_VERIFIER  # the same program
        try:
            one = self._stages[stage]
        except KeyError:
            if stage is Stage.MIXED:
                return mixed_cost(self, self._check, work)
            raise ProfileError(
                f"the profile has no costs for stage {stage}; calibrate that stage"
            ) from None
        host_s, device_s, context_s, pair_s, least_s, least_context_s, arithmetic_s = one.known.get(
            work[:_KINDS]
        ) or one.learn(work)
        i = one.next
        one.next = i + 1 if i + 1 < _NOISE_DRAWS else 0
        host_noise, device_noise = one.noise[i]
        context = work[6]
        device_s = (device_s + context_s * context + pair_s * work[7]) * device_noise
        least_s += least_context_s * context
        if device_s < least_s:
            device_s = least_s
        if device_s < arithmetic_s:
            device_s = arithmetic_s
        return host_s * host_noise, device_s
