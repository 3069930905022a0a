"""Runs explained, averaged, held side by side, and the difference of two in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pdvsim.cell import Cell
from pdvsim.documents.explanation import Gap, World
from pdvsim.errors import InputError
from pdvsim.explain.causes import explain_requests
from pdvsim.explain.run_arrays import Trace, of_record
from pdvsim.explain.threads import Seconds, stream_seconds, thread_seconds
from pdvsim.machine import Replication
from pdvsim.quantities import CAUSES
from pdvsim.statistics import Interval, prediction_interval

MOST_SHARE = 10.0
ROUNDING = 1e-9  # of all movement: less is nothing
SPOKEN = 0.05  # a part of a difference is named from this share of all movement on


@dataclass(frozen=True, slots=True)
class Run:
    """One run, explained: means over the requests that completed after its warm-up.

    Attributes:
        causes: mean seconds of a request by cause; sums to `e2e_s`.
        memos: mean seconds, contained in the causes: drafting and verifying rejected tokens
            (part of launch, GIL wait and device), and waiting for the turn's end after the last
            own stage (part of batch mates).
        measured_s: seconds of the run after its warm-up.
        threads, streams: seconds of the whole run, by stage or cause of idleness.
        extrapolated: where a simulated run left what its calibration measured.
    """

    completed: int
    e2e_s: float
    causes: Mapping[str, float]
    memos: Mapping[str, float]
    measured_s: float
    threads: Mapping[str, Seconds]
    streams: Mapping[str, Seconds]
    extrapolated: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Explained:
    """All runs of one architecture at one load in one world.

    Attributes:
        cell: all that was specified; None where a record does not say.
        overloaded: whether more requests come than it can serve.
    """

    architecture: str
    world: World
    concurrency: int
    runs: Sequence[Run]
    cell: Cell | None = None
    overloaded: bool = False

    @property
    def e2e_s(self) -> Interval:
        return prediction_interval([run.e2e_s for run in self.runs], least=0.0)

    def seconds(self, cause: str) -> Interval:
        """Of a request, by one cause."""
        return prediction_interval([run.causes[cause] for run in self.runs], least=0.0)

    def share(self, cause: str) -> Interval:
        """Of a request's latency."""
        shares = [run.causes[cause] / run.e2e_s for run in self.runs]
        return prediction_interval(shares, least=0.0, most=1.0)

    def memo(self, name: str) -> Interval:
        """Seconds of a request that are counted inside its causes."""
        return prediction_interval([run.memos[name] for run in self.runs], least=0.0)


def explain_run(trace: Trace) -> Run:
    """Explain one run.

    Raises:
        InputError: no request completed after the warm-up.
    """
    found = explain_requests(trace)
    kept = slice(trace.warmup, None)
    e2e = found.e2e_s[kept]
    if not len(e2e):
        raise InputError(
            f"nothing to explain in the run of {trace.config.name}: it ended in its "
            f"warm-up, after {len(found.e2e_s)} of more than {trace.warmup} completions"
        )
    return Run(
        len(e2e),
        float(e2e.mean()),
        dict(zip(CAUSES, found.seconds[kept].mean(axis=0).tolist(), strict=True)),
        {
            "wasted drafts": float(found.wasted_s[kept].mean()),
            "end of turn": float(found.turn_end_s[kept].mean()),
        },
        _measured_s(trace, found.index),
        thread_seconds(trace),
        stream_seconds(trace),
    )


def _measured_s(trace: Trace, completed: NDArray[np.int64]) -> float:
    """From the last completion of the warm-up to the end."""
    if not trace.warmup:
        return trace.end_s
    last = completed[trace.warmup - 1]
    return trace.end_s - float(trace.requests["completed_s"][last])


def explain_simulated(task: Replication) -> Run:
    """Simulate and explain one replication."""
    record = task.run()
    outside = task.calibration.extrapolations(record)
    return replace(explain_run(of_record(record)), extrapolated=outside)


@dataclass(frozen=True, slots=True)
class Difference:
    """What `second` takes longer than `first`, by cause; the parts sum to the whole.

    Runs are paired one by one where there are equally many of both: replication i has the same
    workload and the same machine.
    """

    first: Explained
    second: Explained

    @property
    def whole(self) -> Interval:
        return self._interval(
            [run.e2e_s for run in self.first.runs], [run.e2e_s for run in self.second.runs]
        )

    def part(self, cause: str) -> Interval:
        return self._interval(
            [run.causes[cause] for run in self.first.runs],
            [run.causes[cause] for run in self.second.runs],
        )

    def _interval(self, first: Sequence[float], second: Sequence[float]) -> Interval:
        if len(first) == len(second):
            pairs = zip(first, second, strict=True)
            return prediction_interval([b - a for a, b in pairs])
        return Interval(float(np.mean(second) - np.mean(first)), None, None)

    @property
    def decided(self) -> bool | None:
        """Whether the difference is beyond its interval; None from single runs."""
        low, high = self.whole.low, self.whole.high
        return None if low is None or high is None else low > 0.0 or high < 0.0

    def sentence(self) -> str:
        """What the difference is made of."""
        whole = self.whole
        longer = "longer" if whole.value >= 0.0 else "less"
        relative = abs(whole.value) / self.first.e2e_s.value
        parts = {cause: self.part(cause) for cause in CAUSES}
        moved = sum(abs(part.value) for part in parts.values())
        named = sorted(
            (cause for cause in CAUSES if abs(parts[cause].value) > SPOKEN * moved),
            key=lambda cause: -abs(parts[cause].value),
        )
        pieces = [_spoken(cause, parts[cause], whole.value) for cause in named]
        rest = whole.value - sum(parts[cause].value for cause in named)
        if abs(rest) > ROUNDING * moved:
            pieces.append(f"all else {rest:+.2g} s")
        verdict = {True: "", False: ", which could be chance", None: ""}[self.decided]
        return (
            f"At C = {self.first.concurrency} ({self.first.world}) a request takes "
            f"{abs(whole.value):.3g} s ({relative:.1%}{_range(whole)}) {longer} in "
            f"{self.second.architecture} than in {self.first.architecture}{verdict}: "
            f"{', '.join(pieces) or 'nothing that can be named'}."
        )


def _spoken(cause: str, part: Interval, whole: float) -> str:
    # Parts that all but cancel are no share of what is left.
    shares = abs(part.value) <= MOST_SHARE * abs(whole)
    said = [f"{part.value / whole:+.0%}"] if shares and whole else []
    if part.low is not None and part.high is not None:
        said.append(f"{part.low:+.2g} to {part.high:+.2g} s")
    return f"{cause} {part.value:+.3g} s" + (f" ({'; '.join(said)})" if said else "")


def _range(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return ""
    return f"; {interval.low:+.2g} to {interval.high:+.2g} s"


def differences(cells: Sequence[Explained]) -> list[Difference]:
    """Every pair of architectures that ran in the same world at the same load."""
    return [
        Difference(a, b)
        for a, b in combinations(cells, 2)
        if (a.world, a.concurrency) == (b.world, b.concurrency)
    ]


def gaps(cells: Sequence[Explained]) -> list[Gap]:
    """Predicted less measured share of each cause, in points, where a cell was run in both."""
    found = []
    for a, b in combinations(cells, 2):
        if (a.architecture, a.concurrency) != (b.architecture, b.concurrency):
            continue
        if a.world == b.world:
            continue
        simulated, real = (a, b) if a.world == "simulated" else (b, a)
        points = {
            cause: 100.0 * (simulated.share(cause).value - real.share(cause).value)
            for cause in CAUSES
        }
        worst = max(points, key=lambda cause: abs(points[cause]))
        found.append(
            Gap(
                label=a.architecture,
                concurrency=a.concurrency,
                points=points,
                worst=worst,
                worst_points=points[worst],
            )
        )
    return found
