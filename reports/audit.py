"""`pdvsim audit`: findings, the gravest first, and what could not be looked at."""

from __future__ import annotations

from html import escape
from typing import Any

from pdvsim.documents.tables import Audit, AuditFinding, AuditRule
from reports.html import Section, facts, folded, table
from reports.provenance import text

SHOWN = 6  # values of a long list


def blind(document: Audit) -> list[AuditRule]:
    """Rules that had nothing to look at."""
    return [rule for rule in document.rules if not rule.checked]


def short(values: Any) -> str:
    """A list by its first values and the number of others."""
    if not isinstance(values, tuple):
        return text(values)
    rest = len(values) - SHOWN
    joint = "; " if isinstance(next(iter(values), None), str) else ", "
    return joint.join(map(text, values[:SHOWN])) + (f" and {rest} more" if rest > 0 else "")


def findings(document: Audit) -> str | None:
    """A block per finding: severity and rule, message, cells, evidence, what would settle it."""
    return "".join(_finding(finding) for finding in document.findings) or None


def _finding(finding: AuditFinding) -> str:
    told: list[tuple[str, Any]] = [("cells", finding.cells)]
    told += [(item.name.replace("_", " "), item.value) for item in finding.evidence]
    rows = [(name, short(value)) for name, value in told if value not in ((), "")]
    rows.append(("to settle it", finding.settle))
    whole = [
        (name, "; ".join(map(text, value)))
        for name, value in told
        if isinstance(value, tuple) and len(value) > SHOWN
    ]
    return (
        f'<h3><span class="severity {finding.severity}">{finding.severity}</span> '
        f"{escape(finding.rule)}</h3><p>{escape(finding.message)}</p>{facts(rows)}"
        + (folded("all values", facts(whole)) if whole else "")
    )


def rules(document: Audit) -> str | None:
    """What each rule looked at."""
    lines = [
        (
            rule.rule.replace("_", " "),
            str(rule.checked) if rule.checked else "nothing",
            str(sum(finding.rule == rule.rule for finding in document.findings))
            if rule.checked
            else "n/a",
            rule.needs,
        )
        for rule in document.rules
    ]
    head = ("Rule", "Looked at", "Findings", "Needs")
    return table(head, lines, words=(3,)) if lines else None


SECTIONS = (
    Section("Findings", "The gravest first. Only an error makes a claim fail.", findings),
    Section(
        "Rules",
        "How many cells (or pairs) had the numbers that a rule needs; a rule that looked at "
        "nothing found nothing.",
        rules,
    ),
)
