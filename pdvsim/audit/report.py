"""All rules over one table, and the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import fill

from pdvsim.audit import (
    rules_consistency,
    rules_hardware,
    rules_little,
    rules_load,
    rules_numbers,
    rules_tokens,
)
from pdvsim.audit.finding import Finding, Limits, Outcome, Severity
from pdvsim.audit.table import Table


@dataclass(frozen=True, slots=True)
class Rule:
    """A named check; `needs` says what a table must hold for it to look."""

    check: Callable[[Table, Limits], tuple[int, list[Finding]]]
    needs: str

    @property
    def name(self) -> str:
        return self.check.__name__


RULES = (
    Rule(rules_numbers.impossible, "numbers"),
    Rule(rules_load.truncation, "tokens and throughput of survivors, or a duration"),
    Rule(rules_load.survivorship, "offered and completed counts, or numbered requests"),
    Rule(rules_little.littles_law, "throughput, latency, and a concurrency or rate"),
    Rule(rules_load.samples, "completed requests of each cell"),
    Rule(rules_load.overload, "offered rate and completed requests"),
    Rule(rules_load.client_queue, "an offered rate and a cap on requests in flight"),
    Rule(rules_hardware.memory, "a model pair and GPU memory"),
    Rule(rules_hardware.floors, "a model pair, its draft length, and speeds"),
    Rule(rules_hardware.one_configuration, "several model pairs at the same loads"),
    Rule(rules_consistency.duplicates, "rows"),
    Rule(rules_consistency.identical, "throughput and latency"),
    Rule(rules_tokens.same_requests, "requests that are the same in every run"),
    Rule(rules_tokens.acceptance, "acceptance, or drafted and accepted tokens"),
    Rule(rules_consistency.arithmetic, "rows"),
    Rule(rules_numbers.statistics, "a mean, spread or percentiles of one quantity"),
    Rule(rules_consistency.gains, "two systems at one load"),
)

SHOWN_FINDINGS = 12  # of one rule, in the text
SHOWN_VALUES = 12  # of one list, in the text
_ORDER = {severity: i for i, severity in enumerate(Severity)}


@dataclass(frozen=True)
class Report:
    """What an audit found."""

    table: Table
    limits: Limits
    outcomes: tuple[Outcome, ...]

    @property
    def findings(self) -> list[Finding]:
        """All findings, the gravest first."""
        found = [finding for outcome in self.outcomes for finding in outcome.findings]
        return sorted(found, key=lambda finding: _ORDER[finding.severity])

    @property
    def failed(self) -> bool:
        """Whether a claim of the table fails."""
        return any(finding.severity is Severity.ERROR for finding in self.findings)

    def to_text(self, width: int = 100) -> str:
        """The report for people; lines break between words where they are longer than `width`."""
        counts = {s: sum(f.severity is s for f in self.findings) for s in Severity}
        lines = [
            f"{self.table.source} ({self.table.format}, {_count(len(self.table.cells), 'cell')}): "
            + ", ".join(_count(n, severity) for severity, n in counts.items())
        ]
        lines += [f"left out: {sentence}" for sentence in self.table.left_out]
        told = Counter[str]()
        for finding in self.findings:
            told[finding.rule] += 1
            if told[finding.rule] > SHOWN_FINDINGS:
                continue
            lines += [
                "",
                f"{finding.severity.upper()} {finding.rule}: {finding.message}",
                f"  cells: {_short(finding.cells, joint=', ')}",
                *(
                    f"  {name}: {_short(v)}"
                    for name, v in finding.evidence.items()
                    if v not in ([], "")
                ),
                f"  to settle it: {finding.settle}",
            ]
        more = {rule: n - SHOWN_FINDINGS for rule, n in told.items() if n > SHOWN_FINDINGS}
        if more:
            lines += ["", "more of the same (--json has them all):"]
            lines += [f"  {rule}: {_count(n, 'finding')}" for rule, n in more.items()]
        blind = [outcome for outcome in self.outcomes if not outcome.checked]
        if blind:
            lines += ["", "not checked, for want of:"]
            lines += [f"  {outcome.rule}: {outcome.needs}" for outcome in blind]
        return "\n".join(_broken(line, width) for line in lines)


def _broken(line: str, width: int) -> str:
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    return fill(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _short(value: object, joint: str = "; ") -> str:
    """A value, or the first ones of a list; `joint` stands between words."""
    if isinstance(value, list | tuple):
        between = joint if value and isinstance(value[0], str) else ", "
        more = len(value) - SHOWN_VALUES
        shown = between.join(_short(item) for item in value[:SHOWN_VALUES])
        return shown + (f" and {more} more" if more > 0 else "")
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def audit(table: Table, limits: Limits | None = None) -> Report:
    """Hold `table` against every rule; impossible numbers are seen by the one that names them."""
    limits = limits or Limits()
    outcomes = []
    sound = rules_numbers.possible(table)
    for rule in RULES:
        raw = rule.check is rules_numbers.impossible
        checked, findings = rule.check(table if raw else sound, limits)
        outcomes.append(Outcome(rule.name, checked, tuple(findings), rule.needs))
    return Report(table, limits, tuple(outcomes))
