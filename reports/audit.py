"""`pdvsim audit`: findings, the gravest first, and what could not be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from reports.chart_rows import text
from reports.document import Document
from reports.html import Section, facts, folded, table

SHOWN = 6  # values of a long list
SEVERITIES = ("error", "warning", "note")


def counts(document: Document) -> dict[str, int]:
    """Findings of each severity, the gravest first."""
    found = [finding["severity"] for finding in document["findings"]]
    return {severity: found.count(severity) for severity in SEVERITIES}


def blind(document: Document) -> list[Mapping[str, Any]]:
    """Rules that had nothing to look at."""
    return [rule for rule in document["rules"] if not rule["checked"]]


def short(values: Any) -> str:
    """A list by its first values and the number of others."""
    if not isinstance(values, list):
        return text(values)
    rest = len(values) - SHOWN
    joint = "; " if isinstance(next(iter(values), None), str) else ", "
    return joint.join(map(text, values[:SHOWN])) + (f" and {rest} more" if rest > 0 else "")


def findings(document: Document) -> str | None:
    """A block per finding: severity and rule, message, cells, evidence, what would settle it."""
    return "".join(_finding(finding) for finding in document["findings"]) or None


def _finding(finding: Mapping[str, Any]) -> str:
    severity = finding["severity"]
    rows = [("cells", short(finding["cells"]))]
    rows += [
        (name.replace("_", " "), short(value))
        for name, value in finding["evidence"].items()
        if value not in ([], "")
    ]
    rows.append(("to settle it", finding["settle"]))
    mark = severity if severity in SEVERITIES else "note"
    whole = [
        (name.replace("_", " "), "; ".join(map(text, value)))
        for name, value in (("cells", finding["cells"]), *finding["evidence"].items())
        if isinstance(value, list) and len(value) > SHOWN
    ]
    return (
        f'<h3><span class="severity {mark}">{escape(severity)}</span> {escape(finding["rule"])}'
        f"</h3><p>{escape(finding['message'])}</p>{facts(rows)}"
        + (folded("all values", facts(whole)) if whole else "")
    )


def rules(document: Document) -> str | None:
    """What each rule looked at."""
    lines = [
        (
            rule["rule"].replace("_", " "),
            str(rule["checked"]) if rule["checked"] else "nothing",
            str(sum(finding["rule"] == rule["rule"] for finding in document["findings"]))
            if rule["checked"]
            else "n/a",
            rule["needs"],
        )
        for rule in document["rules"]
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
