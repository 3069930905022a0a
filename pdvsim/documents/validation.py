"""Predictions held against real runs: the document of `pdvsim validate`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, field_validator

from pdvsim.documents.base import Calibration, Finite, Machine, Metrics, Model, Table
from pdvsim.documents.benchmark import Telemetry
from pdvsim.documents.cells import CellsDocument, Row, frame_row, of_all, one_of, told
from pdvsim.quantities import ALWAYS_COMPARED, COMPARED, QUANTITIES

# Of each metric in `COMPARED`; null where a side could not say.
Errors = dict[str, Finite | None]


class ValidationRow(Row):
    """A cell predicted (`metrics`, on the host as it was) and measured.

    Attributes:
        measured: the same metrics of the real runs.
        errors: predicted / measured - 1.
        errors_as_calibrated: the same where the host is as it was calibrated.
        host_factors: host seconds relative to the calibrated ones, in spans of the runs.
        gil_speeds: of each of two launching threads, relative to one alone.
    """

    measured: Metrics
    errors: Errors
    errors_as_calibrated: Errors
    host_factors: tuple[Finite, ...]
    gil_speeds: tuple[Finite, ...]
    telemetry: tuple[Telemetry, ...]

    @field_validator("measured", "errors", "errors_as_calibrated", mode="after")
    @classmethod
    def _compared(cls, found: dict[str, Any]) -> dict[str, Any]:
        return of_all(found, COMPARED, ALWAYS_COMPARED)


class ErrorSummary(Model):
    """Absolute errors of one metric over all cells that have one.

    Attributes:
        p95_abs: 95th percentile; None in documents from before it was asked for.
        inside: cells whose measurement lies in the predicted interval; None likewise.
    """

    metric: Annotated[str, AfterValidator(one_of(COMPARED))]
    median_abs: Finite
    p95_abs: Finite | None = None
    max_abs: Finite
    inside: int | None = None
    cells: int


class Validation(CellsDocument):
    """`pdvsim validate`: predictions held against real runs.

    Attributes:
        as_calibrated, at_run_speed: errors on the host as calibrated, and as it was during the
            runs (empty for an executor whose time is not the host's).
        measured_on: where each benchmark comes from.
    """

    NAME: ClassVar[str] = "validation"

    kind: Literal["validate"]
    cells: tuple[ValidationRow, ...]
    as_calibrated: tuple[ErrorSummary, ...]
    at_run_speed: tuple[ErrorSummary, ...]
    measured_on: tuple[Machine, ...]
    profile: Calibration

    def rows(self) -> Iterator[dict[str, Any]]:
        for row in self.cells:
            for name in COMPARED:
                measured = row.measured[name]
                yield frame_row(row, name, row.metric(name)) | {
                    "measured": measured and measured.value,
                    "error": row.errors[name],
                }

    def tables(self) -> Iterator[Table]:
        yield self.held()
        yield self.summary()

    def summary(self) -> Table:
        """Errors by metric, on the host as it was during the runs where that is known."""
        title = "Absolute errors over all cells, and measurements inside their 95 % interval"
        lines = [
            (
                (QUANTITIES[one.metric].heading, ""),
                *((_percent(error), "") for error in (one.median_abs, one.p95_abs, one.max_abs)),
                ("n/a" if one.inside is None else f"{one.inside} of {one.cells}", ""),
            )
            for one in self.at_run_speed or self.as_calibrated
        ]
        return Table(title, ("", "median", "95th percentile", "largest", "inside"), lines)

    def held(self) -> Table:
        """The error of each prediction, and what was measured and predicted."""
        # Of the tails the summary is enough: their columns would not fit.
        shown = [n for n in COMPARED if not n.startswith("p99") and self._known(n)]
        lines = []
        for row in self.cells:
            factors = row.host_factors
            lines.append(
                (
                    (str(row.concurrency), ""),
                    (row.label, f"host {sum(factors) / len(factors):.2f}" if factors else ""),
                    *(self._compared(row, name) for name in shown),
                )
            )
        title = "Error of each prediction; below, measured : predicted"
        if any(row.host_factors for row in self.cells):
            title += "; host: times its calibrated seconds"
        return Table(title, ("C", "architecture", *(QUANTITIES[n].title for n in shown)), lines)

    def _known(self, name: str) -> bool:
        return any(row.errors[name] is not None for row in self.cells)

    @staticmethod
    def _compared(row: ValidationRow, name: str) -> tuple[str, str]:
        scale, error = QUANTITIES[name].scale, row.errors[name]
        measured, predicted = told(row.measured[name], scale)[0], told(row.metric(name), scale)[0]
        off = "n/a" if error is None else f"{100 * error:+.1f} %"
        return off, f"{measured} : {predicted}"


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{100 * share:.1f} %"
