"""Documents of version 1: their cells leave unsaid what architectures did then and now do not.

Prompts that are prefilled together, and requests that are verified together, were as many as in the
published systems; since then that is left to a rule (`auto`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdvsim.architectures import by_name
from pdvsim.documents.base import SCHEMA_VERSION

_OF_A_CELL = frozenset({"architecture", "executor", "concurrency", "parameters", "protocol"})


def upgraded(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document of version 1 as one of today."""
    return {**_named(document), "schema_version": SCHEMA_VERSION}


def parameters(architecture: object, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a cell of then."""
    found = by_name(str(architecture))
    return {**({} if found is None else found.published), **given}


def _named(part: Any) -> Any:
    """`part` of a document, with every cell in it naming what it left unsaid."""
    if isinstance(part, list):
        return [_named(one) for one in part]
    if not isinstance(part, Mapping):
        return part
    found = {key: _named(value) for key, value in part.items()}
    given = found.get("parameters")
    if found.keys() >= _OF_A_CELL and isinstance(given, dict):
        found["parameters"] = parameters(found["architecture"], given)
    return found
