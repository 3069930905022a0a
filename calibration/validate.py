"""Holds predictions against measured cells, metric by metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pdvsim.acceptance import Acceptance
from pdvsim.analysis.host_speed import host_factor
from pdvsim.architectures.lane import Config
from pdvsim.des import HostCosts
from pdvsim.des.gpu import Contention
from pdvsim.errors import InputError
from pdvsim.profile import Costs, Profile
from pdvsim.records import RunRecord
from pdvsim.sweep import Cell, Load, sweep
from pdvsim.workload import Lengths

COMPARED = ("output_throughput", "median_ttft_ms", "median_tpot_ms", "median_e2el_ms")


@dataclass(frozen=True, slots=True)
class AtSpeed:
    """A profile on a host that is slower than calibrated by a known factor."""

    profile: Profile
    factor: float

    def replicate(self, seed: np.random.SeedSequence) -> tuple[Costs, HostCosts, Contention]:
        return self.profile.replicate(seed, self.factor)

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
    is the host's, once more at the host's speed during that very run (`host_speed`). Predicted
    and measured runs share workload and acceptance request by request.

    Raises:
        InputError: a bench of another pair or executor, or with real acceptance.
    """
    rows = []
    for bench in benches:
        rows += _compare(bench, profile, replications, on_run)
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
    replications: int,
    on_run: Callable[[int, int], None] | None,
) -> list[dict[str, Any]]:
    arguments = bench["arguments"]
    _check(arguments, profile)
    measured = bench["cells"]
    plans, seed = int(bench["replications"]), int(bench["seed"])
    calibrated = sweep(
        [_cell(cell, arguments, profile, profile) for cell in measured],
        max(replications, plans),
        seed,
        on_run=on_run,
        plans=plans,
    )
    factors: list[float | None] = [None] * len(measured)
    predicted = calibrated
    if profile.executor.synchronous:
        factors = [_run_factor(cell, profile) for cell in measured]
        models = [profile if f is None else AtSpeed(profile, f) for f in factors]
        cells = [
            _cell(cell, arguments, profile, model)
            for cell, model in zip(measured, models, strict=True)
        ]
        predicted = sweep(cells, max(replications, plans), seed, on_run=on_run, plans=plans)
    rows = []
    for cell, plain, result, factor in zip(measured, calibrated, predicted, factors, strict=True):
        row = result.to_dict()
        rows.append(
            row
            | {
                "measured": {name: cell[name] for name in COMPARED},
                "errors": errors(row, cell),
                "errors_as_calibrated": errors(plain.to_dict(), cell),
                "host_factor": factor,
                "telemetry": cell["telemetry"],
            }
        )
    return rows


def _run_factor(cell: dict[str, Any], profile: Profile) -> float | None:
    """The host's speed over all runs of a measured cell."""
    return host_factor([row for run in cell["runs"] for row in run["undisturbed"]], profile)


def _check(arguments: dict[str, Any], profile: Profile) -> None:
    for what, found, wanted in (
        ("pair", arguments["pair"], profile.file.pair),
        ("executor", arguments["executor"], profile.executor.name),
    ):
        if found != wanted:
            raise InputError(f"the bench ran {what} {found}, the profile is for {wanted}")
    if arguments["acceptance"] == "real":
        raise InputError("a bench with real acceptance has no outcomes to predict with")


def _cell(
    measured: dict[str, Any], arguments: dict[str, Any], profile: Profile, model: Profile | AtSpeed
) -> Cell:
    draft_tokens = int(arguments["draft_tokens"])
    concurrency = int(measured["concurrency"])
    return Cell(
        Config(
            measured["architecture"],
            profile.executor,
            batch_cap=concurrency,
            draft_tokens=draft_tokens,
            prefill_batch=int(arguments["prefill_batch"]),
        ),
        arguments["pair"],
        Load(
            "closed-loop",
            concurrency,
            Lengths(arguments["prompt_tokens"], arguments["output_tokens"]),
            Acceptance.constant(float(arguments["acceptance"]), draft_tokens),
            requests=arguments["requests"],
            cycles=arguments["cycles"],
        ),
        model,
    )


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
