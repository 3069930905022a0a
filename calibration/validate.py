"""Holds predictions against measured cells, metric by metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pdvsim.machine import Calibration
from pdvsim.measured.benched import Bench, Hosts, OnHost
from pdvsim.profile import Profile
from pdvsim.sweep import CellResult, sweep

COMPARED = ("output_throughput", "median_ttft_ms", "median_tpot_ms", "median_e2el_ms")


def validate(
    benches: Sequence[Bench],
    profile: Profile,
    replications: int,
    on_run: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Predict every cell of `benches` and compare.

    Every cell is predicted on the profile as it is, and, for the synchronous executor, whose time
    is the host's, once more on the host as it was (`pdvsim.measured.benched.Hosts`). Predicted and
    measured runs share workload and acceptance request by request.

    Args:
        profile: one that can predict them (`pdvsim.measured.benched.profile_for`).
    """
    hosts = Hosts(benches, profile)
    rows = []
    for bench in benches:
        rows += _compare(bench, profile, hosts, replications, on_run)
    return {
        "cells": rows,
        "summary": {
            "as_calibrated": summarize_errors(rows, "errors_as_calibrated"),
            **(
                {"at_run_speed": summarize_errors(rows, "errors")}
                if profile.executor.synchronous
                else {}
            ),
        },
        "profile": profile.provenance,
        "measured": [bench.provenance for bench in benches],
    }


def _compare(
    bench: Bench,
    profile: Profile,
    hosts: Hosts,
    replications: int,
    on_run: Callable[[int, int], None] | None,
) -> list[dict[str, Any]]:
    plans = max(len(one.runs) for one in bench.cells)
    cells = [one.cell for one in bench.cells]

    def predict(on: Sequence[Calibration]) -> list[CellResult]:
        return sweep(cells, on, max(replications, plans), on_run=on_run, plans=plans)

    states = [hosts.of(one, one.runs) for one in bench.cells]
    calibrated = predict([profile] * len(cells))
    predicted = calibrated
    if profile.executor.synchronous:
        predicted = predict([OnHost(profile, state) for state in states])
    rows = []
    for one, plain, result, state in zip(bench.cells, calibrated, predicted, states, strict=True):
        row = result.to_dict()
        seen = {name: one.metrics[name] for name in COMPARED}
        measured = {name: found and found.to_dict() for name, found in seen.items()}
        rows.append(
            row
            | {
                "measured": measured,
                "errors": errors(row, measured),
                "errors_as_calibrated": errors(plain.to_dict(), measured),
                "host_factors": state.factors,
                "gil_speeds": state.gil_speeds,
                "telemetry": one.telemetry,
            }
        )
    return rows


def errors(predicted: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, float | None]:
    """Predicted / measured - 1 by metric; None where either is missing or zero."""
    result: dict[str, float | None] = {}
    for name in COMPARED:
        ahead, seen = (
            side[name]["value"] if side[name] else None for side in (predicted, measured)
        )
        result[name] = None if ahead is None or not seen else ahead / seen - 1.0
    return result


def summarize_errors(rows: Sequence[dict[str, Any]], key: str) -> dict[str, Any]:
    """Median and largest absolute error by metric, and how many cells have one."""
    summary = {}
    for name in COMPARED:
        known = np.abs([row[key][name] for row in rows if row[key][name] is not None])
        if len(known):
            summary[name] = {
                "median_abs": float(np.median(known)),
                "max_abs": float(known.max()),
                "cells": len(known),
            }
    return summary
