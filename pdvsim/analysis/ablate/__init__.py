"""Mechanisms switched off, and what differences are made of."""

from pdvsim.analysis.ablate.game import SCALES, Ablation, Part, Subject, ablate
from pdvsim.analysis.ablate.mechanisms import MECHANISMS, Setting
from pdvsim.analysis.ablate.subjects import METRICS, predicted, published

__all__ = [
    "MECHANISMS",
    "METRICS",
    "SCALES",
    "Ablation",
    "Part",
    "Setting",
    "Subject",
    "ablate",
    "predicted",
    "published",
]
