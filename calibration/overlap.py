"""The GIL's price, read off real runs: what two launching threads got done together.

A race of two threads for a few seconds is a small sample on a machine whose speed drifts. A run of
an architecture with several lanes holds minutes in which two threads launched at the same time.
Only stage rows are used: how long launches took, and what the same launches take undisturbed.
"""

from __future__ import annotations

import numpy as np

from pdvsim.analysis.host_speed import host_factor, undisturbed_launches
from pdvsim.core import Stage
from pdvsim.profile import Profile
from pdvsim.records import RunRecord

_STAGES = list(Stage)


def overlapped_speed(record: RunRecord, profile: Profile) -> tuple[float, float] | None:
    """Speed of each of two threads that launch at the same time, relative to alone.

    All launches together hold W seconds of undisturbed work at the host's speed in this run
    (`host_factor`). With one thread launching for T1 seconds and two for T2,
    W = T1 + 2 T2 speed.

    Returns:
        (speed, T2); None if two threads never launched at the same time.
    """
    factor = host_factor(undisturbed_launches(record), profile)
    moments = np.concatenate((record.column("launched_s"), record.column("launch_end_s")))
    steps = np.repeat((1, -1), len(moments) // 2)
    order = np.lexsort((steps, moments))
    threads = np.cumsum(steps[order])[:-1]
    seconds = np.diff(moments[order])
    one_s, two_s = (float(seconds[threads == count].sum()) for count in (1, 2))
    if factor is None or two_s == 0.0:
        return None
    columns = ("stage", "batch", "query_tokens", "context_tokens")
    rows = zip(*(record.column(name) for name in columns), strict=True)
    work_s = factor * sum(_undisturbed_s(profile, int(code), *work) for code, *work in rows)
    return (work_s - one_s) / (2.0 * two_s), two_s


def _undisturbed_s(
    profile: Profile, code: int, batch: float, query_tokens: float, context_tokens: float
) -> float:
    """Mean host seconds of one launch in the profile."""
    fit = profile.file.stages[_STAGES[code]].host
    return fit.seconds(batch, query_tokens, context_tokens) * float(np.mean(fit.noise))
