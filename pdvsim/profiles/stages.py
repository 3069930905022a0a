"""Launches at which profiles are looked at, and what a profile says of them with its doubt."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, sqrt

import numpy as np

from pdvsim.core import PREFILLS, Stage
from pdvsim.cost_fit import CostFit, Load
from pdvsim.profile import Profile
from pdvsim.profile_file import Range, host_load
from pdvsim.statistics import Interval
from pdvsim.work import Work

BATCHES = (1, 8, 32, 128)
ROUND = 5  # new tokens of a round that is checked: four drafts and what follows them
TOKENS = 256  # of a prompt, and of a context


def within(ends: tuple[int, int], wanted: int) -> int:
    """The nearest of a measured range."""
    return min(max(wanted, ends[0]), ends[1])


def launch(stage: Stage, measured: Range, batch: int) -> Work:
    """A launch of `stage` for so many requests, as usual as the measured range allows."""
    context = batch * within(measured.context_tokens, TOKENS)
    if stage in PREFILLS:
        each = within(measured.new_tokens, TOKENS)
        pairs = batch * each * each / 2.0
        return Work(1, batch, each, batch * each, batch, batch * each, batch * each, pairs)
    if stage is Stage.DRAFT:
        passes = within(measured.passes, ROUND - 1)
        return Work(passes, batch, 1, 0, 0, passes * batch, context, 0.0)
    each = within(measured.new_tokens, 1 if stage is Stage.DECODE else ROUND)
    return Work(1, batch, each, 0, 0, batch * each, context, 0.0)


def batches(ends: tuple[int, int]) -> list[int]:
    """Those of BATCHES that were measured, or the largest one that was."""
    return [size for size in BATCHES if ends[0] <= size <= ends[1]] or [ends[1]]


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of a launch, with the 95 % interval of what the profile leaves open about them."""

    host: Interval
    device: Interval
    floor_s: float


def cost(profile: Profile, stage: Stage, work: Work) -> Cost:
    """What `profile` says of a launch."""
    fit, floor_s = profile.file.stages[stage], profile.file.floor(stage).seconds(work)
    return Cost(
        _interval(fit.host, host_load(work)), _interval(fit.device, fit.load(work)), floor_s
    )


def log_spread(fit: CostFit, load: Load) -> float:
    """Standard deviation of the logarithm of a cost: bootstrap, and what the fit misses."""
    draws = np.array([fit.seconds_by(weights, load) for weights in fit.draws])
    known = draws[draws > 0.0]
    bootstrap = float(np.log(known).std()) if len(known) else 0.0
    return sqrt(bootstrap**2 + fit.missed**2)


def _interval(fit: CostFit, load: Load) -> Interval:
    value, half = fit.seconds(load), 1.96 * log_spread(fit, load)
    return Interval(value, value * exp(-half), value * exp(half))
