"""Mechanisms switched off, and what differences are made of."""

from pdvsim.ablate.mechanisms import Setting, mechanisms, without
from pdvsim.ablate.shapley import SCALES, Ablation, Part, Subject, ablate
from pdvsim.ablate.subjects import METRICS, predicted

__all__ = [
    "METRICS",
    "SCALES",
    "Ablation",
    "Part",
    "Setting",
    "Subject",
    "ablate",
    "mechanisms",
    "predicted",
    "without",
]
