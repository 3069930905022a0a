"""Documents of cells with metrics: predictions, real runs, and the two side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from pdvsim.core import Stage
from pdvsim.documents.base import (
    Calibration,
    Document,
    Finite,
    Metrics,
    Model,
    Reasons,
    RecordedCell,
    RunLength,
    Table,
)
from pdvsim.protocols import protocols
from pdvsim.quantities import LATER, QUANTILES, QUANTITIES, Better, columns, told_by
from pdvsim.statistics import Interval


class StageSeconds(Model):
    """Where the time of one stage went, seconds summed over a run, mean over the runs.

    Attributes:
        count: executions.
        lock: wanted to launch, but another thread held the model.
        launch: host time, as it is alone.
        gil: host time beyond that.
        device: from the end of the launch to the end of the kernels.
        wake: ended, but the thread did not know yet.
    """

    count: Finite
    lock: Finite
    launch: Finite
    gil: Finite
    device: Finite
    wake: Finite


class Execution(Model):
    """One execution of a stage, for drawing; seconds of the run."""

    stage: Stage
    lane: str
    stream: str
    batch: int
    launched_s: Finite
    launch_end_s: Finite
    started_s: Finite
    ended_s: Finite
    settled_s: Finite


class Overload(Model):
    """More came than could be served: a queue that grows without end, means of the runs.

    Attributes:
        growth_per_s: requests by which the queue grows in a second.
        served_per_s: requests completed in a second meanwhile: the capacity.
        runs: in which that is certain.
    """

    growth_per_s: Finite
    served_per_s: Finite
    runs: int = Field(ge=1)


class Row(Model):
    """One cell, and what it achieved.

    Attributes:
        label: what tables and charts call it: the architecture with its parameters, and the
            executor or pair where there are several. No two of a document share label and load.
        cell: all that was specified; null where that was not yet recorded.
        metrics: by name; those of the published benchmark's own protocol only under that.
        acceptance_per_position: share of the rounds that drafted which kept draft i, i = 0, 1, ...
        reasons: why a metric is null, or rests on fewer runs than there were.
        extrapolated: what lay outside the calibrated range, a sentence each.
        timeline: stage executions of the first run after its warm-up.
        impossible: why no engine can run it, a sentence each.
        overload: of an open loop, in some run; null where in none more came than was served.
    """

    label: str
    concurrency: int = Field(ge=1)
    cell: RecordedCell | None
    length: RunLength
    metrics: Metrics
    acceptance_per_position: tuple[Interval, ...]
    reasons: Reasons
    extrapolated: tuple[str, ...]
    stages: dict[Stage, StageSeconds]
    timeline: tuple[Execution, ...]
    impossible: tuple[str, ...] = ()
    overload: Overload | None = None

    @field_validator("metrics", mode="after")
    @classmethod
    def _whole(cls, metrics: dict[str, Interval | None]) -> dict[str, Interval | None]:
        names = told_by(metrics)
        missing = [name for name in names if name not in {*metrics, *LATER}]
        if missing:
            raise ValueError(f"{missing[0]!r} is missing")
        return {name: metrics.get(name) for name in names}

    @property
    def overloaded(self) -> bool:
        """Whether most runs were: then arrivals at a steady rate have no latency."""
        return self.overload is not None and 2 * self.overload.runs >= self.length.runs

    @model_validator(mode="after")
    def _one_load(self) -> Row:
        if self.cell is not None and self.cell.concurrency != self.concurrency:
            raise ValueError(
                f"concurrency is {self.concurrency}, but {self.cell.concurrency} in its cell"
            )
        return self

    def metric(self, name: str) -> Interval | None:
        """A metric; None where the runs could not say, or nobody asked."""
        return self.metrics.get(name)

    def __getattr__(self, name: str) -> Any:
        if name in QUANTITIES:
            return self.metrics.get(name)
        return super().__getattr__(name)  # type: ignore[misc]


Standing = Literal["certain", "alike", "open", "unknown"]


class Tie(Model):
    """Two neighbours of which neither is certainly better by enough to matter.

    Attributes:
        ratio: the second's metric over the first's.
        alike: the ratio is certainly so close to 1 that it does not matter; else it is open.
        share: of machines on which the first is better; null where all runs are of one machine,
            or that was not yet recorded.
    """

    first: str
    second: str
    ratio: Interval | None
    alike: bool
    share: Finite | None = None


class Rank(Model):
    """Who is best at one load, by one metric.

    Attributes:
        order: labels, the best first; those without a value are left out.
        first_place: whether the first is certainly better than the second, in a prediction on
            at least 97.5 % of machines; `unknown` where there is no second, or single runs say
            nothing of certainty.
        ties: neighbours in the order of which either may be better.
        sentence: all that in words.
        decided_by: limits and mechanisms without which another would be first, a sentence each.
    """

    concurrency: int
    metric: str
    better: Better
    order: tuple[str, ...]
    first_place: Standing
    ties: tuple[Tie, ...]
    sentence: str
    decided_by: tuple[str, ...] = ()


class Formula(Model):
    """A closed form beside the simulated value.

    Attributes:
        error: formula / simulated - 1.
        why: what the formula leaves out.
    """

    label: str
    formula: str
    quantity: str
    value: Finite | None
    simulated: Interval | None
    error: Finite | None
    why: str


class CellsDocument(Document):
    """What these have in common.

    Attributes:
        ranks: one for each load.
    """

    cells: tuple[Row, ...]
    ranks: tuple[Rank, ...]

    def __getitem__(self, label: str) -> Row:
        """The cell of that label, which must be at one load only."""
        from pdvsim.errors import InputError

        found = [row for row in self.cells if row.label == label]
        if len(found) != 1:
            known = ", ".join(dict.fromkeys(row.label for row in self.cells))
            many = "is there at several loads" if found else "is not there"
            raise InputError(f"{label!r} {many}; labels are {known}")
        return found[0]

    @property
    def loads(self) -> list[int]:
        """Concurrencies, ascending."""
        return sorted({row.concurrency for row in self.cells})

    def rows(self) -> Iterator[dict[str, Any]]:
        for row in self.cells:
            for name, found in row.metrics.items():
                yield frame_row(row, name, found)

    def tables(self) -> Iterator[Table]:
        yield self.figures()
        if any(row.cell and protocols()[row.cell.protocol].open_loop for row in self.cells):
            yield self.percentiles()

    def percentiles(self) -> Table:
        """How long requests wait and take: what an open loop is asked for."""
        from pdvsim.output import number

        several = len(self.loads) > 1
        lines = [
            (
                *(((str(row.concurrency), ""),) if several else ()),
                (f"{row.label}, {name}", ""),
                *((number(one.value / 1e3 if one else None), "") for one in found),
            )
            for row in self.cells
            for name, of in (("TTFT", "ttft"), ("E2E", "e2el"))
            if any(found := [row.metric(f"{statistic}_{of}_ms") for statistic in QUANTILES])
        ]
        head = (*(("C",) if several else ()), "architecture", "p50", "p90", "p95", "p99")
        return Table("Percentiles, s", head, lines)

    def figures(self) -> Table:
        """A line per cell, a column per metric that any of them knows."""
        shown = columns({n for row in self.cells for n in row.metrics if row.metric(n)})
        several = len(self.loads) > 1
        head = ("C",) if several else ()
        lines = [
            (
                *(((str(row.concurrency), ""),) if several else ()),
                (row.label, ""),
                *(_figure(row, n) for n in shown),
            )
            for row in self.cells
        ]
        return Table("", (*head, "architecture", *(QUANTITIES[n].title for n in shown)), lines)


def _figure(row: Row, name: str) -> tuple[str, str]:
    """What a table shows of a metric."""
    quantity = QUANTITIES[name]
    value, ends = told(row.metric(name), quantity.scale)
    return value, "" if quantity.bare else ends


def frame_row(row: Row, name: str, found: Interval | None) -> dict[str, Any]:
    return {
        "architecture": row.label,
        "concurrency": row.concurrency,
        "metric": name,
        "value": found and found.value,
        "low": found and found.low,
        "high": found and found.high,
        "unit": QUANTITIES[name].unit,
    }


def told(found: Interval | None, scale: float = 1.0) -> tuple[str, str]:
    """A value, and its interval or that there is none."""
    from pdvsim.output import number

    if found is None:
        return "n/a", ""
    value = number(scale * found.value)
    if found.low is None or found.high is None:
        return value, "no interval"
    return value, f"{number(scale * found.low)} to {number(scale * found.high)}"


class Prediction(CellsDocument):
    """`pdvsim predict`: every architecture at a load, from a profile."""

    NAME: ClassVar[str] = "prediction"

    kind: Literal["predict"]
    formulas: tuple[Formula, ...]
    profile: Calibration

    def tables(self) -> Iterator[Table]:
        yield from super().tables()
        if self.formulas:
            yield self.closed_forms()

    def closed_forms(self) -> Table:
        """Each formula beside the simulated value."""
        from pdvsim.output import number

        lines = [
            (
                (line.formula, line.quantity),
                (line.label, ""),
                (number(line.value), ""),
                told(line.simulated),
                ("n/a" if line.error is None else f"{line.error:+.0%}", ""),
                (line.why, ""),
            )
            for line in self.formulas
        ]
        head = ("formula", "of", "formula says", "simulated", "off by", "because")
        return Table("Closed forms", head, lines)


def of_all(
    found: dict[str, Any], names: tuple[str, ...], needed: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """`found` under `names`, null where it is not; those `needed` (None: all) are there.

    Raises:
        ValueError: names the first that is unknown or missing.
    """
    unknown = [name for name in found if name not in names]
    missing = [name for name in needed or names if name not in found]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is unknown")
    if missing:
        raise ValueError(f"{missing[0]!r} is missing")
    return {name: found.get(name) for name in names}


def one_of(names: tuple[str, ...]) -> Callable[[str], str]:
    """A check that a value is one of `names`."""

    def check(value: str) -> str:
        if value not in names:
            raise ValueError(f"{value!r} is unknown; known are {', '.join(names)}")
        return value

    return check
