"""The mechanisms of a simulated run, and how each is switched off.

Those of the machine and of the protocol are here; those of an architecture are its `switches`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np

from pdvsim.architectures import Config, architecture
from pdvsim.architectures.lane import POLLING
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


def _unlock(model: Model) -> Callable[[Setting], Setting]:
    return lambda s: replace(s, host=replace(s.host, locks=s.host.locks - {model}))


GIL, DRAFT_LOCK, VERIFIER_LOCK = "GIL", "draft model's lock", "verifier's lock"
CONTENTION, OWN_SPEED = "contention of streams", "stage times of its own"
OWN_WORK = "requests of its own"
CUT, SURVIVORS = "cut at the deadline", "unfinished count as nothing"

# Of every architecture; in the order in which they are switched off. Each architecture has its
# own besides, which its lane programs and parameters know.
MACHINE: dict[str, Callable[[Setting], Setting]] = {
    GIL: _host(gil_speeds=(1.0,) * 256),
    DRAFT_LOCK: _unlock(Model.DRAFT),
    VERIFIER_LOCK: _unlock(Model.VERIFIER),
    CONTENTION: lambda s: replace(s, contention={}),
}
RUN: dict[str, Callable[[Setting], Setting]] = {
    # Nobody sleeps: what waits is seen at once, or within a microsecond where a lane polls.
    POLLING: _host(wake_s=0.0, lock_wake_s=0.0, event_wake_s=0.0, poll_overhead_s=0.0),
    OWN_SPEED: lambda s: replace(s, costs=s.alike_costs or s.costs),
    OWN_WORK: lambda s: replace(s, workload=s.alike_workload or s.workload),
    CUT: lambda s: replace(s, workload=replace(s.workload, deadline_s=None)),
    SURVIVORS: lambda s: replace(s, survivors_only=False),
}


def mechanisms(settings: Sequence[Setting]) -> list[str]:
    """Names of all that can be switched off in any of the settings, in order."""
    own = [name for s in settings for name in architecture(s.config.architecture).switches]
    return list(dict.fromkeys((*MACHINE, *(name for name in own if name not in RUN), *RUN)))


def without(setting: Setting, off: Off) -> Setting:
    """The setting with the mechanisms `off` switched off, its parameters otherwise the user's."""
    own = off & architecture(setting.config.architecture).switches.keys()
    config = replace(setting.config, switched_off=setting.config.switched_off | own)
    setting = replace(setting, config=config)
    for name, switch_off in (MACHINE | RUN).items():
        if name in off:
            setting = switch_off(setting)
    return setting


def effective(setting: Setting, off: Off) -> Off:
    """The part of `off` that changes anything: combinations alike are simulated once."""
    shape, workload = architecture(setting.config.architecture), setting.workload
    config = without(setting, off).config
    in_flight = inf if workload.in_flight is None else workload.in_flight
    drop = off - MACHINE.keys() - RUN.keys() - shape.switches.keys()
    drop |= {name for name, one in shape.switches.items() if not one.acts(config, in_flight)}
    if len(shape.threads(config)) == 1:
        drop |= {GIL, DRAFT_LOCK, VERIFIER_LOCK, CONTENTION}
    if not config.executor.synchronous:
        drop |= {DRAFT_LOCK, VERIFIER_LOCK}
    if not setting.contention:
        drop |= {CONTENTION}
    if setting.alike_costs is None:
        drop |= {OWN_SPEED}
    if setting.alike_workload is None:
        drop |= {OWN_WORK}
    if workload.deadline_s is None:
        drop |= {CUT}
    if not setting.survivors_only or workload.deadline_s is None or CUT in off:
        drop |= {SURVIVORS}
    return off - drop


def run(task: tuple[Callable[[], Setting], Off, str]) -> float:
    """Simulate one setting without some mechanisms; the value of the metric.

    Raises:
        InputError: the run cannot say.
    """
    make, off, metric = task
    setting = without(make(), off)
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
        raise InputError(f"{record.config.name} has no {metric}: {why}")
    return value
