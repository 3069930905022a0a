"""Holds predictions against measured cells, metric by metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pdvsim.documents.base import OF_ONE_RUN
from pdvsim.documents.head import calibration, head, valid_for
from pdvsim.documents.validation import ErrorSummary, Validation, ValidationRow
from pdvsim.machine import Calibration
from pdvsim.measured.benched import Bench, Hosts, OnHost
from pdvsim.profile import Profile
from pdvsim.quantities import COMPARED, QUANTITIES
from pdvsim.results import ranked, row, subject
from pdvsim.statistics import Interval
from pdvsim.sweep import CellResult, sweep
from pdvsim.verdict import judged

Metrics = Mapping[str, Interval | None]
Errors = dict[str, float | None]


def validate(
    benches: Sequence[Bench],
    profile: Profile,
    replications: int,
    workers: int | None = 1,
    on_run: Callable[[int, int], None] | None = None,
    command: str | None = None,
) -> Validation:
    """Predict every cell of `benches` and compare.

    Every cell is predicted on the profile as it is, and, for the synchronous executor, whose time
    is the host's, once more on the host as it was (`pdvsim.measured.benched.Hosts`). Predicted and
    measured runs share workload and acceptance request by request.

    Args:
        profile: one that can predict them (`pdvsim.measured.benched.profile_for`).
        workers: processes; None takes one per usable core.
    """
    hosts = Hosts(benches, profile)
    calibrated: list[CellResult] = []
    results: list[CellResult] = []
    rows: list[ValidationRow] = []
    for bench in benches:
        plain, predicted, compared = _compare(bench, profile, hosts, replications, workers, on_run)
        calibrated += plain
        results += predicted
        rows += compared
    measured = [one.measured for one in rows]
    ahead = [one.errors_as_calibrated for one in rows]
    as_calibrated = summarize_errors(ahead, [one.metrics for one in calibrated], measured)
    as_it_was: list[ErrorSummary] = []
    if profile.executor.synchronous:
        now = [one.errors for one in rows]
        as_it_was = summarize_errors(now, [one.metrics for one in rows], measured)
    first = results[0].cell
    notes = [
        *profile.notes,
        f"Acceptance: {first.acceptance_text}. {replications} predictions, seed {first.seed}.",
        *_told("on the host as calibrated", as_calibrated if as_it_was else ()),
    ]
    document = Validation(
        **head("validate", command),
        subject=subject([result.cell for result in results]),
        valid_for=valid_for(profile),
        interval=OF_ONE_RUN,
        **ranked(results, rows, notes, "delivers"),
        as_calibrated=tuple(as_calibrated),
        at_run_speed=tuple(as_it_was),
        measured_on=tuple(bench.measured_on for bench in benches),
        profile=calibration(profile),
    )
    return judged(document)


def _compare(
    bench: Bench,
    profile: Profile,
    hosts: Hosts,
    replications: int,
    workers: int | None,
    on_run: Callable[[int, int], None] | None,
) -> tuple[list[CellResult], list[CellResult], list[ValidationRow]]:
    """Predictions as calibrated and on the host as it was, and the rows made of them."""
    plans = max(len(one.runs) for one in bench.cells)
    cells = [one.cell for one in bench.cells]

    def predict(on: Sequence[Calibration]) -> list[CellResult]:
        found = sweep(cells, on, max(replications, plans), workers, on_run, plans)
        return [
            replace(result, label=one.label) for result, one in zip(found, bench.cells, strict=True)
        ]

    states = [hosts.of(one, one.runs) for one in bench.cells]
    calibrated = predict([profile] * len(cells))
    predicted = calibrated
    if profile.executor.synchronous:
        predicted = predict([OnHost(profile, state) for state in states])
    rows = []
    for one, plain, result, state in zip(bench.cells, calibrated, predicted, states, strict=True):
        measured = {name: one.metrics[name] for name in COMPARED}
        rows.append(
            ValidationRow(
                **row(result),
                measured=measured,
                errors=errors(result.metrics, measured),
                errors_as_calibrated=errors(plain.metrics, measured),
                host_factors=state.factors,
                gil_speeds=state.gil_speeds,
                telemetry=tuple(one.telemetry),
            )
        )
    return calibrated, predicted, rows


def errors(predicted: Metrics, measured: Metrics) -> Errors:
    """Predicted / measured - 1 by metric; None where either is missing or zero."""
    found: Errors = {}
    for name in COMPARED:
        ahead, seen = predicted[name], measured[name]
        found[name] = None
        if ahead is not None and seen is not None and seen.value:
            found[name] = ahead.value / seen.value - 1.0
    return found


def summarize_errors(
    rows: Sequence[Errors], predicted: Sequence[Metrics], measured: Sequence[Metrics]
) -> list[ErrorSummary]:
    """Absolute errors by metric over the cells that have one, and how many of their measurements
    lie in the predicted interval."""
    summary = []
    for name in COMPARED:
        known = [abs(error) for row in rows if (error := row[name]) is not None]
        pairs = [(a[name], m[name]) for a, m in zip(predicted, measured, strict=True)]
        if known:
            summary.append(
                ErrorSummary(
                    metric=name,
                    median_abs=float(np.median(known)),
                    p95_abs=float(np.quantile(known, 0.95)),
                    max_abs=max(known),
                    inside=sum(_holds(a, m.value) for a, m in pairs if a and m),
                    cells=len(known),
                )
            )
    return summary


def _holds(predicted: Interval, value: float) -> bool:
    low, high = predicted.low, predicted.high
    return low is not None and high is not None and low <= value <= high


def _told(where: str, summary: Sequence[ErrorSummary]) -> list[str]:
    return [
        f"{QUANTITIES[one.metric].heading}, {where}: median error {100 * one.median_abs:.1f} %, "
        f"largest {100 * one.max_abs:.1f} % of {one.cells} cells."
        for one in summary
    ]
