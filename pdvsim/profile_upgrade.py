"""Profiles of earlier schema versions in the present one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pdvsim.core import EXECUTORS, PREFILLS, Drafter, Stage
from pdvsim.cost_fit import ABOVE
from pdvsim.errors import InputError
from pdvsim.models import pair
from pdvsim.profile_file import SCHEMA_VERSION
from pdvsim.work import draft_passes

_HINGE = "query_above_"  # of new tokens of a whole launch
_PROMPT_BESIDE = 256
_LONGEST_PROMPT = 512  # of every full plan of versions 1 and 2


def upgraded(document: dict[str, Any]) -> dict[str, Any]:
    """A document of any known schema version in the present one.

    Version 1 named its pair, of shapes that ship, where version 2 holds them. Both were measured at
    one draft length, and their terms are of a whole launch: a draft stage is read as so many equal
    passes, one after the other.

    Raises:
        InputError: another version, or contents that none had.
    """
    version = document.get("schema_version")
    if version == SCHEMA_VERSION:
        return document
    if version not in (1, 2):
        raise InputError(
            f"schema version {version!r}, but this pdvsim reads versions 1 to {SCHEMA_VERSION}; "
            "calibrate again"
        )
    if version == 1:
        document = _with_shapes(document)
    try:
        return _with_passes(document)
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        ZeroDivisionError,
    ) as error:
        raise InputError(
            f"not a whole profile of schema version {version} ({error!r}); calibrate again"
        ) from None


def _with_shapes(document: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(document.get("pair"), str):
        raise InputError("its pair is not said")
    models = pair(document["pair"])
    rest = {key: value for key, value in document.items() if key != "pair"}
    return {**rest, "draft": asdict(models.draft), "verifier": asdict(models.verifier)}


def _with_passes(document: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in document.items() if key != "draft_tokens"}
    executor = EXECUTORS[document["executor"]].with_drafter(_drafter(document))
    passes = max(1, draft_passes(executor, document["draft_tokens"]))
    longest = max(_longest_prompt(fit["measured"]) for fit in document["stages"].values())
    stages = {
        name: _stage(name, fit, passes if name == Stage.DRAFT else 1, executor.synchronous, longest)
        for name, fit in document["stages"].items()
    }
    beside = [_beside(entry, document["draft_tokens"]) for entry in document["contention"]]
    return {**rest, "schema_version": SCHEMA_VERSION, "stages": stages, "contention": beside}


def _drafter(document: Mapping[str, Any]) -> Drafter:
    draft = document["draft"]
    if "kind" in draft:
        return Drafter(draft["kind"])
    return Drafter.EAGLE3 if "layer" in draft else Drafter.MODEL


def _stage(
    name: str, fit: Mapping[str, Any], passes: int, synchronous: bool, longest: int
) -> dict[str, Any]:
    # A batched launch is one call of the host's, whatever the passes.
    on_host = passes if synchronous else 1
    return {
        **fit,
        "host": _cost(fit["host"], on_host),
        "device": _cost(fit["device"], passes),
        "measured": _range(name, fit["measured"], passes, longest),
    }


def _beside(entry: Mapping[str, Any], draft_tokens: int) -> dict[str, Any]:
    """Measured by batches, beside prompts of one length."""
    stage, other = entry["stage"], entry["other"]
    decides = stage if other in PREFILLS else other
    rows = entry["batch"] * (draft_tokens + 1 if decides == Stage.VERIFY else 1)
    prompt = _PROMPT_BESIDE if {stage, other} & {*PREFILLS} else 0
    rest = {"stage": stage, "other": other, "speed": entry["speed"]}
    return {**rest, "rows": rows, "prompt_tokens": prompt}


def _cost(cost: Mapping[str, Any], passes: int) -> dict[str, Any]:
    """A cost of a launch of so many passes as one of a pass, times their number."""
    names, scales = [], []
    for term in cost["terms"]:
        name, scale = str(term), 1.0
        if name.startswith(_HINGE):
            name = f"{ABOVE}{float(name.removeprefix(_HINGE)) / passes:g}"
        elif name == "per_query_pair":
            name, scale = "per_prompt_pair", 2.0
        elif name != "per_query_token" and passes > 1:
            name = {"fixed": "per_pass", "per_request": "per_pass_request"}.get(name, name)
            scale = 1.0 / passes
        names.append(name)
        scales.append(scale)

    def scaled(weights: Sequence[float]) -> list[float]:
        return [scale * weight for scale, weight in zip(scales, weights, strict=True)]

    return {
        **cost,
        "terms": names,
        "weights": scaled(cost["weights"]),
        "draws": [scaled(draw) for draw in cost["draws"]],
    }


def _longest_prompt(measured: Mapping[str, Sequence[int]]) -> int:
    most_requests = measured["batch"][1]
    # A quick look had two prompts and three batches; a full plan its long prompts in small batches.
    whole = measured["context_tokens"][1] // most_requests
    return _LONGEST_PROMPT if most_requests > 4 else whole


def _range(
    name: str, measured: Mapping[str, Sequence[int]], passes: int, longest: int
) -> dict[str, Any]:
    (least, most), (low, high) = measured["batch"], measured["query_tokens"]
    new = [low // least // passes, high // most // passes]
    if name in PREFILLS:
        new[1] = longest
    context = [measured["context_tokens"][0] // least, longest]
    context[1] = max(context[1], measured["context_tokens"][1] // most, context[0])
    return {
        "batch": [least, most],
        "passes": [passes, passes],
        "new_tokens": [max(1, one) for one in new],
        "context_tokens": context,
    }
