"""Hold a benchmark table against arithmetic: what in it cannot be, and what would settle it."""

from pdvsim.audit.finding import Finding, Limits, Severity
from pdvsim.audit.readers import FORMATS, read
from pdvsim.audit.report import RULES, Report, audit
from pdvsim.audit.table import Cell, Distribution, Served, Table

__all__ = [
    "FORMATS",
    "RULES",
    "Cell",
    "Distribution",
    "Finding",
    "Limits",
    "Report",
    "Served",
    "Severity",
    "Table",
    "audit",
    "read",
]
