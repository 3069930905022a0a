"""Two profiles stage by stage: where they certainly differ, and by how much."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Literal

from pdvsim.core import Stage
from pdvsim.cost_fit import CostFit, Load
from pdvsim.profile import Profile
from pdvsim.profile_file import Range, host_load
from pdvsim.profiles.stages import batches, launch, log_spread
from pdvsim.statistics import Interval

Part = Literal["device", "host"]
LEAST_S = 1e-9  # of a cost, so that a ratio exists where a fit says 0


@dataclass(frozen=True, slots=True)
class Difference:
    """One launch under both.

    Attributes:
        first_s, second_s: seconds.
        ratio: second / first, with the 95 % interval of what both leave open.
    """

    stage: Stage
    part: Part
    batch: int
    first_s: float
    second_s: float
    ratio: Interval

    @property
    def certain(self) -> bool:
        """Whether the ratio's interval leaves 1 out."""
        assert self.ratio.low is not None and self.ratio.high is not None
        return not self.ratio.low <= 1.0 <= self.ratio.high


def common(first: Range, second: Range) -> Range | None:
    """What both measured; None if that is nothing."""
    ends = {}
    for name in ("batch", "passes", "new_tokens", "context_tokens"):
        one, other = getattr(first, name), getattr(second, name)
        ends[name] = max(one[0], other[0]), min(one[1], other[1])
        if ends[name][0] > ends[name][1]:
            return None
    return Range(**ends)


def differences(first: Profile, second: Profile) -> Iterator[Difference]:
    """Of stages that both have, at launches that both measured."""
    for stage, mine in first.file.stages.items():
        theirs = second.file.stages.get(stage)
        measured = None if theirs is None else common(mine.measured, theirs.measured)
        if theirs is None or measured is None or stage is Stage.MIXED:
            continue
        for batch in batches(measured.batch):
            work = launch(stage, measured, batch)
            sides = (mine.device, mine.load(work)), (theirs.device, theirs.load(work))
            yield _difference(stage, "device", batch, *sides)
            load = host_load(work)
            yield _difference(stage, "host", batch, (mine.host, load), (theirs.host, load))


def _difference(
    stage: Stage, part: Part, batch: int, first: tuple[CostFit, Load], second: tuple[CostFit, Load]
) -> Difference:
    a, b = (max(fit.seconds(load), LEAST_S) for fit, load in (first, second))
    half = 1.96 * sqrt(sum(log_spread(fit, load) ** 2 for fit, load in (first, second)))
    ratio = Interval(b / a, exp(log(b / a) - half), exp(log(b / a) + half))
    return Difference(stage, part, batch, a, b, ratio)


def apart(first: Profile, second: Profile) -> list[str]:
    """What makes the two hard to compare, a sentence each."""
    said = []
    if difference := first.pair.difference(second.pair):
        said.append(f"They are of different pairs: {difference}.")
    if first.file.executor != second.file.executor:
        said.append(
            f"They are of different executors: {first.file.executor} and {second.file.executor}."
        )
    mine, theirs = set(first.file.stages), set(second.file.stages)
    for name, extra in ((first.name, mine - theirs), (second.name, theirs - mine)):
        if extra:
            said.append(f"Only {name} has costs of {', '.join(sorted(extra))}.")
    return said
