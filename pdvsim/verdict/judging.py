"""The verdict on each kind of document: one sentence, and whether it may be relied on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from statistics import median
from typing import TYPE_CHECKING

from pdvsim.documents.base import Calibration, Document, Validity, Verdict
from pdvsim.output import number
from pdvsim.quantities import COLUMNS, OF_SLO, OVERLOADED, QUANTITIES
from pdvsim.verdict.overload import at_times, overloads

if TYPE_CHECKING:
    from pdvsim.documents.ablation import Ablation
    from pdvsim.documents.cells import CellsDocument, Row
    from pdvsim.documents.explanation import Explanation, Gap
    from pdvsim.documents.tables import Audit, Reproduction
    from pdvsim.documents.validation import Validation

# To be replaced by the verdict on what it stands in.
PENDING = Verdict(sentence="", validity="valid", caveats=())
SINGLE = "a single run has no interval"
TAIL_REQUESTS = 100  # of fewer, the 99th percentile is the largest but at most one
ENOUGH_INSIDE = 0.85  # of the measured values, where 95 % are promised


def verdict(sentence: str, caveats: Sequence[str] = (), invalid: bool = False) -> Verdict:
    """As it is stored."""
    validity: Validity = "invalid" if invalid else "valid with care" if caveats else "valid"
    return Verdict(sentence=sentence, validity=validity, caveats=tuple(caveats))


def of_ranks(document: CellsDocument) -> Verdict:
    """Over all loads: each load's sentence; what is too close to call is a caveat."""
    ranks = document.ranks
    caveats = [*calibration_caveats(document), *_caveats(document.cells)]
    close = [f"C = {rank.concurrency}" for rank in ranks if rank.first_place == "open"]
    if close:
        where = f" at {', '.join(close)}" if len(ranks) > 1 else ""
        caveats.append(f"the first place is too close to call{where}")
    if not any(rank.order for rank in ranks):
        return verdict("No cell has a value to be ranked by.", caveats, invalid=True)
    impossible = dict.fromkeys(row.label for row in document.cells if row.impossible)
    if impossible:
        caveats.insert(0, f"no engine can run {', '.join(impossible)} (listed below)")
    said = [part for rank in ranks for part in (rank.sentence, *rank.decided_by)]
    said += overloads(document.cells)
    return verdict(" ".join(said), caveats, invalid=bool(impossible))


def calibration_caveats(document: Document) -> list[str]:
    """That what was predicted for was not measured, or not that far."""
    caveats = []
    if document.extrapolated:
        caveats.append("the calibrated range was left (listed below)")
    calibrated: Calibration | None = getattr(document, "profile", None)
    if calibrated is not None and calibrated.transferred_from is not None:
        measured = calibrated.transferred_from
        caveats.append(f"{calibrated.gpu} was not measured: costs are transferred from {measured}")
    return caveats


def _caveats(rows: Sequence[Row]) -> list[str]:
    caveats = []
    outside = dict.fromkeys(row.label for row in rows if row.extrapolated)
    if outside:
        caveats.append(f"{', '.join(outside)} left the calibrated range (listed below)")
    if any(row.length.runs < 2 for row in rows):
        caveats.append(SINGLE)
    silent = dict.fromkeys(row.label for row in rows if row.metric("output_throughput") is None)
    if silent:
        caveats.append(f"{', '.join(silent)} never left the warm-up")
    failing = [row.label for row in rows if any(run.failed for run in getattr(row, "runs", ()))]
    if failing:
        caveats.append(f"requests of {', '.join(failing)} failed (listed below)")
    return caveats + at_times(rows)


def cell_notes(rows: Sequence[Row]) -> list[str]:
    """What is impossible, extrapolated, censored or unknown, one sentence each."""
    several = len({row.concurrency for row in rows}) > 1
    named = [(row.label + (f" at C = {row.concurrency}" if several else ""), row) for row in rows]
    lines = [
        f"Impossible, {name}: {'; '.join(row.impossible)}." for name, row in named if row.impossible
    ]
    lines += [
        f"Extrapolated, {name}: {'; '.join(row.extrapolated)}."
        for name, row in named
        if row.extrapolated
    ]
    in_flight = [
        f"{name} {number(found.value)}"
        for name, row in named
        if (found := row.metric("censored")) and found.value >= 0.5
    ]
    if in_flight:
        lines.append(
            f"Censored: requests in flight at the end ({', '.join(in_flight)}); TTFT and E2E "
            f"latency are Kaplan-Meier estimates."
        )
    few = [
        f"{name} {requests:.0f}"
        for name, row in named
        if (requests := row.length.requests) is not None
        and requests < TAIL_REQUESTS
        and row.metric("p99_e2el_ms") is not None
    ]
    if few:
        lines.append(
            f"Few requests: a p99 rests on fewer than {TAIL_REQUESTS} in a run "
            f"({', '.join(few)}), and is close to the largest of them."
        )
    for name, row in named:
        shown = [n for n in COLUMNS if n in row.reasons and n not in OF_SLO]
        if row.overloaded:  # which the verdict says
            shown = [n for n in shown if row.reasons[n] != OVERLOADED]
        why = {row.reasons[n] for n in shown}
        lines.extend(f"Incomplete, {name}: {reason}." for reason in sorted(why))
    return lines


def of_validation(document: Validation) -> Verdict:
    """How far predicted throughput is off, and how many measured values the intervals hold."""
    name = "output_throughput"
    known = [
        (row, row.measured[name], row.metric(name), error)
        for row in document.cells
        if (error := row.errors[name]) is not None
    ]
    if not known:
        return verdict("No cell has both a prediction and a measurement.", (), invalid=True)
    inside = sum(
        found.low <= seen.value <= found.high
        for _, seen, found, _ in known
        if seen and found and found.low is not None and found.high is not None
    )
    worst = max(known, key=lambda one: abs(one[3]))
    return _compared(
        QUANTITIES[name].heading,
        [error for *_, error in known],
        f"{worst[0].label} at C = {worst[0].concurrency}",
        inside,
        "measured",
    )


def of_reproduction(document: Reproduction) -> Verdict:
    """The same of a published table."""
    rows = document.cells
    errors = [row.predicted.tps.value / row.published.tps - 1.0 for row in rows]
    worst = max(zip(errors, rows, strict=True), key=lambda one: abs(one[0]))[1]
    place = f"{worst.engine} at C = {worst.concurrency}"
    return _compared("tokens/s", errors, place, document.inside_interval, "published")


def _compared(what: str, errors: Sequence[float], worst: str, inside: int, truth: str) -> Verdict:
    sizes = [100.0 * abs(error) for error in errors]
    count = len(sizes)
    caveats = []
    if inside < ENOUGH_INSIDE * count:
        caveats.append(f"{count - inside} of {count} {truth} values are outside")
    return verdict(
        f"Predicted {what} is off by {number(median(sizes))} % in the median of "
        f"{plural(count, 'cell')} and by {number(max(sizes))} % at worst ({worst}); {inside} of "
        f"{count} {truth} values lie inside the stated interval.",
        caveats,
    )


def of_explanation(document: Explanation) -> Verdict:
    """How far predicted shares are off, if any were measured; else the surest difference at the
    highest load; else the largest cause."""
    caveats = calibration_caveats(document)
    caveats += [SINGLE] if any(row.replications < 2 for row in document.cells) else []
    if document.predicted_less_measured:
        return verdict(_farthest(document.predicted_less_measured), caveats)
    if not document.differences:
        return verdict(_largest_cause(document), caveats)
    top = max(
        document.differences,
        key=lambda one: (one.concurrency, one.decided is True, abs(one.whole_s.value)),
    )
    if top.decided is False:
        caveats.append("the difference could be chance")
    return verdict(top.sentence, caveats)


def _farthest(gaps: Sequence[Gap]) -> str:
    worst = max(gaps, key=lambda gap: abs(gap.worst_points))
    return (
        f"Predicted shares of the latency are at most {number(abs(worst.worst_points))} points "
        f"off the measured ones in {plural(len(gaps), 'cell')}: farthest for {worst.worst} in "
        f"{worst.label} at C = {worst.concurrency}."
    )


def _largest_cause(document: Explanation) -> str:
    if not document.cells:
        return "No cell has a latency to explain."
    top = max(document.cells, key=lambda row: row.concurrency)
    cause = max(top.causes, key=lambda name: top.causes[name].seconds.value)
    return (
        f"At C = {top.concurrency} ({top.world}) a request takes {number(top.e2e_s.value)} s in "
        f"{top.label}; the largest part is {cause}, "
        f"{number(top.causes[cause].seconds.value)} s."
    )


def of_ablation(document: Ablation) -> Verdict:
    """Its sentence."""
    caveats = calibration_caveats(document)
    if document.replications < 2:
        caveats.append(SINGLE)
    elif not document.decided:
        caveats.append("the whole could be chance")
    return verdict(document.sentence, caveats)


def of_audit(document: Audit) -> Verdict:
    """Invalid where a claim of the table fails."""
    severities = [finding.severity for finding in document.findings]
    errors, warnings, notes = (severities.count(s) for s in ("error", "warning", "note"))
    does = "fail" if errors else "stand as far as arithmetic can tell"
    counts = f"{plural(errors, 'error')}, {plural(warnings, 'warning')} and {plural(notes, 'note')}"
    cells = plural(document.cell_count, "cell")
    sentence = f"Claims of {PurePath(document.source).name} {does}: {counts} over {cells}."
    if errors:
        broken = dict.fromkeys(f.rule for f in document.findings if f.severity == "error")
        names = ", ".join(name.replace("_", " ") for name in broken)
        return verdict(sentence, [f"arithmetic contradicts it ({names})"], invalid=True)
    blind = [rule for rule in document.rules if not rule.checked]
    caveats = [f"{plural(warnings, 'warning')} (listed below)"] if warnings else []
    if blind:
        of = len(document.rules)
        caveats.append(f"{len(blind)} of {of} rules had nothing to look at (listed below)")
    return verdict(sentence, caveats)


def plural(count: int, noun: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
