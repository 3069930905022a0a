"""How fast the host was during a run, read off how long stages took to launch.

Machines with several tenants change speed by tens of percent from minute to minute. A launch
beside which no other lane launched anything takes as long as in a calibration on the same machine
at the same moment; so the ratio of the two is the host's speed. And a run of an architecture with
several lanes holds minutes in which two threads launched at the same time: what they got done
together is the price of the GIL. No end-to-end time is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdvsim.core import Stage
from pdvsim.profile import Profile
from pdvsim.profile_file import host_load
from pdvsim.records import STAGES, RunRecord
from pdvsim.work import uniform_work

_BLOCKS = 8  # of a run, in time: how much the host's speed changed meanwhile
Launches = Sequence[Mapping[str, Any]]


def launches(record: RunRecord) -> dict[str, Any]:
    """What a run says of its host.

    Returns:
        `launched`: number and means of all launches by stage, `launch_s` and the work behind it;
        `undisturbed`: the same of those that no launch of another lane overlapped, in equal
        spans of time one after the other;
        `launching_s`: seconds in which exactly 1, 2, ... threads were launching.
    """
    alone, began = undisturbed(record), record.column("launched_s")
    edges = np.linspace(began.min(), began.max(), _BLOCKS + 1)[1:-1]
    block = np.searchsorted(edges, began, side="right")
    return {
        "undisturbed": [_by_stage(record, alone & (block == i)) for i in range(_BLOCKS)],
        "launched": _by_stage(record, np.ones(len(record.stage_rows), dtype=bool)),
        "launching_s": launching_seconds(record),
    }


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


def launching_seconds(record: RunRecord) -> list[float]:
    """Seconds in which exactly 1, 2, ... threads were launching at the same time."""
    moments = np.concatenate((record.column("launched_s"), record.column("launch_end_s")))
    steps = np.repeat((1, -1), len(moments) // 2)
    order = np.lexsort((steps, moments))
    threads = np.cumsum(steps[order])[:-1]
    seconds = np.diff(moments[order])
    return [float(seconds[threads == n].sum()) for n in range(1, len(record.lanes) + 1)]


def _by_stage(record: RunRecord, rows: NDArray[np.bool_]) -> list[dict[str, Any]]:
    stage = record.column("stage")[rows].astype(int)
    columns = {n: record.column(n)[rows] for n in ("batch", "query_tokens", "context_tokens")}
    columns["launch_s"] = (record.column("launch_end_s") - record.column("launched_s"))[rows]
    return [
        {"stage": str(STAGES[code]), "count": int((stage == code).sum())}
        | {name: float(values[stage == code].mean()) for name, values in columns.items()}
        for code in np.unique(stage)
    ]


def host_factors(run: Mapping[str, Any], profile: Profile) -> list[float]:
    """`host_factor` of each span of a run that had undisturbed launches."""
    found = [host_factor(rows, profile) for rows in run["undisturbed"]]
    return [factor for factor in found if factor is not None]


def host_factor(rows: Launches, profile: Profile) -> float | None:
    """Host seconds of undisturbed launches over those of the profile; None without any."""
    fitted_s = _fitted_seconds(rows, profile)
    measured_s = sum(row["count"] * row["launch_s"] for row in rows if _knows(profile, row))
    return measured_s / fitted_s if fitted_s else None


def gil_speed(run: Mapping[str, Any], profile: Profile) -> float | None:
    """Speed of each of two threads that launch at the same time, relative to one alone.

    All launches of the run together hold W seconds of undisturbed work, at the host's speed in
    that run (`host_factor`). With n threads launching for T_n seconds at speed s_n each, and
    beyond two at the throughput of two, W = T_1 + 2 s (T_2 + T_3 + ...).

    Args:
        run: a run of a bench document, which holds `launches`.

    Returns:
        None if two threads never launched at the same time.
    """
    one_s, *several_s = run["launching_s"]
    factor = host_factor([row for rows in run["undisturbed"] for row in rows], profile)
    if factor is None or not sum(several_s):
        return None
    work_s = factor * _fitted_seconds(run["launched"], profile)
    return float(np.clip((work_s - one_s) / (2.0 * sum(several_s)), 0.05, 1.0))


def _fitted_seconds(rows: Launches, profile: Profile) -> float:
    """Host seconds of these launches as the profile simulates them: the fit times the mean of
    its noise."""
    total_s = 0.0
    for row in rows:
        if _knows(profile, row):
            fit = profile.file.stages[Stage(row["stage"])].host
            counts = [round(row[name]) for name in ("batch", "query_tokens", "context_tokens")]
            work = uniform_work(profile.executor, Stage(row["stage"]), *counts)
            mean_s = fit.seconds(host_load(work))
            total_s += row["count"] * mean_s * float(np.mean(fit.noise))
    return total_s


def _knows(profile: Profile, row: Mapping[str, Any]) -> bool:
    return Stage(row["stage"]) in profile.file.stages
