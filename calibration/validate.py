"""Holds predictions against measured cells, metric by metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pdvsim.des import HostCosts
from pdvsim.des.gpu import Contention
from pdvsim.measured.benched import Hosts, cell_of, check_bench
from pdvsim.profile import Costs, HostState, Profile
from pdvsim.records import RunRecord
from pdvsim.sweep import Cell, CellResult, sweep

COMPARED = ("output_throughput", "median_ttft_ms", "median_tpot_ms", "median_e2el_ms")


@dataclass(frozen=True, slots=True)
class OnHost:
    """A profile on a host whose state is known."""

    profile: Profile
    state: HostState

    def replicate(self, seed: np.random.SeedSequence) -> tuple[Costs, HostCosts, Contention]:
        return self.profile.replicate(seed, self.state)

    def extrapolations(self, record: RunRecord) -> list[str]:
        return self.profile.extrapolations(record)


def validate(
    benches: Sequence[dict[str, Any]],
    profile: Profile,
    replications: int,
    on_run: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Predict every cell of `benches` (documents of `pdvsim bench`) and compare.

    Every cell is predicted on the profile as it is, and, for the synchronous executor, whose time
    is the host's, once more on the host as it was (`pdvsim.measured.benched.Hosts`). Predicted and
    measured runs share workload and acceptance request by request.

    Raises:
        InputError: a bench of another pair or executor, or with real acceptance.
    """
    for bench in benches:
        check_bench(bench, profile)
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
        "measured": [bench["profile"] for bench in benches],
    }


def _compare(
    bench: dict[str, Any],
    profile: Profile,
    hosts: Hosts,
    replications: int,
    on_run: Callable[[int, int], None] | None,
) -> list[dict[str, Any]]:
    arguments, measured = bench["arguments"], bench["cells"]
    plans, seed = int(bench["replications"]), int(bench["seed"])

    def predict(models: Sequence[Profile | OnHost]) -> list[CellResult]:
        cells = [
            _cell(cell, arguments, profile, model)
            for cell, model in zip(measured, models, strict=True)
        ]
        return sweep(cells, max(replications, plans), seed, on_run=on_run, plans=plans)

    states = [hosts.of(cell, cell["runs"]) for cell in measured]
    calibrated = predict([profile] * len(measured))
    predicted = calibrated
    if profile.executor.synchronous:
        predicted = predict([OnHost(profile, state) for state in states])
    rows = []
    for cell, plain, result, state in zip(measured, calibrated, predicted, states, strict=True):
        row = result.to_dict()
        rows.append(
            row
            | {
                "measured": {name: cell[name] for name in COMPARED},
                "errors": errors(row, cell),
                "errors_as_calibrated": errors(plain.to_dict(), cell),
                "host_factors": state.factors,
                "gil_speeds": state.gil_speeds,
                "telemetry": cell["telemetry"],
            }
        )
    return rows


def _cell(
    measured: dict[str, Any], arguments: dict[str, Any], profile: Profile, model: Profile | OnHost
) -> Cell:
    config, load = cell_of(measured, arguments, profile)
    return Cell(config, arguments["pair"], load, model)


def errors(predicted: dict[str, Any], measured: dict[str, Any]) -> dict[str, float | None]:
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
