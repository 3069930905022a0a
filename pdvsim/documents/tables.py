"""Documents about other people's tables: reproduced, and audited."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from pdvsim.documents.base import (
    Calibration,
    Document,
    Finite,
    Model,
    Positive,
    RunLength,
    Table,
)
from pdvsim.documents.cells import told
from pdvsim.statistics import Interval


class PublishedFigures(Model):
    """What the table says of a cell."""

    tps: Positive
    latency_ms: Finite
    completed: int


class PredictedFigures(Model):
    """What the simulation says of it; no latency where nothing completed."""

    tps: Interval
    latency_ms: Interval | None
    completed: Finite


class ReproducedRow(Model):
    """One cell of the table.

    Attributes:
        inside_interval: whether the published throughput lies in the predicted interval.
    """

    engine: str
    concurrency: int = Field(ge=1)
    published: PublishedFigures
    predicted: PredictedFigures
    inside_interval: bool


class Gain(Model):
    """One engine over the other at one load; null where nothing completed."""

    concurrency: int
    published: Finite
    predicted: Interval | None
    published_latency_ratio: Finite
    predicted_latency_ratio: Finite | None


class CalibrationRow(Model):
    """A published request that the calibration rests on."""

    engine: str
    concurrency: int
    request: int


class Round(Model):
    """Time of one round of an engine."""

    engine: str
    round_ms: Finite


class CalibratedFrom(Model):
    """What the few calibrated rows say."""

    rows: tuple[CalibrationRow, ...]
    rounds: tuple[Round, ...]
    prefill_ms: Finite
    run_spread: Finite


class Reproduction(Document):
    """`pdvsim reproduce`: a published table predicted from its own first rows.

    Attributes:
        median_abs_error_tps: of throughput over all cells, a share.
        inside_interval: cells whose published throughput lies in the predicted interval.
    """

    NAME: ClassVar[str] = "reproduction"

    kind: Literal["reproduce"]
    seed: int
    replications: int
    files: tuple[str, ...]
    length: RunLength | None
    cells: tuple[ReproducedRow, ...] = Field(min_length=1)
    gains: tuple[Gain, ...]
    median_abs_error_tps: Finite
    inside_interval: int
    calibrated_from: CalibratedFrom
    profile: Calibration

    def rows(self) -> Iterator[dict[str, Any]]:
        for row in self.cells:
            for name, found, published, unit in (
                ("pdverify_tps", row.predicted.tps, row.published.tps, "tokens/s"),
                ("pdverify_latency_ms", row.predicted.latency_ms, row.published.latency_ms, "ms"),
            ):
                yield {
                    "engine": row.engine,
                    "concurrency": row.concurrency,
                    "metric": name,
                    "value": found and found.value,
                    "low": found and found.low,
                    "high": found and found.high,
                    "unit": unit,
                    "published": published,
                }

    def tables(self) -> Iterator[Table]:
        head = ("engine", "C", "published tokens/s", "predicted", "error", "latency, s", "done")
        lines = []
        for row in self.cells:
            outside = "" if row.inside_interval else " (outside)"
            value, ends = told(row.predicted.tps)
            published = row.published
            lines.append(
                (
                    (row.engine, ""),
                    (str(row.concurrency), ""),
                    (f"{published.tps:.2f}", ""),
                    (value, ends + outside),
                    (f"{100 * (row.predicted.tps.value / published.tps - 1):+.1f} %", ""),
                    (
                        f"{published.latency_ms / 1e3:.2f}",
                        f"predicted {told(row.predicted.latency_ms, 1e-3)[0]}",
                    ),
                    (str(published.completed), f"predicted {row.predicted.completed:.0f}"),
                )
            )
        yield Table("", head, lines)
        gains = [
            (
                (str(gain.concurrency), ""),
                (f"{gain.published:.3g}", ""),
                told(gain.predicted),
                (f"{gain.published_latency_ratio:.3g}", ""),
                (
                    "n/a"
                    if gain.predicted_latency_ratio is None
                    else f"{gain.predicted_latency_ratio:.3g}",
                    "",
                ),
            )
            for gain in self.gains
        ]
        heads = ("C", "tokens/s published", "predicted", "latency published", "predicted")
        yield Table("PDV / PD", heads, gains)


class Evidence(Model):
    """A number behind a finding, by its name with the unit."""

    name: str
    value: int | float | str | tuple[int | float | str, ...]


class AuditFinding(Model):
    """One thing that a table says and arithmetic does not.

    Attributes:
        cells: names of the cells concerned.
        settle: what would settle it.
    """

    rule: str
    severity: Literal["error", "warning", "note"]
    cells: tuple[str, ...]
    message: str
    evidence: tuple[Evidence, ...]
    settle: str


class AuditRule(Model):
    """How many cells (or pairs) had the numbers that a rule needs."""

    rule: str
    checked: int
    needs: str


class Audit(Document):
    """`pdvsim audit`: a benchmark table against arithmetic.

    Attributes:
        cell_count: cells of the table.
        findings: the gravest first.
    """

    NAME: ClassVar[str] = "audit"

    kind: Literal["audit"]
    source: str
    format: str
    cell_count: int
    findings: tuple[AuditFinding, ...]
    rules: tuple[AuditRule, ...]

    @property
    def failed(self) -> bool:
        """Whether a claim of the table fails."""
        return any(finding.severity == "error" for finding in self.findings)

    def rows(self) -> Iterator[dict[str, Any]]:
        for finding in self.findings:
            yield {
                "rule": finding.rule,
                "severity": finding.severity,
                "cells": list(finding.cells),
                "message": finding.message,
                "settle": finding.settle,
            }

    def tables(self) -> Iterator[Table]:
        lines = [
            ((f.severity, ""), (f.rule, ""), (f.message, ", ".join(f.cells[:6])))
            for f in self.findings
        ]
        yield Table("", ("severity", "rule", "finding"), lines)
