"""What a metric is: its unit, what tables call it, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """A metric by its name in documents.

    Attributes:
        unit: of the stored value; empty for a number or a share of 1.
        heading: what tables and charts call it.
        shown: the unit there; a stored value times `scale` is in it.
        better: None where neither more nor less is better.
        bare: tables show no interval of it.
    """

    name: str
    unit: str
    heading: str
    shown: str
    scale: float = 1.0
    better: Better | None = None
    bare: bool = False

    @property
    def title(self) -> str:
        """`TTFT p50, s`."""
        return f"{self.heading}, {self.shown}" if self.shown else self.heading
