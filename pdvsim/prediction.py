"""Predicts cells from a profile: the question behind `pdvsim predict`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pdvsim.cell import Cell, labels
from pdvsim.decisive import decided_by
from pdvsim.documents.base import OF_ONE_RUN
from pdvsim.documents.cells import Formula, Prediction, Rank, Row
from pdvsim.documents.head import calibration, head, valid_for
from pdvsim.errors import InputError
from pdvsim.machine import plan_of
from pdvsim.open_loop import Length, Wanted, lengthened
from pdvsim.profile import Profile
from pdvsim.reached import cache_by, unreached
from pdvsim.results import ranked, row, subject
from pdvsim.rules_said import rules_said
from pdvsim.sweep import CellResult, replications_for, sweep
from pdvsim.verdict import judged


def predicted(
    cells: Sequence[Cell],
    profile: Profile,
    replications: int | None = None,
    *,
    formulas: bool = False,
    wanted: Wanted | None = None,
    workers: int | None = 1,
    on_run: Callable[[int, int], None] | None = None,
    command: str | None = None,
) -> Prediction:
    """Every cell, simulated `replications` times.

    Args:
        formulas: closed forms beside the simulation.
        wanted: how long runs are where `cells` leave it open.
        workers: processes; None takes one per usable core.

    Raises:
        InputError: something that cannot run, or `formulas` of what they do not know.
    """
    first = cells[0]
    if replications is None:
        replications = replications_for(cells)
    if formulas and profile.transferred_from is not None:
        raise InputError("--formulas knows measured costs only; leave it or --gpu out")
    varied = first.acceptance_spread or first.acceptance_from is not None
    if formulas and (varied or len(set(first.acceptance)) > 1):
        raise InputError("--formulas knows one acceptance for all positions; give one number")
    lengths = lengthened(cells, profile, wanted or Wanted(), workers, on_run)
    cells = [length.cell for length in lengths]
    results = sweep(cells, profile, replications, workers, on_run)
    rows = [Row(**row(result)) for result in results]
    notes = [*profile.notes, *_notes(cells, replications), *_unsettled(lengths, wanted or Wanted())]
    notes += unreached(results, cache_by(profile))
    if not any(result.extrapolated for result in results):
        notes.append("Extrapolated: nothing; every stage stayed inside its measured range.")
    answer = ranked(results, rows, notes, "delivers")
    answer["ranks"] = tuple(
        one.model_copy(update={"decided_by": _decided_by(one, results, profile, workers)})
        for one in answer["ranks"]
    )
    document = Prediction(
        **head("predict", command),
        subject=subject(cells),
        valid_for=valid_for(profile),
        interval=OF_ONE_RUN,
        **answer,
        formulas=_formulas(results, profile) if formulas else (),
        profile=calibration(profile),
    )
    return judged(document)


def _decided_by(
    rank: Rank, results: Sequence[CellResult], profile: Profile, workers: int | None
) -> tuple[str, ...]:
    here = [result for result in results if result.cell.concurrency == rank.concurrency]
    return decided_by(rank, here, profile, workers)


def _unsettled(lengths: Sequence[Length], wanted: Wanted) -> list[str]:
    names = [
        label
        for label, length in zip(labels([one.cell for one in lengths]), lengths, strict=True)
        if not length.settled
    ]
    if not names:
        return []
    return [
        f"Not settled: runs of {wanted.most_requests} requests do not tell a p99 of "
        f"{', '.join(dict.fromkeys(names))} within {100 * wanted.within:g} %; --most-requests "
        "allows longer ones."
    ]


def _notes(cells: Sequence[Cell], replications: int) -> list[str]:
    """What has to be known of the runs."""
    first = cells[0]
    lines = [
        f"Acceptance: {first.acceptance_text}. {replications} replications, seed {first.seed}."
    ]
    lines += rules_said(cells)
    if not first.same_lengths:
        lines.append(first.lengths.said)
    if first.prompts is not None:
        lines.append(first.prompts.said)
    return lines + (list(plan_of(first, 0).notes) if first.trace is not None else [])


def _formulas(results: Sequence[CellResult], profile: Profile) -> tuple[Formula, ...]:
    from pdvsim.theory.closed_forms import closed_forms

    return tuple(
        Formula(
            label=line.architecture,
            formula=line.formula,
            quantity=line.quantity,
            value=line.value,
            simulated=line.simulated,
            error=line.error,
            why=line.why,
        )
        for line in closed_forms(results, profile)
    )
