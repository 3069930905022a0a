"""Documents of the questions behind the numbers: why, where, and of what it is made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from pdvsim.documents.base import (
    Calibration,
    Document,
    Finite,
    Model,
    RecordedCell,
    RunLength,
    Table,
)
from pdvsim.documents.cells import of_all, one_of, told
from pdvsim.quantities import CAUSES, MEMOS, Better, unit_of
from pdvsim.statistics import Interval

World = Literal["simulated", "real"]


class Cause(Model):
    """What one cause takes of a request: seconds, and share of its latency."""

    seconds: Interval
    share: Interval


class Budgeted(Model):
    """One thing that a thread or stream spent time on: a stage, or a cause of idleness."""

    what: str
    seconds: Finite


class Budget(Model):
    """All seconds of a thread or stream in the first run."""

    name: str
    spent: tuple[Budgeted, ...]


class ExplainedRow(Model):
    """One cell in one world, its latency split by cause; the causes sum to the latency.

    Attributes:
        completed: requests over all runs.
        e2e_s: mean latency of a completed request.
        memos: seconds that are contained in causes.
    """

    label: str
    concurrency: int
    world: World
    cell: RecordedCell | None
    length: RunLength | None
    replications: int
    completed: int
    e2e_s: Interval
    causes: dict[str, Cause]
    memos: dict[str, Interval]
    threads: tuple[Budget, ...]
    streams: tuple[Budget, ...]

    @field_validator("causes")
    @classmethod
    def _causes(cls, found: dict[str, Any]) -> dict[str, Any]:
        return of_all(found, CAUSES)

    @field_validator("memos")
    @classmethod
    def _memos(cls, found: dict[str, Any]) -> dict[str, Any]:
        return of_all(found, MEMOS)


class Difference(Model):
    """What `second` takes longer than `first`, by cause; the parts sum to the whole.

    Attributes:
        decided: whether the whole is beyond its interval; null from single runs.
    """

    first: str
    second: str
    world: World
    concurrency: int
    whole_s: Interval
    decided: bool | None
    parts_s: dict[str, Interval]
    sentence: str

    @field_validator("parts_s")
    @classmethod
    def _causes(cls, found: dict[str, Any]) -> dict[str, Any]:
        return of_all(found, CAUSES)


class Gap(Model):
    """Predicted less measured share of each cause, in points, of a cell that ran in both worlds."""

    label: str
    concurrency: int
    points: dict[str, Finite]
    worst: str
    worst_points: Finite

    @field_validator("points")
    @classmethod
    def _causes(cls, found: dict[str, Any]) -> dict[str, Any]:
        return of_all(found, CAUSES)


class LargestGap(Model):
    """The cell in which a cause is predicted worst, of those where it is notable."""

    cause: Annotated[str, AfterValidator(one_of(CAUSES))]
    cells: int
    within_5_points: int
    largest_points: Finite
    label: str
    concurrency: int


class Explanation(Document):
    """`pdvsim explain`: latency by cause."""

    NAME: ClassVar[str] = "explanation"

    kind: Literal["explain"]
    seed: int
    replications: int
    cells: tuple[ExplainedRow, ...]
    differences: tuple[Difference, ...]
    predicted_less_measured: tuple[Gap, ...]
    largest_gaps: tuple[LargestGap, ...]
    profile: Calibration | None

    def said(self) -> Iterator[str]:
        """Also the differences from the first architecture, and how far predictions are off."""
        yield from super().said()
        first = self.cells[0].label if self.cells else ""
        yield from (found.sentence for found in self.differences if found.first == first)
        for gap in self.predicted_less_measured:
            yield (
                f"Predicted less measured, {gap.label} at C = {gap.concurrency}: at most "
                f"{abs(gap.worst_points):.1f} points of share ({gap.worst})."
            )

    def rows(self) -> Iterator[dict[str, Any]]:
        for row in self.cells:
            parts = {"E2E latency": row.e2e_s, **{n: c.seconds for n, c in row.causes.items()}}
            for name, found in parts.items():
                yield {
                    "architecture": row.label,
                    "concurrency": row.concurrency,
                    "world": row.world,
                    "metric": name,
                    "value": found.value,
                    "low": found.low,
                    "high": found.high,
                    "unit": "s",
                }

    def tables(self) -> Iterator[Table]:
        for at in sorted({row.concurrency for row in self.cells}):
            group = [row for row in self.cells if row.concurrency == at]
            shown = [n for n in CAUSES if any(r.causes[n].share.value >= 5e-4 for r in group)]
            lines = [((name, ""), *(_cause(row, name) for row in group)) for name in shown]
            lines.append((("sum", ""), *(told(row.e2e_s) for row in group)))
            lines += [
                ((f"of it, {memo}", ""), *(told(row.memos[memo]) for row in group))
                for memo in MEMOS
            ]
            title = f"C = {at}: mean E2E latency of completed requests, seconds"
            yield Table(title, ("cause", *(f"{r.label}, {r.world}" for r in group)), lines)


def _cause(row: ExplainedRow, name: str) -> tuple[str, str]:
    value, ends = told(row.causes[name].seconds)
    return f"{value}  {100 * row.causes[name].share.value:4.1f} %", ends


class Axis(Model):
    """What is varied.

    Attributes:
        logarithmic: drawn, fitted and spaced by its logarithm.
        whole: only whole numbers exist.
    """

    name: str
    logarithmic: bool
    whole: bool


Answer = Literal["first", "second", "alike", "open", "unknown"]


class Point(Model):
    """The two at one value of the axis.

    Attributes:
        ratio: second / first; null where the runs could not say.
        first, second: means of the metric.
        answer: who is certainly better; `alike` if certainly neither by enough to matter, `open`
            if the interval includes 1, `unknown` if there is no ratio or no interval.
        pairs_of_runs: spent here.
    """

    at: Finite
    ratio: Interval | None
    first: Finite | None
    second: Finite | None
    answer: Answer
    pairs_of_runs: int


class Crossing(Model):
    """Where the ratio is 1.

    Attributes:
        better: who is, from here on.
        places: values of the axis that its interval rests on.
    """

    at: Interval
    ratio_rises: bool
    better: Literal["first", "second"]
    pairs_of_runs: int
    places: tuple[Finite, ...]


class Valley(Model):
    """A stretch on which one side is certainly worse."""

    worse: Literal["first", "second"]
    start: Finite
    end: Finite
    deepest: Finite
    ratio: Interval


class MapPoint(Model):
    """The ratio at a pair of values; `at` is that of the second axis."""

    at: Finite
    ratio: Interval | None


class MapRow(Model):
    """One value of the first axis: the ratio over the second, and where it is 1."""

    at: Finite
    points: tuple[MapPoint, ...]
    break_even: tuple[Crossing, ...]


class Map(Model):
    """The ratio over two axes."""

    axis: Axis
    rows: tuple[MapRow, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _rectangular(self) -> Map:
        if len({tuple(point.at for point in row.points) for row in self.rows}) > 1:
            raise ValueError("its rows do not have the same points")
        return self


class Side(Model):
    """One of the two; the axis varies its cell."""

    label: str
    cell: RecordedCell


class Crossover(Document):
    """`pdvsim crossover`: where one configuration overtakes another.

    Attributes:
        pairs_of_runs: simulated in all, without the map's.
        sentences: crossings, valleys and what stays open.
    """

    NAME: ClassVar[str] = "crossover"

    kind: Literal["crossover"]
    first: Side
    second: Side
    axis: Axis
    metric: str
    better: Better
    length: RunLength | None
    points: tuple[Point, ...]
    crossings: tuple[Crossing, ...]
    valleys: tuple[Valley, ...]
    pairs_of_runs: int
    sentences: tuple[str, ...]
    map: Map | None
    profile: Calibration

    def said(self) -> Iterator[str]:
        """Also valleys, and what stays open."""
        yield from super().said()
        yield from self.sentences

    def name(self, side: str) -> str:
        """The label of `first` or `second`; other answers as they are."""
        return {"first": self.first.label, "second": self.second.label}.get(side, side)

    def rows(self) -> Iterator[dict[str, Any]]:
        unit = unit_of(self.metric)
        for point in self.points:
            ratio = point.ratio
            yield {
                self.axis.name: point.at,
                "metric": f"{self.second.label} / {self.first.label}",
                "value": ratio and ratio.value,
                "low": ratio and ratio.low,
                "high": ratio and ratio.high,
                "unit": "",
            }
            for label, value in (
                (self.first.label, point.first),
                (self.second.label, point.second),
            ):
                yield {
                    self.axis.name: point.at,
                    "metric": f"{self.metric} of {label}",
                    "value": value,
                    "low": None,
                    "high": None,
                    "unit": unit,
                }

    def tables(self) -> Iterator[Table]:
        from pdvsim.output import number

        first, second = self.first.label, self.second.label
        head = (self.axis.name, first, second, f"{second} / {first}", "better", "runs")
        lines = [
            (
                (f"{point.at:.4g}", ""),
                (number(point.first), ""),
                (number(point.second), ""),
                _ratio(point.ratio),
                (self.name(point.answer), ""),
                (str(point.pairs_of_runs), ""),
            )
            for point in self.points
        ]
        yield Table("", head, lines)
        if self.map is not None:
            yield self._map(self.map)

    def _map(self, found: Map) -> Table:
        from pdvsim.output import number

        head = (self.axis.name, *(f"{p.at:.4g}" for p in found.rows[0].points), "break-even")
        lines = [
            (
                (f"{row.at:.4g}", ""),
                *((number(p.ratio.value if p.ratio else None), "") for p in row.points),
                (", ".join(" (".join(told(e.at)) + ")" for e in row.break_even) or "none", ""),
            )
            for row in found.rows
        ]
        title = f"{self.second.label} / {self.first.label} over {found.axis.name}"
        return Table(title, head, lines)


def _ratio(found: Interval | None) -> tuple[str, str]:
    # Ratios are often so close to 1 that three digits would hide on which side.
    if found is None:
        return "n/a", ""
    if found.low is None or found.high is None:
        return f"{found.value:.4f}", "no interval"
    return f"{found.value:.4f}", f"{found.low:.4f} to {found.high:.4f}"


class Part(Model):
    """What one mechanism is worth: a factor, or an amount.

    Attributes:
        part: its Shapley value; the parts make the whole.
        share: of the whole; null where the whole is none.
        switched_off_alone: what changes when it alone is off.
        effect: whether it is worth a word.
    """

    mechanism: str
    part: Interval
    share: Interval | None
    switched_off_alone: Interval
    effect: bool


class Ablation(Document):
    """`pdvsim ablate`: what a difference is made of.

    Attributes:
        scale: parts are factors that multiply, or amounts that add up, to the whole.
        first: null where one architecture is held against itself without its mechanisms.
        decided: whether the whole is beyond its interval.
        cells: those compared; null where they come from a published table, or are not recorded.
        published: files of the published table.
        runs: simulated in all.
    """

    NAME: ClassVar[str] = "ablation"

    kind: Literal["ablate"]
    seed: int
    concurrency: int
    metric: str
    scale: Literal["ratio", "difference"]
    first: str | None
    second: str
    cells: tuple[RecordedCell, ...] | None
    published: tuple[str, ...] | None
    length: RunLength | None
    whole: Interval
    decided: bool
    parts: tuple[Part, ...]
    sentence: str
    replications: int = Field(ge=1)
    runs: int
    profile: Calibration

    @model_validator(mode="after")
    def _factors(self) -> Ablation:
        parts = [found for part in self.parts for found in (part.part, part.switched_off_alone)]
        for found in (self.whole, *parts) if self.scale == "ratio" else ():
            if any(end is not None and end <= 0.0 for end in (found.value, found.low, found.high)):
                raise ValueError("factors are above 0")
        return self

    def rows(self) -> Iterator[dict[str, Any]]:
        unit = "" if self.scale == "ratio" else unit_of(self.metric)
        for name, found in (
            *((p.mechanism, p.part) for p in self.parts),
            ("the whole", self.whole),
        ):
            yield {
                "mechanism": name,
                "metric": self.metric,
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "unit": unit,
            }

    def tables(self) -> Iterator[Table]:
        show = _factor if self.scale == "ratio" else told
        what = "factor" if self.scale == "ratio" else "amount"
        lines = [
            (
                (part.mechanism, ""),
                show(part.part),
                told(part.share, 100.0) if self.decided else ("n/a", ""),
                show(part.switched_off_alone),
            )
            for part in self.parts
            if part.effect
        ]
        lines.append((("the whole", ""), show(self.whole), ("100", ""), ("", "")))
        yield Table("", ("mechanism", what, "share, %", f"{what}, it alone off"), lines)


def _factor(found: Interval) -> tuple[str, str]:
    if found.low is None or found.high is None:
        return f"{found.value:.3f}", "one run"
    return f"{found.value:.3f}", f"{found.low:.3f} to {found.high:.3f}"
