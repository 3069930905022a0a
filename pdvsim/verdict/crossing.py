"""What a crossover says: crossings, valleys and what stays open, in sentences; and its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pdvsim.documents.base import Verdict
from pdvsim.output import number
from pdvsim.verdict.judging import calibration_caveats, plural, verdict
from pdvsim.verdict.ranking import machines

TAIL = 0.025  # of machines, beyond either end of an interval

if TYPE_CHECKING:
    from pdvsim.documents.crossover import Answer, Crossing, Crossover, Point, Valley


def sentences(document: Crossover) -> list[str]:
    """One for each crossing and valley, and for what could not be decided."""
    over = document.axis.name
    lines = [_crossing(document, found) for found in document.crossings]
    if not lines:
        lines.append("No crossing is certain in this range.")
    lines.extend(_valley(document, valley) for valley in document.valleys)
    lines.extend(_overloads(document))
    if where := _open(document):
        lines.append(f"It depends on the machine at {over} {where}.")
    for answer, does in (
        ("alike", "Certainly alike at {}."),
        ("unknown", "Unknown at {}: the runs gave no ratio with an interval."),
    ):
        places = _places(document.points, answer)  # type: ignore[arg-type]
        if places:
            lines.append(does.format(f"{over} {places}"))
    return lines


def _crossing(document: Crossover, found: Crossing) -> str:
    over, better = document.axis.name, document.name(found.better)
    value, low, high = (
        f"{end:.0f}" if end is not None and document.axis.whole else number(end)
        for end in (found.at.value, found.at.low, found.at.high)
    )
    if found.beyond > TAIL:
        high = f"beyond {high}"
    if found.before > TAIL:
        low = f"below {low}"
    told = f"From {over} {value} on ({low} to {high}) {better} is better"
    if found.beyond > TAIL:
        told += f"; not up to {high.split()[-1]} on {machines(found.beyond)}"
    if found.before > TAIL:
        told += f"; already at {low.split()[-1]} on {machines(found.before)}"
    return f"{told}."


def _open(document: Crossover) -> str:
    """Where machines differ, and how many of them like which."""
    lower = document.better == "lower"
    places = []
    for point in document.points:
        if point.answer == "open":
            share = point.share
            where = f"{point.at:.4g}"
            if share is not None:
                first = share if lower else 1.0 - share
                side, most = ("first", first) if first >= 0.5 else ("second", 1.0 - first)
                where += f" ({document.name(side)} is better on {machines(most)})"
            places.append(where)
    return ", ".join(places)


def _overloads(document: Crossover) -> list[str]:
    """Where more requests come than a side, or both, can serve."""
    lines = []
    for sides, who in (
        (("first",), f"{document.first.label} is"),
        (("second",), f"{document.second.label} is"),
        (("first", "second"), "Both are"),
    ):
        places = [f"{point.at:.4g}" for point in document.points if point.overloaded == sides]
        if places:
            lines.append(f"{who} overloaded at {document.axis.name} {', '.join(places)}.")
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
    found = [point for point in points if point.answer == answer and not point.overloaded]
    return ", ".join(f"{point.at:.4g}" for point in found)


def of_crossover(document: Crossover) -> Verdict:
    """Its crossings; without any, who is better wherever somebody is."""
    kept = sentences(document)[: max(1, len(document.crossings))]
    better = {point.answer for point in document.points} & {"first", "second"}
    if not document.crossings and len(better) == 1:
        winner = document.name(better.pop())
        kept = [f"{winner} is better wherever machines agree; no crossing is certain."]
    answers = [point.answer for point in document.points if not point.overloaded]
    caveats = calibration_caveats(document) + [
        f"{plural(answers.count(answer), 'point')} {what}"
        for answer, what in (
            ("open", "left open: machines differ in which is better"),
            ("unknown", "without a ratio or its interval"),
        )
        if answer in answers
    ]
    kept += _overloads(document)
    return verdict(
        f"{document.metric} of {document.second.label} against {document.first.label}: "
        f"{' '.join(kept)}",
        caveats,
    )
