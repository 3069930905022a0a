"""The document of an audit: the answer behind `pdvsim audit`."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from pdvsim.audit.finding import Finding, Number
from pdvsim.audit.report import Report
from pdvsim.documents.base import ANY_ENGINE
from pdvsim.documents.head import head
from pdvsim.documents.tables import Audit, AuditFinding, AuditRule, Evidence
from pdvsim.verdict import PENDING, judged


def document(report: Report, command: str | None = None) -> Audit:
    """What `report` found."""
    table = report.table
    made = Audit(
        **head("audit", command),
        subject=f"{table.source} · {table.format}",
        valid_for=ANY_ENGINE,
        interval="none: arithmetic",
        verdict=PENDING,
        notes=tuple(f"Left out: {sentence}." for sentence in table.left_out),
        source=table.source,
        format=table.format,
        cell_count=len(table.cells),
        findings=tuple(map(_finding, report.findings)),
        rules=tuple(
            AuditRule(rule=seen.rule, checked=seen.checked, needs=seen.needs)
            for seen in report.outcomes
        ),
    )
    return judged(made)


def _finding(finding: Finding) -> AuditFinding:
    return AuditFinding(
        rule=finding.rule,
        severity=finding.severity.value,
        cells=finding.cells,
        message=finding.message,
        evidence=tuple(
            Evidence(name=name, value=_plain(value)) for name, value in finding.evidence.items()
        ),
        settle=finding.settle,
    )


def _plain(value: Number) -> Any:
    """Evidence for JSON, which has no NaN and no infinity."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_plain(item) for item in value)
    return f"{value:g}" if isinstance(value, float) and not isfinite(value) else value
