"""What came out, in words, and whether it may be relied on: decided once, stored in documents.

`ranking` says who is best at a load, `judging` gives each kind of document its verdict, `crossing`
the sentences of a crossover. Terminal, page and Python show what they say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pdvsim.documents.base import Document, Verdict
from pdvsim.verdict.crossing import of_crossover, sentences
from pdvsim.verdict.judging import (
    PENDING,
    cell_notes,
    of_ablation,
    of_audit,
    of_explanation,
    of_ranks,
    of_reproduction,
    of_validation,
)
from pdvsim.verdict.ranking import Contender, better_on, rank, ranking_metric

__all__ = ["PENDING", "Contender", "better_on", "cell_notes", "judged", "rank", "ranking_metric"]

Kind = TypeVar("Kind", bound=Document)

# By kind of document.
_JUDGES: dict[str, Callable[[Any], Verdict]] = {
    "predict": of_ranks,
    "bench": of_ranks,
    "validate": of_validation,
    "explain": of_explanation,
    "crossover": of_crossover,
    "ablate": of_ablation,
    "reproduce": of_reproduction,
    "audit": of_audit,
}


def judged(document: Kind) -> Kind:
    """`document` with the verdict that its numbers have; a crossover also with its sentences."""
    decided: dict[str, Any] = {"verdict": _JUDGES[document.kind](document)}
    if document.kind == "crossover":
        decided["sentences"] = tuple(sentences(document))  # type: ignore[arg-type]
    return document.model_copy(update=decided)
