"""The mechanisms of a simulated run, and how each is switched off.

Those of the machine are here, and the deadline's; those of an architecture are its `switches`, and
a setting of a special kind (a cell of a published table) may have some of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from pdvsim.architectures import Config, architecture
from pdvsim.architectures.lane import POLLING
from pdvsim.core import Model
from pdvsim.des import HostCosts, StageCosts, simulate
from pdvsim.des.contention import Contention
from pdvsim.errors import InputError
from pdvsim.kv_cache import KvCache
from pdvsim.metrics import summarize
from pdvsim.records import RunRecord
from pdvsim.workload import Workload

Off = frozenset[str]


@dataclass(frozen=True, slots=True)
class Setting:
    """One run to be, with all its mechanisms."""

    config: Config
    workload: Workload
    costs: StageCosts
    host: HostCosts
    contention: Contention
    kv_cache: KvCache | None = None

    @property
    def own(self) -> Mapping[str, Mechanism]:
        """Mechanisms that only settings of this kind have."""
        return {}

    def run(self) -> RunRecord:
        """Simulate it."""
        return simulate(
            self.config, self.workload, self.costs, self.host, self.contention, self.kv_cache
        )

    def measure(self, record: RunRecord, metric: str) -> float:
        """A metric of the run that it became.

        Raises:
            InputError: the run cannot say.
        """
        summary = summarize(record)
        value = summary[metric]
        if value is None:
            why = summary.reasons.get(metric, "unknown")
            raise InputError(f"{record.config.name} has no {metric}: {why}")
        return value


@dataclass(frozen=True, slots=True)
class Mechanism:
    """Something that can be switched off.

    Attributes:
        off: the setting without it.
        acts: (the setting as it is, the setting with everything switched off that is to be)
            -> whether switching it off changes anything.
    """

    off: Callable[[Any], Setting]
    acts: Callable[[Any, Setting], bool]


def _host(**changes: Any) -> Callable[[Setting], Setting]:
    return lambda s: replace(s, host=replace(s.host, **changes))


def _unlock(model: Model) -> Mechanism:
    return Mechanism(
        lambda s: replace(s, host=replace(s.host, locks=s.host.locks - {model})),
        lambda s, rest: _several_threads(rest) and s.config.executor.synchronous,
    )


def _several_threads(setting: Setting) -> bool:
    return len(architecture(setting.config.architecture).threads(setting.config)) > 1


# Of every run, before and after those of its architecture and of its kind: the order in which
# they are switched off.
BEFORE = {
    "GIL": Mechanism(_host(gil_speeds=(1.0,) * 256), lambda s, rest: _several_threads(rest)),
    "draft model's lock": _unlock(Model.DRAFT),
    "verifier's lock": _unlock(Model.VERIFIER),
    "contention of streams": Mechanism(
        lambda s: replace(s, contention={}),
        lambda s, rest: bool(s.contention) and _several_threads(rest),
    ),
    "KV cache": Mechanism(
        lambda s: replace(s, kv_cache=None), lambda s, rest: s.kv_cache is not None
    ),
}
AFTER = {
    # Nobody sleeps: what waits is seen at once, or within a microsecond where a lane polls.
    POLLING: Mechanism(
        _host(wake_s=0.0, lock_wake_s=0.0, event_wake_s=0.0, poll_overhead_s=0.0),
        lambda s, rest: True,
    ),
    "cut at the deadline": Mechanism(
        lambda s: replace(s, workload=replace(s.workload, deadline_s=None)),
        lambda s, rest: s.workload.deadline_s is not None,
    ),
}


def mechanisms(settings: Sequence[Setting]) -> list[str]:
    """Names of all that can be switched off in any of the settings, in order."""
    switches = [name for s in settings for name in architecture(s.config.architecture).switches]
    own = [name for s in settings for name in s.own]
    middle = [name for name in (*switches, *own) if name not in AFTER]
    return list(dict.fromkeys((*BEFORE, *middle, *AFTER)))


def _common(setting: Setting) -> dict[str, Mechanism]:
    """All but the architecture's."""
    return {**BEFORE, **setting.own, **AFTER}


def without(setting: Setting, off: Off) -> Setting:
    """The setting with the mechanisms `off` switched off, its parameters otherwise the user's."""
    switches = off & architecture(setting.config.architecture).switches.keys()
    config = replace(setting.config, switched_off=setting.config.switched_off | switches)
    setting = replace(setting, config=config)
    for name, mechanism in _common(setting).items():
        if name in off:
            setting = mechanism.off(setting)
    return setting


def effective(setting: Setting, off: Off) -> Off:
    """The part of `off` that changes anything: combinations alike are simulated once."""
    rest = without(setting, off)
    in_flight = inf if setting.workload.in_flight is None else setting.workload.in_flight
    common = {name for name, one in _common(setting).items() if one.acts(setting, rest)}
    return off & {*acting(rest.config, in_flight), *common}


def acting(config: Config, in_flight: float) -> list[str]:
    """The architecture's own mechanisms that change anything."""
    switches = architecture(config.architecture).switches
    return [name for name, one in switches.items() if one.acts(config, in_flight)]


def run(task: tuple[Callable[[], Setting], Off, str]) -> float:
    """Simulate one setting without some mechanisms; the value of the metric.

    Raises:
        InputError: the run cannot say.
    """
    make, off, metric = task
    setting = without(make(), off)
    return setting.measure(setting.run(), metric)
