"""Old reproductions and audits."""

from __future__ import annotations

from pdvsim.documents.base import ANY_ENGINE, PUBLISHED_ENGINES
from pdvsim.documents.upgrade.old import Old, Plain
from pdvsim.verdict import PENDING


def reproduce(old: Old) -> Plain:
    """`pdvsim reproduce`."""
    source, arguments = old.inside("calibrated_from"), old.inside("arguments")
    files = [arguments.take(name) for name in ("summary", "detailed")]
    arguments.done()
    rounds = source.take("round_ms").items()

    return {
        "command": f"pdvsim reproduce {' '.join(files)}",
        "subject": f"published table {files[0]}",
        "valid_for": PUBLISHED_ENGINES,
        "verdict": PENDING,
        "notes": (),
        "files": files,
        "length": None,
        "cells": [_cell(cell) for cell in old.each("cells")],
        "gains": [_gain(gain) for gain in old.each("gains")],
        "calibrated_from": {
            "rounds": [{"engine": engine, "round_ms": ms} for engine, ms in rounds],
            **source.rest(),
        },
        **{
            name: old.take(name)
            for name in (
                *("interval", "seed", "replications", "median_abs_error_tps"),
                *("inside_interval", "profile"),
            )
        },
    }


def _cell(old: Old) -> Plain:
    published = {name: old.take(f"published_{name}") for name in ("tps", "latency_ms", "completed")}
    found = {
        **{name: old.take(name) for name in ("engine", "concurrency", "inside_interval")},
        "published": published,
        "predicted": {
            "tps": _interval(old, "predicted_tps"),
            "latency_ms": _interval(old, "predicted_latency_ms"),
            "completed": old.take("predicted_completed"),
        },
    }
    old.done()
    return found


def _interval(old: Old, name: str) -> Plain | None:
    """Three keys as one interval; none where there is no value."""
    found = {
        "value": old.take(name),
        "low": old.take(f"{name}_low"),
        "high": old.take(f"{name}_high"),
    }
    return None if found["value"] is None else found


def _gain(old: Old) -> Plain:
    return {"predicted": _interval(old, "predicted"), **old.rest()}


def audit(old: Old) -> Plain:
    """`pdvsim audit`."""
    findings = []
    for finding in old.each("findings"):
        evidence = finding.take("evidence").items()
        named = [{"name": name, "value": value} for name, value in evidence]
        findings.append({"evidence": named, **finding.rest()})
    old.maybe("verdict")
    left_out = old.maybe("left_out", [])
    source, form = old.take("source"), old.take("format")

    return {
        "command": f"pdvsim audit {source}",
        "subject": f"{source} · {form}",
        "valid_for": ANY_ENGINE,
        "interval": "none: arithmetic",
        "verdict": PENDING,
        "notes": [f"Left out: {sentence}." for sentence in left_out],
        "source": source,
        "format": form,
        "cell_count": old.take("cells"),
        "findings": findings,
        "rules": old.items("rules"),
    }
