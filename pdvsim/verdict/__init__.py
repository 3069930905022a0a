"""What came out, in words, and whether it may be relied on: decided once, stored in documents.

`ranking` says who is best at a load, `judging` gives each kind of document its verdict, `crossing`
the sentences of a crossover. Terminal, page and Python show what they say.
"""

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

__all__ = [
    "PENDING",
    "Contender",
    "cell_notes",
    "of_ablation",
    "of_audit",
    "of_crossover",
    "of_explanation",
    "of_ranks",
    "of_reproduction",
    "of_validation",
    "rank",
    "ranking_metric",
    "sentences",
]
