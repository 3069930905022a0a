"""Documents of version 1: what they leave unsaid.

Prompts that are prefilled together, and requests that are verified together, were as many as in the
published systems; since then that is left to a rule (`auto`). Nobody waited for the KV cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdvsim.architectures import by_name
from pdvsim.documents.base import SCHEMA_VERSION
from pdvsim.quantities import CAUSES

CAUSES_THEN = tuple(cause for cause in CAUSES if cause != "KV cache full")
_OF_A_CELL = frozenset({"architecture", "executor", "concurrency", "parameters", "protocol"})


def upgraded(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document of version 1 as one of today."""
    return {**named(document), "schema_version": SCHEMA_VERSION}


def parameters(architecture: object, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a cell of then."""
    found = by_name(str(architecture))
    return {**({} if found is None else found.published), **given}


def named(part: Any) -> Any:
    """`part` of a document, with every cell and every list of causes naming what it left unsaid."""
    if isinstance(part, list):
        return [named(one) for one in part]
    if not isinstance(part, Mapping):
        return part
    found = {key: named(value) for key, value in part.items()}
    if found.keys() == set(CAUSES_THEN):
        found["KV cache full"] = _nothing(found[CAUSES_THEN[0]])
    given = found.get("parameters")
    if found.keys() >= _OF_A_CELL and isinstance(given, dict):
        found["parameters"] = parameters(found["architecture"], given)
    return found


def _nothing(like: Any) -> Any:
    """0, in the shape of `like`: a number, an interval or a cause."""
    if isinstance(like, Mapping):
        return {key: _nothing(value) for key, value in like.items()}
    return 0.0
