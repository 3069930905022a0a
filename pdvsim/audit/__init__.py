"""Hold a benchmark table against arithmetic: what in it cannot be, and what would settle it."""

from pdvsim.audit.finding import Finding, Limits, Severity
from pdvsim.audit.readers import FORMATS, parse_columns, read
from pdvsim.audit.report import RULES, Report, audit
from pdvsim.audit.table import Cell, Served, Table

__all__ = [
    "FORMATS",
    "RULES",
    "Cell",
    "Finding",
    "Limits",
    "Report",
    "Served",
    "Severity",
    "Table",
    "audit",
    "parse_columns",
    "read",
]
