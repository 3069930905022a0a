"""Why requests take as long as they do: the document of `pdvsim explain`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, field_validator

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
from pdvsim.quantities import CAUSES, MEMOS
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
