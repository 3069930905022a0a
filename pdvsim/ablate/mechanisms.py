"""The mechanisms of a simulated run, and how each is switched off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np

from pdvsim.architectures.lane import Config
from pdvsim.core import Model
from pdvsim.des import HostCosts, StageCosts, simulate
from pdvsim.des.gpu import Contention
from pdvsim.errors import InputError
from pdvsim.metrics import summarize
from pdvsim.records import RunRecord
from pdvsim.workload import Workload

Off = frozenset[str]


@dataclass(frozen=True, slots=True)
class Setting:
    """One run to be, with all its mechanisms.

    Attributes:
        alike_costs, alike_workload: what both cells of a comparison would share; None where
            they do anyway.
        survivors_only: only completed requests' tokens count.
    """

    config: Config
    workload: Workload
    costs: StageCosts
    host: HostCosts
    contention: Contention
    alike_costs: StageCosts | None = None
    alike_workload: Workload | None = None
    survivors_only: bool = False


def _host(**changes: Any) -> Callable[[Setting], Setting]:
    return lambda s: replace(s, host=replace(s.host, **changes))


def _config(**changes: Any) -> Callable[[Setting], Setting]:
    return lambda s: replace(s, config=replace(s.config, **changes))


def _unlock(model: Model) -> Callable[[Setting], Setting]:
    return lambda s: replace(s, host=replace(s.host, locks=s.host.locks - {model}))


def _awake(setting: Setting) -> Setting:
    """Nobody sleeps: what waits is seen within a microsecond."""
    quick = _host(wake_s=0.0, lock_wake_s=0.0, event_wake_s=0.0, poll_overhead_s=0.0)
    return _config(poll_s=1e-6, idle_sleep_s=1e-6)(quick(setting))


GIL, DRAFT_LOCK, VERIFIER_LOCK = "GIL", "draft model's lock", "verifier's lock"
CONTENTION, ADMISSION, POLLING = "contention of streams", "admission limit", "polling and waking"
BATCH_END, ONE_PREFILL = "batch-end completion", "one prefill a turn"
PREFILL_IN_TURN, OWN_SPEED = "prefill in the worker's turn", "stage times of its own"
OWN_WORK = "requests of its own"
CUT, SURVIVORS = "cut at the deadline", "unfinished count as nothing"

# In the order in which they are switched off.
MECHANISMS: dict[str, Callable[[Setting], Setting]] = {
    GIL: _host(gil_speeds=(1.0,) * 256),
    DRAFT_LOCK: _unlock(Model.DRAFT),
    VERIFIER_LOCK: _unlock(Model.VERIFIER),
    CONTENTION: lambda s: replace(s, contention={}),
    ADMISSION: _config(admission_limit=False),
    BATCH_END: _config(batch_end=False),
    ONE_PREFILL: _config(prefill_batch=100_000),
    PREFILL_IN_TURN: _config(prefill_lane=True, prefill_batch=1),
    POLLING: _awake,
    OWN_SPEED: lambda s: replace(s, costs=s.alike_costs or s.costs),
    OWN_WORK: lambda s: replace(s, workload=s.alike_workload or s.workload),
    CUT: lambda s: replace(s, workload=replace(s.workload, deadline_s=None)),
    SURVIVORS: lambda s: replace(s, survivors_only=False),
}
_THREADS = {"pd": 2, "three_lane": 3}


def effective(setting: Setting, off: Off) -> Off:
    """The part of `off` that changes anything: combinations alike are simulated once."""
    config, workload = setting.config, setting.workload
    name = config.architecture
    own_lane = name == "pdv" and (PREFILL_IN_TURN in off or config.prefill_lane)
    threads = config.workers if name == "baseline" else _THREADS.get(name, 1) + own_lane
    drop: set[str] = set()
    if threads == 1:
        drop |= {GIL, DRAFT_LOCK, VERIFIER_LOCK, CONTENTION}
    if not config.executor.synchronous:
        drop |= {DRAFT_LOCK, VERIFIER_LOCK}
    if not setting.contention:
        drop.add(CONTENTION)
    in_flight = inf if workload.in_flight is None else workload.in_flight
    if name in ("baseline", "three_lane") or in_flight <= config.batch_cap:
        drop.add(ADMISSION)
    if name not in ("pdv", "three_lane") or config.executor.batched:
        drop.add(BATCH_END)
    if name != "pdv" or own_lane:
        drop.add(ONE_PREFILL)
    if name != "pdv":
        drop.add(PREFILL_IN_TURN)
    if setting.alike_costs is None:
        drop.add(OWN_SPEED)
    if setting.alike_workload is None:
        drop.add(OWN_WORK)
    if workload.deadline_s is None:
        drop.add(CUT)
    if not setting.survivors_only or workload.deadline_s is None or CUT in off:
        drop.add(SURVIVORS)
    return off - drop


def run(task: tuple[Callable[[], Setting], Off, str]) -> float:
    """Simulate one setting without some mechanisms; the value of the metric.

    Raises:
        InputError: the run cannot say.
    """
    make, off, metric = task
    setting = make()
    for name, switch_off in MECHANISMS.items():
        if name in off:
            setting = switch_off(setting)
    record = simulate(
        setting.config, setting.workload, setting.costs, setting.host, setting.contention
    )
    return measure(record, metric, setting.survivors_only)


def measure(record: RunRecord, metric: str, survivors_only: bool) -> float:
    """`tps` and `latency` are the published benchmark's; others are those of `summarize`."""
    done = [request for request in record.requests if request.completed_s is not None]
    if metric == "tps":
        counted = done if survivors_only else record.requests
        return sum(request.produced_tokens for request in counted) / record.end_s
    if metric == "latency":
        latencies = [(request.completed_s or 0.0) - request.arrival_s for request in done]
        return float(np.mean(latencies)) if done else float("nan")
    summary = summarize(record)
    value = summary[metric]
    if value is None:
        why = summary.reasons.get(metric, "unknown")
        raise InputError(f"{record.about['config'].architecture} has no {metric}: {why}")
    return value
