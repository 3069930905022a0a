"""The document of an explanation: the answer behind `pdvsim explain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pdvsim.documents.base import OF_ONE_RUN, RunLength
from pdvsim.documents.explanation import Budget, Budgeted, Cause, ExplainedRow, Explanation
from pdvsim.documents.explanation import Difference as DifferenceRow
from pdvsim.documents.head import calibration, head, valid_for
from pdvsim.explain.compare import Difference, Explained, differences, gaps
from pdvsim.explain.measured import largest_gaps
from pdvsim.extrapolation import farthest, told
from pdvsim.profile import Profile
from pdvsim.quantities import CAUSES, MEMOS
from pdvsim.verdict import PENDING, judged


def explanation(
    cells: Sequence[Explained],
    profile: Profile | None,
    replications: int,
    seed: int,
    command: str | None = None,
) -> Explanation:
    """What the explained cells say, alone and against each other.

    Args:
        profile: what was simulated with; None if nothing was.
        replications: of each simulated cell.
    """
    held = gaps(cells)
    outside = farthest(reason for cell in cells for run in cell.runs for reason in run.extrapolated)
    document = Explanation(
        **head("explain", command),
        subject=_subject(cells, profile),
        valid_for="the engine that was recorded" if profile is None else valid_for(profile),
        interval=OF_ONE_RUN,
        verdict=PENDING,
        notes=("Completed requests after the warm-up only.", *_overloads(cells), *told(outside)),
        extrapolated=tuple(outside),
        seed=seed,
        replications=replications,
        cells=tuple(map(_row, cells)),
        differences=tuple(map(_difference, differences(cells))),
        predicted_less_measured=tuple(held),
        largest_gaps=tuple(largest_gaps(held, cells)),
        profile=None if profile is None else calibration(profile),
    )
    return judged(document)


def _overloads(cells: Sequence[Explained]) -> list[str]:
    return [
        f"Overloaded: {cell.architecture} at C = {cell.concurrency}; how long its requests wait "
        "goes by the length of the run."
        for cell in cells
        if cell.overloaded
    ]


def _subject(cells: Sequence[Explained], profile: Profile | None) -> str:
    about = [] if profile is None else [profile.pair.name, profile.executor.name]
    loads = ", ".join(map(str, dict.fromkeys(cell.concurrency for cell in cells)))
    return " · ".join((*about, *dict.fromkeys(cell.world for cell in cells), f"C = {loads}"))


def _row(explained: Explained) -> ExplainedRow:
    runs = explained.runs
    first = runs[0]
    completed = sum(run.completed for run in runs)
    return ExplainedRow(
        label=explained.architecture,
        concurrency=explained.concurrency,
        world=explained.world,
        cell=explained.cell,
        length=RunLength(
            runs=len(runs),
            seconds=sum(run.measured_s for run in runs) / len(runs),
            requests=completed / len(runs),
        ),
        replications=len(runs),
        completed=completed,
        e2e_s=explained.e2e_s,
        causes={
            cause: Cause(seconds=explained.seconds(cause), share=explained.share(cause))
            for cause in CAUSES
        },
        memos={name: explained.memo(name) for name in MEMOS},
        threads=_budgets(first.threads),
        streams=_budgets(first.streams),
    )


def _budgets(seconds: Mapping[str, Mapping[str, Any]]) -> tuple[Budget, ...]:
    return tuple(
        Budget(
            name=name,
            spent=tuple(Budgeted(what=what, seconds=value) for what, value in spent.items()),
        )
        for name, spent in seconds.items()
    )


def _difference(found: Difference) -> DifferenceRow:
    return DifferenceRow(
        first=found.first.architecture,
        second=found.second.architecture,
        world=found.first.world,
        concurrency=found.first.concurrency,
        whole_s=found.whole,
        decided=found.decided,
        parts_s={cause: found.part(cause) for cause in CAUSES},
        sentence=found.sentence(),
    )
