"""Documents as pdvsim 0.1 wrote them, before they were typed: turned into those of today.

What such a document did not record (its version and date, in explanations and ablations also the
cells) stays null. A key that it must have and lacks, or that it never had, is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pdvsim.documents.base import SCHEMA_VERSION, Document
from pdvsim.documents.upgrade import analyses, cells, tables
from pdvsim.documents.upgrade.old import Decide, Old, Plain
from pdvsim.errors import InputError
from pdvsim.verdict import judged

# Those of cells come with what ranks them.
_RANKED: dict[str, Callable[[Old], tuple[Plain, Decide]]] = {
    "predict": cells.predict,
    "bench": cells.bench,
    "validate": cells.validate,
}
_UPGRADES: dict[str, Callable[[Old], Plain]] = {
    "explain": analyses.explain,
    "crossover": analyses.crossover,
    "ablate": analyses.ablate,
    "reproduce": tables.reproduce,
    "audit": tables.audit,
}


def upgraded(
    content: Mapping[str, Any], source: str, validated: Callable[[Mapping[str, Any], str], Document]
) -> Document:
    """The document of today that says what `content` says.

    Args:
        validated: makes a document of plain JSON types.

    Raises:
        InputError: it is of no command, or a key is missing or unknown.
    """
    old = Old(content, source)
    command = old.maybe("command", "audit" if "findings" in old else None)
    if not isinstance(command, str) or command not in {**_RANKED, **_UPGRADES}:
        raise InputError(
            f"{source}: not the output of a pdvsim command (it has neither 'kind' nor a "
            f"'command' that is one of {', '.join((*_RANKED, *_UPGRADES))})"
        )
    try:
        fields, decide = _upgraded(command, old)
    except (TypeError, AttributeError, ValueError, KeyError) as error:
        raise InputError(f"{source}: not as pdvsim {command} wrote it ({error!r})") from None
    old.done()
    head = {"kind": command, "schema_version": SCHEMA_VERSION}
    unknown = dict.fromkeys(("pdvsim", "created", "git_revision"))
    document = validated({**unknown, **head, **fields}, source)
    return judged(document.model_copy(update=decide(document)))


def _upgraded(command: str, old: Old) -> tuple[Plain, Decide]:
    if command in _RANKED:
        return _RANKED[command](old)
    return _UPGRADES[command](old), lambda document: {}
