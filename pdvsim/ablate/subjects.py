"""What can be ablated: a cell of a prediction, and a cell of a published table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from pdvsim.ablate.mechanisms import Setting
from pdvsim.ablate.shapley import Subject
from pdvsim.architectures import Config
from pdvsim.cell import Cell
from pdvsim.core import EAGER
from pdvsim.des import HostCosts
from pdvsim.errors import InputError
from pdvsim.machine import Calibration, Replication, replication_seeds
from pdvsim.pdverify.published import PublishedCell, RequestWork
from pdvsim.pdverify.reproduce import PublishedCosts, Timings, calibrate

# Short names, and the figures of a run that they stand for.
METRICS = {
    "e2e": "median_e2el_ms",
    "ttft": "median_ttft_ms",
    "throughput": "output_throughput",
}


def predicted(cell: Cell, calibration: Calibration, replications: int) -> Subject:
    """A cell as `pdvsim predict` simulates it."""
    runs = [Replication(cell, calibration, i) for i in range(replications)]
    return Subject(cell.config().name, [partial(_predicted, run) for run in runs])


def _predicted(run: Replication) -> Setting:
    machine = run.machine()
    return Setting(
        run.cell.config(), run.workload(), machine.costs, machine.host, machine.contention
    )


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
            setting = Setting(
                Config(cell.architecture, EAGER, batch_cap=concurrency),
                own,
                PublishedCosts(timings.round_s[engine] * factor, timings.prefill_s * factor),
                host,
                {},
                alike_costs=PublishedCosts(mean_round_s, timings.prefill_s),
                alike_workload=alike if differ else None,
                survivors_only=True,
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
