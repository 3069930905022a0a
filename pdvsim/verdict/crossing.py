"""What a crossover says: crossings, valleys and what stays open, in sentences; and its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pdvsim.documents.base import Verdict
from pdvsim.output import number
from pdvsim.verdict.judging import plural, verdict

if TYPE_CHECKING:
    from pdvsim.documents.crossover import Answer, Crossover, Point, Valley


def sentences(document: Crossover) -> list[str]:
    """One for each crossing and valley, and for what could not be decided."""
    over = document.axis.name
    lines = [
        f"From {over} {number(found.at.value)} on ({number(found.at.low)} to "
        f"{number(found.at.high)}) {document.name(found.better)} is better."
        for found in document.crossings
    ]
    if not lines:
        lines.append("No crossing is certain in this range.")
    lines.extend(_valley(document, valley) for valley in document.valleys)
    for answer, does in (
        ("open", "Open at {}: the ratio's interval includes 1."),
        ("alike", "Certainly alike at {}."),
        ("unknown", "Unknown at {}: the runs gave no ratio with an interval."),
    ):
        places = _places(document.points, answer)  # type: ignore[arg-type]
        if places:
            lines.append(does.format(f"{over} {places}"))
    return lines


def _valley(document: Crossover, valley: Valley) -> str:
    start, end = f"{valley.start:.4g}", f"{valley.end:.4g}"
    ratio = valley.ratio
    return (
        f"{document.name(valley.worse)} is worse at {document.axis.name} "
        f"{start if start == end else f'{start} to {end}'}, most at {valley.deepest:.4g}: "
        f"{document.second.label} / {document.first.label} = {number(ratio.value, 4)} "
        f"({number(ratio.low, 4)} to {number(ratio.high, 4)})."
    )


def _places(points: Sequence[Point], answer: Answer) -> str:
    return ", ".join(f"{point.at:.4g}" for point in points if point.answer == answer)


def of_crossover(document: Crossover) -> Verdict:
    """Its crossings; without any, who is better wherever somebody is."""
    kept = sentences(document)[: max(1, len(document.crossings))]
    better = {point.answer for point in document.points} & {"first", "second"}
    if not document.crossings and len(better) == 1:
        winner = document.name(better.pop())
        kept = [f"{winner} is better wherever one of them certainly is; no crossing is certain."]
    answers = [point.answer for point in document.points]
    caveats = [
        f"{plural(answers.count(answer), 'point')} {what}"
        for answer, what in (
            ("open", "left open: the ratio's interval includes 1"),
            ("unknown", "without a ratio or its interval"),
        )
        if answer in answers
    ]
    return verdict(
        f"{document.metric} of {document.second.label} against {document.first.label}: "
        f"{' '.join(kept)}",
        caveats,
    )
