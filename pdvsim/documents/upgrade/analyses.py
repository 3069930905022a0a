"""Old explanations, crossovers and ablations."""

from __future__ import annotations

from collections.abc import Mapping

from pdvsim.documents.base import PUBLISHED_ENGINES
from pdvsim.documents.upgrade.cells import arguments_of, cell_of
from pdvsim.documents.upgrade.first import named
from pdvsim.documents.upgrade.old import (
    Old,
    Plain,
    command_line,
    interval_of,
    ours,
)
from pdvsim.verdict import PENDING

# What a second axis could be.
_FIELDS = (
    *("concurrency", "rate_per_s", "draft_tokens", "acceptance", "prompt_tokens"),
    *("output_tokens", "admission_factor", "model_ratio"),
)


def explain(old: Old) -> Plain:
    """`pdvsim explain`, which did not record what it simulated."""
    cells = [_explained(cell) for cell in old.each("cells")]
    gaps = [
        {"label": gap.take("architecture"), **gap.rest()}
        for gap in old.each("predicted_less_measured")
    ]
    profile = old.take("profile")
    loads = ", ".join(map(str, sorted({cell["concurrency"] for cell in cells})))
    about = [] if profile is None else [profile["pair"], profile["executor"]]

    content = {
        "command": "pdvsim explain",
        "subject": " · ".join((*about, f"C = {loads}")),
        "valid_for": "pdvsim's engines" if profile is None else ours(profile),
        "interval": interval_of(old),
        "verdict": PENDING,
        "notes": (),
        "seed": old.take("seed"),
        "replications": old.take("replications"),
        "cells": cells,
        "differences": old.items("differences"),
        "predicted_less_measured": gaps,
        "largest_gaps": [
            _largest(cause, Old(found, f"{old.place}, largest_gaps, {cause}"))
            for cause, found in (old.maybe("largest_gaps") or {}).items()
        ],
        "profile": profile,
    }
    named_all: Plain = named(content)
    return named_all


def _explained(cell: Old) -> Plain:
    row = {"label": cell.take("architecture"), "cell": None, "length": None}
    for kind in ("threads", "streams"):
        row[kind] = [
            {"name": name, "spent": [{"what": w, "seconds": s} for w, s in spent.items()]}
            for name, spent in cell.take(f"{kind}_of_first_run").items()
        ]
    return {**row, "concurrency": cell.take("concurrency"), **cell.rest()}


def _largest(cause: str, old: Old) -> Plain:
    at = old.inside("at")
    place = {"label": at.take("architecture"), "concurrency": at.take("concurrency")}
    at.done()
    return {"cause": cause, **place, **old.rest()}


def crossover(old: Old) -> Plain:
    """`pdvsim crossover`."""
    arguments, profile = arguments_of(old), old.take("profile")
    lower, over = old.take("lower_is_better"), old.take("over")
    base = {"pair": old.take("pair"), "executor": old.take("executor")}
    base["protocol"] = arguments.get("protocol", "closed-loop")
    first, second = (_side(old.take(key), arguments, base) for key in ("first", "second"))
    names = {first["label"]: "first", second["label"]: "second"}
    points = [_point(point, names) for point in old.each("points")]
    for key in ("alike", "undecided", "seed"):  # said again by the points and the cells
        old.take(key)
    drawn = old.take("map")

    return {
        "command": command_line("crossover", arguments),
        "subject": " · ".join((*base.values(), f"{second['label']} against {first['label']}")),
        "valid_for": ours(profile),
        "interval": interval_of(old),
        "verdict": PENDING,
        "notes": (),
        "first": first,
        "second": second,
        "axis": _axis(over),
        "metric": old.take("metric"),
        "better": "lower" if lower else "higher",
        "length": None,
        "points": points,
        "crossings": [_crossing(found, lower) for found in old.each("crossings")],
        "valleys": [_valley(valley, names) for valley in old.each("valleys")],
        "pairs_of_runs": old.take("pairs_of_runs"),
        "sentences": (),
        "map": None if drawn is None else _map(Old(drawn, f"{old.place}, map"), lower),
        "profile": profile,
    }


def _axis(name: str) -> Plain:
    # What the axes were; those of today may differ.
    return {
        "name": name,
        "logarithmic": name not in ("acceptance", "draft-tokens"),
        "whole": name in ("concurrency", "draft-tokens", "prompt-tokens", "output-tokens"),
    }


def _side(text: str, arguments: Plain, base: Plain) -> Plain:
    name, _, rest = text.partition("@")
    own: Plain = {}
    for part in rest.split(",") if rest else ():
        key, _, value = part.partition("=")
        own[key] = float(value) if "." in value else int(value)
    cell = {**base, "architecture": name, "concurrency": arguments.get("concurrency") or 32}
    # Where the axis is the rate, there may be no other.
    rate = arguments.get("rate") or (1.0 if base["protocol"] == "poisson" else None)
    return {"label": text, "cell": cell_of(cell, {**arguments, **own, "rate": rate})}


def _point(old: Old, names: Mapping[str, str]) -> Plain:
    ratio, answer = old.take("ratio"), old.take("verdict")
    told = ratio is not None and ratio["low"] is not None and ratio["high"] is not None
    return {
        "at": old.take("load"),
        "ratio": ratio,
        # Without an interval nothing was ever decided; such points were called open.
        "answer": names.get(answer, answer) if told else "unknown",
        "pairs_of_runs": old.take("replications"),
        **old.rest(),
    }


def _crossing(old: Old, lower: bool) -> Plain:
    rises = old.take("ratio_rises")
    found = {
        "at": {name: old.take(name) for name in ("value", "low", "high")},
        "ratio_rises": rises,
        "better": "second" if rises != lower else "first",
        "pairs_of_runs": old.take("replications"),
        "places": old.take("loads"),
    }
    old.done()
    return found


def _valley(old: Old, names: Mapping[str, str]) -> Plain:
    worse = names.get(old.take("worse"))
    return {"worse": worse, "start": old.take("from"), "end": old.take("to"), **old.rest()}


def _map(old: Old, lower: bool) -> Plain:
    rows = []
    for row in old.each("rows"):
        points = []
        for point in row.each("points"):
            ratio = point.take("ratio")
            # Its other key was the name of a field, by which it was found.
            field = next((name for name in _FIELDS if name in point), "acceptance")
            points.append({"at": point.take(field), "ratio": ratio})
            point.done()
        even = [_crossing(found, lower) for found in row.each("break_even")]
        rows.append({"at": row.take("load"), "points": points, "break_even": even})
        row.done()
    found = {"axis": _axis(old.take("across")), "rows": rows}
    old.done()
    return found


def ablate(old: Old) -> Plain:
    """`pdvsim ablate`, which did not record what it simulated."""
    profile, published = old.take("profile"), old.maybe("published")
    concurrency, first, second = (old.take(key) for key in ("concurrency", "first", "second"))
    parts = [_part(part) for part in old.each("parts")]

    return {
        "command": "pdvsim ablate",
        "subject": f"{second} against {first or 'itself'} · C = {concurrency}",
        "valid_for": ours(profile) if published is None else PUBLISHED_ENGINES,
        "interval": interval_of(old),
        "verdict": PENDING,
        "notes": (),
        "concurrency": concurrency,
        "first": first,
        "second": second,
        "cells": None,
        "published": published,
        "length": None,
        "parts": parts,
        "profile": profile,
        **old.rest(),
    }


def _part(old: Old) -> Plain:
    share = old.take("share")
    return {"share": None if share["value"] is None else share, **old.rest()}
