"""Which architectures a prediction cannot tell apart at its load: they may cross near it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pdvsim.crossover.curve import Pairs
from pdvsim.statistics import Interval
from pdvsim.sweep import CellResult

METRIC = "output_throughput"


@dataclass(frozen=True, slots=True)
class Tie:
    """Two architectures whose ratio of output throughput, second / first, may be 1."""

    first: str
    second: str
    ratio: Interval


def ties(results: Sequence[CellResult]) -> list[Tie]:
    """Neighbours in the order of throughput whose paired runs leave open which is faster.

    It costs nothing: the replications of a sweep are paired already.
    """
    known = [(result, _values(result)) for result in results]
    ranked = sorted(
        ((result, values) for result, values in known if len(values) > 1 and min(values) > 0.0),
        key=lambda pair: -float(np.mean(pair[1])),
    )
    found = []
    for (first, faster), (second, slower) in pairwise(ranked):
        if len(faster) != len(slower):
            continue
        ratio = Pairs(np.array(faster), np.array(slower)).ratio()
        if ratio.low is None or ratio.high is None or ratio.low <= 1.0 <= ratio.high:
            found.append(Tie(first.cell.architecture, second.cell.architecture, ratio))
    return found


def _values(result: CellResult) -> list[float]:
    return [value for run in result.runs if (value := run.metrics[METRIC]) is not None]
