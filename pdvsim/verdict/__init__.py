"""What came out, in words, and whether it may be relied on: decided once, stored in documents.

`ranking` says who is best at a load, `judging` gives each kind of document its verdict, `crossing`
the sentences of a crossover. Terminal, page and Python show what they say.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pdvsim.documents.analyses import Ablation, Crossover, Explanation
from pdvsim.documents.base import Document
from pdvsim.documents.cells import CellsDocument, Validation
from pdvsim.documents.tables import Audit, Reproduction
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
from pdvsim.verdict.ranking import Contender, rank, ranking_metric

__all__ = ["PENDING", "Contender", "cell_notes", "judged", "rank", "ranking_metric"]

Kind = TypeVar("Kind", bound=Document)


def judged(document: Kind) -> Kind:
    """`document` with the verdict that its numbers have; a crossover also with its sentences."""
    decided: dict[str, Any] = {}
    match document:
        case Validation():
            decided["verdict"] = of_validation(document)
        case CellsDocument():
            decided["verdict"] = of_ranks(document.ranks, document.cells)
        case Explanation():
            decided["verdict"] = of_explanation(document)
        case Crossover():
            decided["sentences"] = tuple(sentences(document))
            decided["verdict"] = of_crossover(document)
        case Ablation():
            decided["verdict"] = of_ablation(document)
        case Reproduction():
            decided["verdict"] = of_reproduction(document)
        case Audit():
            decided["verdict"] = of_audit(document)
    return document.model_copy(update=decided)
