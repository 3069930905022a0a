"""How fast the host was during a run, read off stages that nobody disturbed.

Machines with several tenants change speed by tens of percent from minute to minute. A launch
beside which no other lane launched anything takes as long as in a calibration on the same machine
at the same moment; so the ratio of the two is the host's speed, and no end-to-end time is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdvsim.core import Stage
from pdvsim.profile import Profile
from pdvsim.records import RunRecord

_STAGES = list(Stage)


def undisturbed(record: RunRecord) -> NDArray[np.bool_]:
    """Stage rows whose launch no launch of another lane overlapped, shape (stage executions,)."""
    lane, begin, end = (record.column(n) for n in ("lane", "launched_s", "launch_end_s"))
    alone = np.ones(len(lane), dtype=bool)
    for one in np.unique(lane):
        mine, theirs = lane == one, lane != one
        if theirs.any():
            # Launches of the others that began before mine ended, less those that ended before
            # mine began, are those that overlap it.
            begun = np.searchsorted(np.sort(begin[theirs]), end[mine], side="left")
            ended = np.searchsorted(np.sort(end[theirs]), begin[mine], side="right")
            alone[mine] = begun == ended
    return alone


def undisturbed_launches(record: RunRecord) -> list[dict[str, Any]]:
    """Number and mean of undisturbed launches by stage: `launch_s`, and the work behind it."""
    alone = undisturbed(record)
    stage = record.column("stage")[alone].astype(int)
    columns = {n: record.column(n)[alone] for n in ("batch", "query_tokens", "context_tokens")}
    columns["launch_s"] = (record.column("launch_end_s") - record.column("launched_s"))[alone]
    return [
        {"stage": str(_STAGES[code]), "count": int((stage == code).sum())}
        | {name: float(values[stage == code].mean()) for name, values in columns.items()}
        for code in np.unique(stage)
    ]


def host_factor(launches: Sequence[dict[str, Any]], profile: Profile) -> float | None:
    """Host seconds of a run's undisturbed launches over those of the profile; None without any.

    The profile's side is the mean it simulates: the fit times the mean of its noise.
    """
    measured = fitted = 0.0
    for row in launches:
        fit = profile.file.stages.get(Stage(row["stage"]))
        if fit is not None:
            mean_s = fit.host.seconds(row["batch"], row["query_tokens"], row["context_tokens"])
            measured += row["count"] * row["launch_s"]
            fitted += row["count"] * mean_s * float(np.mean(fit.host.noise))
    return measured / fitted if fitted else None
