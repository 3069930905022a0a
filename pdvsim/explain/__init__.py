"""Why a request took as long as it did, and what every thread and stream did meanwhile."""

from pdvsim.explain.causes import Requests, explain_requests
from pdvsim.explain.compare import (
    Difference,
    Explained,
    Run,
    differences,
    explain_run,
    explain_simulated,
    gaps,
)
from pdvsim.explain.measured import benched, largest_gaps
from pdvsim.explain.run_arrays import Trace, of_files, of_record, priced
from pdvsim.explain.threads import stream_seconds, thread_seconds

__all__ = [
    "Difference",
    "Explained",
    "Requests",
    "Run",
    "Trace",
    "benched",
    "differences",
    "explain_requests",
    "explain_run",
    "explain_simulated",
    "gaps",
    "largest_gaps",
    "of_files",
    "of_record",
    "priced",
    "stream_seconds",
    "thread_seconds",
]
