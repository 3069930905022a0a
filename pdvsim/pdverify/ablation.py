"""A cell of a published table taken apart: settings, and mechanisms that only it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from pdvsim.ablate.mechanisms import Mechanism, Setting
from pdvsim.ablate.shapley import Subject
from pdvsim.des import HostCosts, StageCosts
from pdvsim.errors import InputError
from pdvsim.machine import replication_seeds
from pdvsim.pdverify.protocol import figures
from pdvsim.pdverify.published import PublishedCell, RequestWork, config_of
from pdvsim.pdverify.reproduce import PublishedCosts, Timings, calibrate
from pdvsim.records import RunRecord
from pdvsim.workload import Workload

# Short names, and the figures of a run that they stand for.
METRICS = {"latency": "pdverify_latency_ms", "tps": "pdverify_tps"}


@dataclass(frozen=True, slots=True)
class PublishedSetting(Setting):
    """One run of a published cell.

    Attributes:
        alike_costs, alike_workload: what both cells of a comparison would share; None where
            they do anyway.
        survivors_only: only the tokens of completed requests count.
    """

    alike_costs: StageCosts | None = None
    alike_workload: Workload | None = None
    survivors_only: bool = True

    @property
    def own(self) -> Mapping[str, Mechanism]:
        return MECHANISMS

    def measure(self, record: RunRecord, metric: str) -> float:
        value = figures(record, self.survivors_only)[metric]
        return float("nan") if value is None else value


MECHANISMS = {
    "stage times of its own": Mechanism(
        lambda s: replace(s, costs=s.alike_costs or s.costs),
        lambda s, rest: s.alike_costs is not None,
    ),
    "requests of its own": Mechanism(
        lambda s: replace(s, workload=s.alike_workload or s.workload),
        lambda s, rest: s.alike_workload is not None,
    ),
    "unfinished count as nothing": Mechanism(
        lambda s: replace(s, survivors_only=False),
        lambda s, rest: s.survivors_only and rest.workload.deadline_s is not None,
    ),
}


def published(
    cells: Sequence[PublishedCell],
    engines: Sequence[str],
    concurrency: int,
    host: HostCosts,
    replications: int,
    seed: int,
) -> list[Subject]:
    """Cells of a published table as `pdvsim reproduce` simulates them.

    Stage times come from the table's rows at C <= 2; what threads do to each other is
    `host`. Without "stage times of its own" every engine has the mean round of all, without
    "requests of its own" the rounds that each request needed in the first engine's run.

    Raises:
        InputError: the table has no such cell.
    """
    timings, work = calibrate(cells), RequestWork(cells)
    mean_round_s = float(np.mean([timings.round_s[engine] for engine in engines]))
    subjects: list[Subject] = []
    at = {(cell.engine, cell.concurrency): cell for cell in cells}
    for engine in engines:
        if (engine, concurrency) not in at:
            raise InputError(f"the published table has no {engine} at C = {concurrency}")
    first = at[engines[0], concurrency]
    for engine in engines:
        cell = at[engine, concurrency]
        differ = work.known(cell) != work.known(first)
        makers = []
        # Each engine was a run of its own, on a machine as fast as it was that minute.
        factors = machine_factors(timings, engine, replications, [seed, len(subjects)])
        for index, factor in enumerate(factors):
            plan_seed, _ = replication_seeds(seed, index)
            own, alike = (
                work.workload(of, np.random.default_rng(plan_seed)) for of in (cell, first)
            )
            setting = PublishedSetting(
                config_of(cell),
                own,
                PublishedCosts(timings.round_s[engine] * factor, timings.prefill_s * factor),
                host,
                {},
                alike_costs=PublishedCosts(mean_round_s, timings.prefill_s),
                alike_workload=alike if differ else None,
            )
            makers.append(partial(_as_it_is, setting))
        subjects.append(Subject(engine, makers))
    return subjects


def machine_factors(
    timings: Timings, engine: str, replications: int, seed: Sequence[int]
) -> list[float]:
    """Speeds of new runs against the calibrated mean, as `Timings.draw_factor` draws them, but
    one from each of `replications` equally likely parts: with two degrees of freedom a handful
    of plain draws would be all about its largest."""
    from scipy.special import stdtrit

    samples = sum(1 for name, _, _ in timings.rows if name == engine)
    middles = (np.random.default_rng(seed).permutation(replications) + 0.5) / replications
    scale = timings.spread * np.sqrt(1.0 + 1.0 / samples)
    return np.exp(scale * stdtrit(timings.spread_degrees, middles)).tolist()  # type: ignore[no-any-return]


def _as_it_is(setting: Setting) -> Setting:
    return setting
