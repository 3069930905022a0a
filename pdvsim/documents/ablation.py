"""What a difference is made of: the document of `pdvsim ablate`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from pdvsim.documents.base import (
    Calibration,
    Document,
    Model,
    RecordedCell,
    RunLength,
    Table,
)
from pdvsim.documents.cells import told
from pdvsim.quantities import unit_of
from pdvsim.statistics import Interval


class Part(Model):
    """What one mechanism is worth: a factor, or an amount.

    Attributes:
        part: its Shapley value; the parts make the whole.
        share: of the whole; null where the whole is none.
        switched_off_alone: what changes when it alone is off.
        effect: whether it is worth a word.
    """

    mechanism: str
    part: Interval
    share: Interval | None
    switched_off_alone: Interval
    effect: bool


class Ablation(Document):
    """`pdvsim ablate`: what a difference is made of.

    Attributes:
        scale: parts are factors that multiply, or amounts that add up, to the whole.
        first: null where one architecture is held against itself without its mechanisms.
        decided: whether the whole is beyond its interval.
        cells: those compared; null where they come from a published table, or are not recorded.
        published: files of the published table.
        runs: simulated in all.
    """

    NAME: ClassVar[str] = "ablation"

    kind: Literal["ablate"]
    seed: int
    concurrency: int
    metric: str
    scale: Literal["ratio", "difference"]
    first: str | None
    second: str
    cells: tuple[RecordedCell, ...] | None
    published: tuple[str, ...] | None
    length: RunLength | None
    whole: Interval
    decided: bool
    parts: tuple[Part, ...]
    sentence: str
    replications: int = Field(ge=1)
    runs: int
    profile: Calibration

    @model_validator(mode="after")
    def _factors(self) -> Ablation:
        parts = [found for part in self.parts for found in (part.part, part.switched_off_alone)]
        for found in (self.whole, *parts) if self.scale == "ratio" else ():
            if any(end is not None and end <= 0.0 for end in (found.value, found.low, found.high)):
                raise ValueError("factors are above 0")
        return self

    def rows(self) -> Iterator[dict[str, Any]]:
        unit = "" if self.scale == "ratio" else unit_of(self.metric)
        for name, found in (
            *((p.mechanism, p.part) for p in self.parts),
            ("the whole", self.whole),
        ):
            yield {
                "mechanism": name,
                "metric": self.metric,
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "unit": unit,
            }

    def tables(self) -> Iterator[Table]:
        show = _factor if self.scale == "ratio" else told
        what = "factor" if self.scale == "ratio" else "amount"
        lines = [
            (
                (part.mechanism, ""),
                show(part.part),
                told(part.share, 100.0) if self.decided else ("n/a", ""),
                show(part.switched_off_alone),
            )
            for part in self.parts
            if part.effect
        ]
        lines.append((("the whole", ""), show(self.whole), ("100", ""), ("", "")))
        yield Table("", ("mechanism", what, "share, %", f"{what}, it alone off"), lines)


def _factor(found: Interval) -> tuple[str, str]:
    if found.low is None or found.high is None:
        return f"{found.value:.3f}", "no interval"
    return f"{found.value:.3f}", f"{found.low:.3f} to {found.high:.3f}"
