"""Where one configuration overtakes another: the document of `pdvsim crossover`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from pdvsim.documents.base import (
    Calibration,
    Document,
    Finite,
    Model,
    RecordedCell,
    RunLength,
    Table,
)
from pdvsim.documents.cells import told
from pdvsim.quantities import Better, unit_of
from pdvsim.statistics import Interval


class Axis(Model):
    """What is varied.

    Attributes:
        logarithmic: drawn, fitted and spaced by its logarithm.
        whole: only whole numbers exist.
    """

    name: str
    logarithmic: bool
    whole: bool

    def check(self, places: Iterable[float]) -> None:
        """Raises ValueError unless all of these can be on it."""
        if self.logarithmic and any(place <= 0.0 for place in places):
            raise ValueError(f"{self.name} goes by its logarithm, but not all values are above 0")


Answer = Literal["first", "second", "alike", "open", "unknown"]


class Point(Model):
    """The two at one value of the axis.

    Attributes:
        ratio: second / first; null where the runs could not say.
        first, second: means of the metric.
        answer: who is better on all machines but few; `alike` if certainly neither by enough to
            matter, `open` if machines differ (the interval includes 1), `unknown` if there is no
            ratio or no interval.
        pairs_of_runs: spent here, each on another machine.
        share: of machines, on which the second is greater; null where that was not yet recorded.
        overloaded: to whom more requests come than it can serve: the other is better.
    """

    at: Finite
    ratio: Interval | None
    first: Finite | None
    second: Finite | None
    answer: Answer
    pairs_of_runs: int
    share: Finite | None = None
    overloaded: tuple[Literal["first", "second"], ...] = ()


class Crossing(Model):
    """Where the ratio is 1.

    Attributes:
        at: of the mean, and the interval of machines.
        better: who is, from here on.
        pairs_of_runs: machines that the interval rests on.
        places: values of the axis at which each of them ran.
        before, beyond: shares of machines that cross before or beyond what was looked at, or
            never; 0 where its end was not reached, or that was not yet recorded.
    """

    at: Interval
    before: Finite = 0.0
    beyond: Finite = 0.0
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
        self.axis.check(point.at for row in self.rows for point in row.points)
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

    @model_validator(mode="after")
    def _on_the_axis(self) -> Crossover:
        rows = self.map.rows if self.map is not None else ()
        ends = [end for found in self.crossings for end in (found.at.value, found.at.low)]
        stretches = [end for valley in self.valleys for end in (valley.start, valley.end)]
        self.axis.check([*(point.at for point in self.points), *(row.at for row in rows)])
        self.axis.check(end for end in (*ends, *stretches) if end is not None)
        return self

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
        yield self.survey()
        if self.map is not None:
            yield self._map(self.map)

    def survey(self) -> Table:
        """A line per value of the axis."""
        from pdvsim.output import number

        first, second = self.first.label, self.second.label
        head = (self.axis.name, first, second, f"{second} / {first}", "better", "runs")
        lines = [
            (
                (f"{point.at:.4g}", ""),
                (number(point.first) if "first" not in point.overloaded else "overloaded", ""),
                (number(point.second) if "second" not in point.overloaded else "overloaded", ""),
                _ratio(point.ratio),
                (self.name(point.answer) if len(point.overloaded) < 2 else "neither", ""),
                (str(point.pairs_of_runs), ""),
            )
            for point in self.points
        ]
        return Table("", head, lines)

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
