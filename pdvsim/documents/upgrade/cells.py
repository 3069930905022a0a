"""Old predictions, benchmarks and validations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pdvsim.architectures import by_name
from pdvsim.cell import FIELDS
from pdvsim.documents.cells import Rank, Row
from pdvsim.documents.upgrade.first import parameters
from pdvsim.documents.upgrade.old import Decide, Old, Plain, command_line, interval_of, ours
from pdvsim.errors import InputError
from pdvsim.quantities import LATER, QUANTITIES, told_by
from pdvsim.verdict import PENDING, Contender, cell_notes, rank, ranking_metric

# Options that every command had, and those that some had.
_NEEDED = ("prompt_tokens", "output_tokens", "acceptance", "draft_tokens", "seed")
_OPTIONS = (
    *("concurrency", "architecture", "pair", "executor", "profile_name", "protocol", "rate"),
    *("trace", "requests", "cycles", "admission_factor", "prefill_batch", "replications"),
    *("slo_ttft_ms", "slo_tpot_ms", "formulas", "device", "first", "second", "over", "low"),
    *("high", "points", "metric", "second_axis"),
)
_NAMES = ("architecture", "executor", "pair", "protocol", "concurrency")
_OF_RUN = ("launched", "undisturbed", "launching_s", "elapsed_s", "verb_overhead_s", "rounds")
_LATER = {"sm_clock_mhz_mean": None, "power_w_mean": None}  # telemetry of later versions
Tied = Callable[[str, str], bool | None]


def arguments_of(old: Old) -> Plain:
    """The options of the command."""
    arguments = old.inside("arguments")
    needed = {name: arguments.take(name) for name in _NEEDED}
    return {**arguments.rest(_OPTIONS), **needed}


def cell_of(named: Plain, arguments: Plain) -> Plain:
    """What ran, from what names a cell and the options of its command; parameters went to all
    architectures then, also to those that had none such."""
    given = {
        name: arguments[name]
        for name, default in (("prefill_batch", 1), ("admission_factor", 1.0))
        if arguments.get(name, default) != default
    }
    found = by_name(named["architecture"])
    if found is not None and found.published.get("prefill_batch") != 1:
        given.pop("prefill_batch", None)  # it had no such parameter then
    draft_tokens, acceptance = arguments["draft_tokens"], arguments["acceptance"]
    trace = arguments.get("trace")
    defaults = {name: field.default for name, field in FIELDS.items()}
    return {
        **defaults,
        **{name: named[name] for name in _NAMES},
        **{name: arguments[name] for name in _NEEDED},
        **{name: arguments.get(name) for name in ("requests", "slo_ttft_ms", "slo_tpot_ms")},
        "parameters": parameters(
            named["architecture"], given if found is None else found.own(given)
        ),
        "rate_per_s": arguments.get("rate"),
        "trace": None if trace is None else {"path": trace, "sha256": None, "columns": None},
        "cycles": arguments.get("cycles") or 2,
        "acceptance": "real" if acceptance == "real" else [float(acceptance)] * draft_tokens,
    }


def predict(old: Old) -> tuple[Plain, Decide]:
    """`pdvsim predict`."""
    arguments = arguments_of(old)
    rows, named = _rows(old, arguments)
    close = set()
    for tie in old.each("too_close_to_call"):
        close.add(frozenset((tie.take("first"), tie.take("second"))))
        tie.inside("ratio").rest(("value", "low", "high"))
        tie.done()
    profile = old.take("profile")
    slo = old.take("slo") is not None
    ranked = _ranked(named, slo, "delivers", lambda a, b: frozenset((a, b)) in close)
    old.maybe("prefill_batch")
    lines = [_formula(line) for line in old.each("formulas")] if "formulas" in old else []
    return {
        "command": command_line("predict", arguments),
        "valid_for": ours(profile),
        **_shared(old, rows, named),
        "formulas": lines,
        "profile": profile,
    }, _decided(old, ranked)


def _formula(old: Old) -> Plain:
    return {"label": old.take("architecture"), **old.rest()}


def bench(old: Old) -> tuple[Plain, Decide]:
    """`pdvsim bench`."""
    arguments = arguments_of(old)
    rows, named = _rows(old, arguments, _runs)
    machine = old.inside("profile").rest()
    note = old.text("note")
    decide = _decided(old, _ranked(named, False, "delivered"), note)
    return {
        "command": machine.get("command", command_line("bench", arguments)),
        "valid_for": ours({**named[0], **machine}) if named else "",
        **_shared(old, rows, named),
        "machine": machine,
        "models": None,
        "created": machine.get("created"),
        "git_revision": machine.get("git_revision"),
    }, decide


def _runs(cell: Old) -> Plain:
    """A measured cell's runs, whose telemetry stood apart."""
    telemetry, runs = cell.items("telemetry"), cell.each("runs")
    if len(runs) != len(telemetry):
        raise InputError(f"{cell.place}: {len(runs)} runs, but telemetry of {len(telemetry)}")
    found = []
    for run, seen in zip(runs, telemetry, strict=True):
        about = {name: run.take(name) for name in _OF_RUN}
        about |= {"records": None, "failed": 0, "failure": None}
        found.append(about | {"telemetry": _LATER | seen})
        run.done()
    return {"runs": found}


def validate(old: Old) -> tuple[Plain, Decide]:
    """`pdvsim validate`."""
    measured, arguments = old.items("measured"), arguments_of(old)
    # The options are those of the first benchmark; another may have had its own lengths.
    rows, named = _rows(old, arguments if len(measured) == 1 else None, _held)
    summary = old.inside("summary")
    errors = {
        "as_calibrated": _errors(summary.take("as_calibrated")),
        "at_run_speed": _errors(summary.maybe("at_run_speed", {})),
    }
    summary.done()
    profile = old.take("profile")
    decide = _decided(old, _ranked(named, False, "delivers"))
    return {
        "command": command_line("validate", arguments),
        "valid_for": ours(profile),
        **_shared(old, rows, named),
        **errors,
        "measured_on": measured,
        "profile": profile,
    }, decide


def _held(cell: Old) -> Plain:
    names = ("measured", "errors", "errors_as_calibrated", "host_factors", "gil_speeds")
    found = {name: cell.take(name) for name in names}
    return {**found, "telemetry": [_LATER | seen for seen in cell.items("telemetry")]}


def _errors(found: Plain) -> list[Plain]:
    return [{"metric": name, **entry} for name, entry in found.items()]


def _rows(
    old: Old, arguments: Plain | None, more: Callable[[Old], Plain] = lambda cell: {}
) -> tuple[list[Plain], list[Plain]]:
    """Rows of today, and what named each cell."""
    rows, names = [], []
    for cell in old.each("cells"):
        named = {name: cell.take(name) for name in _NAMES}
        rows.append({**_row(cell, named, arguments), **more(cell)})
        names.append(named)
        cell.done()
    differing = [n for n in ("executor", "pair") if len({named[n] for named in names}) > 1]
    for row, named in zip(rows, names, strict=True):
        row["label"] = " · ".join((row["label"], *(named[n] for n in differing)))
    return rows, names


def _row(cell: Old, named: Plain, arguments: Plain | None) -> Plain:
    known = [name for name in QUANTITIES if name in cell]
    metrics = {n: cell.maybe(n) if n in LATER else cell.take(n) for n in told_by(known)}
    seconds, requests = metrics["duration_s"], metrics["completed"]
    return {
        "label": named["architecture"],
        "concurrency": named["concurrency"],
        "cell": None if arguments is None else cell_of(named, arguments),
        "length": {
            "runs": cell.take("replications"),
            "seconds": seconds and seconds["value"],
            "requests": requests and requests["value"],
        },
        "metrics": metrics,
        "acceptance_per_position": cell.take("spec_decode_per_position_acceptance_rates"),
        **{name: cell.take(name) for name in ("reasons", "extrapolated", "stages", "timeline")},
    }


def _shared(old: Old, rows: list[Plain], named: Sequence[Plain]) -> Plain:
    """What these documents have in common; what stands in the cells is dropped."""
    old.take("seed")
    old.take("replications")
    old.maybe("slo")
    parts = [
        ", ".join(dict.fromkeys(str(one[key]) for one in named))
        for key in ("pair", "executor", "protocol")
    ]
    loads = ", ".join(map(str, sorted({one["concurrency"] for one in named})))
    return {
        "subject": " · ".join((*parts, f"C = {loads}")),
        "interval": interval_of(old),
        "verdict": PENDING,
        "notes": (),
        "cells": rows,
        "ranks": (),
    }


def _ranked(
    named: Sequence[Plain], slo: bool, verb: str, tied: Tied = lambda first, second: None
) -> Callable[[Sequence[Row]], list[Rank]]:
    """Ranks the rows; without single runs, neighbours are told apart by `tied` or by whether their
    intervals overlap."""
    protocols = {one["protocol"] for one in named}
    metric = ranking_metric(protocols.pop() if len(protocols) == 1 else "", slo)

    def ranks(rows: Sequence[Row]) -> list[Rank]:
        return [
            rank(
                [
                    Contender(row.label, found)
                    for row in rows
                    if row.concurrency == at and (found := row.metric(metric))
                ],
                metric,
                at,
                f"C = {at}",
                verb,
                tied,
            )
            for at in sorted({row.concurrency for row in rows})
        ]

    return ranks


def _decided(
    old: Old, ranked: Callable[[Sequence[Row]], list[Rank]], note: str | None = None
) -> Decide:
    acceptance: Any = old.take("acceptance")

    def decide(document: Any) -> Plain:
        ranks = ranked(document.cells)
        notes = [f"Acceptance: {acceptance}.", *cell_notes(document.cells)]
        if note:
            notes.append(f"{note[:1].upper()}{note[1:]}.")
        return {"ranks": tuple(ranks), "notes": tuple(notes)}

    return decide
