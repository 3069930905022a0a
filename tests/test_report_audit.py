"""The page of an audit: findings with their evidence, and what nobody could look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pdvsim import cli
from pdvsim.documents.tables import Audit
from reports import audit
from reports.page import render
from tests.documents import body, headings, made, offline


def finding(rule: str, severity: str, **evidence: Any) -> dict[str, Any]:
    return {
        "rule": rule,
        "severity": severity,
        "cells": [f"pd @ {load}" for load in range(1, 10)],
        "message": f"{rule} says <no>",
        "evidence": [{"name": name, "value": value} for name, value in evidence.items()],
        "settle": f"Run {rule} again.",
    }


FINDINGS = [
    finding("littles_law", "error", in_flight=[1.5] * 9, completed=[]),
    finding("memory", "warning", memory_mib=70_307.0),
    finding("gains", "warning"),
]


def audited(findings: list[dict[str, Any]]) -> Audit:
    document = made(
        "audit",
        source="/some/where/table.csv",
        format="csv",
        cell_count=9,
        findings=findings,
        rules=[
            {"rule": "littles_law", "checked": 9, "needs": "throughput"},
            {"rule": "memory", "checked": 9, "needs": "memory"},
            {"rule": "overload", "checked": 0, "needs": "an offered rate"},
        ],
    )
    assert isinstance(document, Audit)
    return document


@pytest.fixture
def document() -> Audit:
    return audited(FINDINGS)


def test_findings_are_whole(document: Audit) -> None:
    page = body(render(document))
    assert headings(page) == {"Findings", "Rules", "Provenance"}
    assert offline(render(document))
    assert page.index('"severity error"') < page.index('"severity warning"')
    for found in document.findings:
        assert f"{found.rule} says &lt;no&gt;" in page
        assert f"Run {found.rule} again." in page
    assert "pd @ 1; pd @ 2; pd @ 3; pd @ 4; pd @ 5; pd @ 6 and 3 more" in page
    assert "<td>in flight</td><td>1.5, 1.5, 1.5, 1.5, 1.5, 1.5 and 3 more</td>" in page
    assert "<td>memory mib</td><td>70307</td>" in page
    assert "/some/where/table.csv" in page


def test_all_values_of_a_long_list_can_be_opened(document: Audit) -> None:
    assert "pd @ 8; pd @ 9</td>" in render(document).partition("<summary>all values</summary>")[2]


def test_empty_evidence_is_left_out(document: Audit) -> None:
    assert "<td>completed</td>" not in render(document)


def test_rules_that_looked_at_nothing_are_said(document: Audit) -> None:
    assert [rule.rule for rule in audit.blind(document)] == ["overload"]
    words = '<td class="words">an offered rate</td>'
    assert f"<td>overload</td><td>nothing</td><td>n/a</td>{words}" in render(document)
    assert "1 of 3 rules had nothing to look at" in audited([]).verdict.badge


def test_an_audit_with_errors_is_invalid(document: Audit) -> None:
    verdict = document.verdict
    assert verdict.badge == "INVALID, because arithmetic contradicts it (littles law)"
    assert verdict.sentence == (
        "Claims of table.csv fail: 1 error, 2 warnings and 0 notes over 9 cells."
    )
    assert '<span class="validity invalid">INVALID' in render(document)


def test_an_audit_with_warnings_holds_with_care() -> None:
    verdict = audited(FINDINGS[1:]).verdict
    assert verdict.badge.startswith("VALID WITH CARE, because 2 warnings (listed below)")
    assert verdict.sentence == (
        "Claims of table.csv stand as far as arithmetic can tell: 0 errors, 2 warnings and "
        "0 notes over 9 cells."
    )


def test_an_audit_without_findings() -> None:
    page = render(audited([]))
    assert headings(page) == {"Rules", "Provenance"}
    assert "<script" not in page and len(page) < 20_000  # it has no chart to draw


def test_the_command_takes_an_audit(document: Audit, tmp_path: Path) -> None:
    result, page = document.save(tmp_path / "audit.json"), tmp_path / "out.html"
    assert cli.run(["report", str(result), "-o", str(page)]) == 0
    assert "Claims of table.csv fail" in page.read_text(encoding="utf-8")
