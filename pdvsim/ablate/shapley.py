"""What a difference is made of: mechanisms switched off, singly and in every combination.

The game: v(S) = a metric (or its difference between two cells) when the mechanisms S are switched
off, everything else the same. On the scale "ratio" it is taken in logarithms, which make ratios
add up: a mechanism's part is a factor, and the factors multiply to the whole. A mechanism's part
is its Shapley value, the mean of what switching it off changes over all orders of switching off
(Shapley 1953); parts sum to v(nothing off) - v(all off), and v(all off) is what is left:
everything else.

Metrics are averaged over replications before the logarithm. Replications share their random
numbers between all combinations. Intervals are 95 % prediction intervals for one run, as
everywhere: value +- t s sqrt(1 + 1/n), with s from the jackknife over the n replications.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import factorial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pdvsim.ablate.mechanisms import Off, Setting, effective, mechanisms, run
from pdvsim.errors import InputError
from pdvsim.pool import run_all
from pdvsim.statistics import Interval

MAX_COMBINATIONS = 4096
SCALES = ("ratio", "difference")
Scale = Literal["ratio", "difference"]
NO_EFFECT = 5e-4  # a part smaller than this is not worth a word


@dataclass(frozen=True, eq=False)
class Subject:
    """One cell: how to make the setting of each replication."""

    name: str
    settings: Sequence[Callable[[], Setting]]
    first: Setting = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", self.settings[0]())


@dataclass(frozen=True, slots=True)
class Part:
    """What one mechanism is worth, in logarithms on the scale "ratio".

    Attributes:
        alone: change of the whole when it alone is switched off, v(nothing off) - v(it off).
        shapley: its part of the whole.
        share: part / whole.
    """

    name: str
    alone: Interval
    shapley: Interval
    share: Interval


@dataclass(frozen=True, slots=True)
class Ablation:
    """Parts that sum to `whole`; the last one is everything else."""

    metric: str
    scale: Scale
    first: str | None
    second: str
    whole: Interval
    parts: tuple[Part, ...]
    replications: int
    runs: int

    @property
    def decided(self) -> bool:
        """Whether the whole is beyond its interval."""
        low, high = self.whole.low, self.whole.high
        return low is not None and high is not None and (low > 0.0 or high < 0.0)

    def told(self, interval: Interval) -> Interval:
        """As the scale tells it: a factor, or an amount in the metric's unit."""
        return factor(interval) if self.scale == "ratio" else interval

    def matters(self, part: Part) -> bool:
        """Whether it is worth a word."""
        unit = 1.0 if self.scale == "ratio" else abs(self.whole.value)
        return max(abs(part.shapley.value), abs(part.alone.value)) >= NO_EFFECT * unit

    def sentence(self) -> str:
        """What the whole is made of."""
        against = (
            f"over that of {self.first}"
            if self.first and self.scale == "ratio"
            else f"less that of {self.first}"
            if self.first
            else "with all its mechanisms"
        )
        parts = sorted(filter(self.matters, self.parts), key=lambda part: -abs(part.shapley.value))
        pieces = [
            f"{part.name} {self._amount(part.shapley)}"
            + (f" ({part.share.value:.0%}{_percent(part.share)})" if self.decided else "")
            for part in parts
        ]
        doubt = "" if self.decided else ", which its interval does not tell from none"
        if self.whole.low is None:
            doubt = ", from too few runs for an interval"
        return (
            f"{self.metric} of {self.second} {against}: {self._amount(self.whole)}{doubt}; "
            f"made of {', '.join(pieces) or 'nothing'}."
        )

    def _amount(self, interval: Interval) -> str:
        shown = self.told(interval)
        sign, style = ("x ", ".3f") if self.scale == "ratio" else ("", "+.3g")
        if shown.low is None or shown.high is None:
            return f"{sign}{shown.value:{style}}"
        return f"{sign}{shown.value:{style}} [{shown.low:{style}} to {shown.high:{style}}]"


def _percent(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return ""
    return f", {interval.low:.0%} to {interval.high:.0%}"


def factor(part: Interval) -> Interval:
    """A part as the factor that it contributes."""
    low, high = (None if v is None else float(np.exp(v)) for v in (part.low, part.high))
    return Interval(float(np.exp(part.value)), low, high)


def players(subjects: Sequence[Subject], chosen: Sequence[str] | None) -> list[str]:
    """The chosen mechanisms that can change anything, in their order; None chooses all.

    Raises:
        InputError: an unknown mechanism, none left, or too many to combine.
    """
    known = mechanisms([subject.first for subject in subjects])
    unknown = [name for name in chosen or () if name not in known]
    if unknown:
        raise InputError(f"unknown mechanism {unknown[0]!r}; known are {', '.join(known)}")
    names = [name for name in known if chosen is None or name in chosen]
    everything = frozenset(names)
    found = [
        name
        for name in names
        if any(
            name in effective(subject.first, off)
            for subject in subjects
            for off in (frozenset({name}), everything)
        )
    ]
    if not found:
        raise InputError("none of the mechanisms plays a part here; there is nothing to ablate")
    if 2 ** len(found) > MAX_COMBINATIONS:
        raise InputError(f"{len(found)} mechanisms are too many to combine; choose fewer")
    return found


def ablate(
    subjects: Sequence[Subject],
    metric: str,
    mechanisms: Sequence[str] | None = None,
    scale: Scale = "ratio",
    workers: int | None = None,
    on_run: Callable[[int, int], None] | None = None,
) -> Ablation:
    """Take apart a metric of one subject, or the second's over the first's.

    Args:
        mechanisms: which to switch off; None for all that play a part.
        scale: of `SCALES`; "difference" also where a metric can be 0.

    Raises:
        InputError: a metric is unknown, or not positive in some combination on the scale "ratio".
    """
    names = players(subjects, mechanisms)
    sets = [
        frozenset(chosen) for size in range(len(names) + 1) for chosen in combinations(names, size)
    ]
    runs = {
        (i, effective(subject.first, off)): None
        for i, subject in enumerate(subjects)
        for off in sets
    }
    tasks = [(make, off, metric) for i, off in runs for make in subjects[i].settings]
    values = np.array(run_all(run, tasks, workers, on_run)).reshape(len(runs), -1)
    by_run: dict[tuple[int, Off], NDArray[np.float64]] = dict(zip(runs, values, strict=True))
    samples = np.array(
        [
            [by_run[i, effective(subject.first, off)] for off in sets]
            for i, subject in enumerate(subjects)
        ]
    )  # (subjects, sets, replications)
    whole, parts = _parts(names, sets, samples, np.log if scale == "ratio" else np.positive)
    return Ablation(
        metric,
        scale,
        subjects[0].name if len(subjects) > 1 else None,
        subjects[-1].name,
        whole,
        parts,
        samples.shape[2],
        len(tasks),
    )


def _parts(
    names: Sequence[str],
    sets: Sequence[Off],
    samples: NDArray[np.float64],
    scaled: Callable[[Any], Any],
) -> tuple[Interval, tuple[Part, ...]]:
    """The whole, and each mechanism's part of it; then everything else."""
    weights = shapley_weights(names, sets)
    index = {off: i for i, off in enumerate(sets)}
    single = [index[frozenset({name})] for name in names]

    def game(chosen: NDArray[np.float64]) -> NDArray[np.float64]:
        """Parts, changes by each alone, and the whole, from some of the replications."""
        means = np.nanmean(chosen, axis=2)
        if not np.all(means > 0.0) and scaled is np.log:
            raise InputError(
                "in some combination no request completed, so there is no ratio; "
                'take the scale "difference"'
            )
        v = scaled(means[-1]) - (scaled(means[0]) if len(means) > 1 else 0.0)
        rest = v[-1] if len(means) > 1 else 0.0
        whole = v[0] if len(means) > 1 else v[0] - v[-1]
        return np.concatenate((weights @ v, [rest], v[0] - v[single], [rest], [whole]))

    count = samples.shape[2]
    value = game(samples)
    without = [game(np.delete(samples, i, axis=2)) for i in range(count)] if count > 1 else []
    parts, alone, whole = _split(value), [_split(one) for one in without], value[-1]
    n = len(names) + 1
    every = [
        Part(
            name,
            jackknife(parts[1][i], [one[1][i] for one in alone]),
            jackknife(parts[0][i], [one[0][i] for one in alone]),
            jackknife(parts[2][i], [one[2][i] for one in alone]),
        )
        for i, name in enumerate([*names, "everything else"][:n])
    ]
    return jackknife(whole, [one[-1] for one in without]), tuple(every)


def _split(game: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """(parts, changes alone, shares) of a game's values."""
    half = len(game) // 2
    whole = game[-1]
    shares = game[:half] / whole if whole else np.full(half, np.nan)
    return game[:half], game[half:-1], shares


def shapley_weights(names: Sequence[str], sets: Sequence[Off]) -> NDArray[np.float64]:
    """W with W @ v = Shapley values, for v over `sets` of what is switched off.

    phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! (v(S) - v(S + i)).
    """
    n = len(names)
    weights = np.zeros((n, len(sets)))
    for column, off in enumerate(sets):
        for row, name in enumerate(names):
            before = len(off) - (name in off)
            weight = factorial(before) * factorial(n - before - 1) / factorial(n)
            weights[row, column] = -weight if name in off else weight
    return weights


def jackknife(value: float, without: Sequence[float]) -> Interval:
    """95 % interval of one further run, from the leave-one-out values of an estimate.

    The jackknife's standard error of the estimate is s / sqrt(n), so one run adds s: the half
    width is t s sqrt(1 + 1/n) = t error sqrt(n + 1), t with n - 1 degrees of freedom.
    """
    n = len(without)
    if n < 2 or not np.isfinite(value):
        return Interval(float(value), None, None)
    from scipy.special import stdtrit

    error = float(np.sqrt((n - 1) / n * np.sum((np.asarray(without) - np.mean(without)) ** 2)))
    half = float(stdtrit(n - 1, 0.975)) * error * float(np.sqrt(n + 1))
    return Interval(float(value), float(value) - half, float(value) + half)
