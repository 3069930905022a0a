"""Takes a difference apart: the question behind `pdvsim ablate`, for predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pdvsim.ablate.document import document, first_runs, length_of
from pdvsim.ablate.shapley import Scale, ablate
from pdvsim.ablate.subjects import METRICS, predicted
from pdvsim.cell import Cell
from pdvsim.documents import ablation as documents
from pdvsim.errors import InputError
from pdvsim.extrapolation import farthest
from pdvsim.open_loop import Length, Wanted, lengthened
from pdvsim.profile import Profile
from pdvsim.quantities import QUANTITIES
from pdvsim.sweep import check_replications


def ablated(
    cells: Sequence[Cell],
    profile: Profile,
    *,
    metric: str,
    mechanisms: Sequence[str] | None,
    scale: Scale,
    replications: int,
    workers: int | None,
    on_run: Callable[[int, int], None] | None = None,
    command: str | None = None,
) -> documents.Ablation:
    """What the difference of two cells, the second over the first, is made of; or of one, with
    its mechanisms over without.

    Args:
        metric: of `pdvsim.ablate.METRICS`.
        mechanisms: which to switch off; None for all that play a part.
        workers: processes; None takes one per usable core.

    Raises:
        InputError: more than two cells, or something that is not known.
    """
    check_replications(replications)
    if len(cells) > 2:
        raise InputError(f"{len(cells)} cells; one or two can be ablated at a time")
    check_metric(metric, METRICS)
    lengths = lengthened(cells, profile, Wanted(share=0.9), workers)
    _check_overload(lengths, metric)
    cells = [length.cell for length in lengths]
    subjects = [predicted(cell, profile, replications) for cell in cells]
    found = ablate(subjects, METRICS[metric], mechanisms, scale, workers, on_run)
    first, records = cells[0], first_runs(subjects)
    outside = farthest(reason for record in records for reason in profile.extrapolations(record))
    return document(
        found,
        profile,
        first.concurrency,
        first.seed,
        cells=cells,
        length=length_of(subjects, records),
        extrapolated=outside,
        command=command,
    )


def _check_overload(lengths: Sequence[Length], metric: str) -> None:
    """Raises InputError where a latency would only say how long the runs are."""
    found = [length.cell for length in lengths if length.overloaded]
    if found and QUANTITIES[METRICS[metric]].better == "lower":
        raise InputError(
            f"{found[0].config().name} is overloaded at {found[0].rate_per_s:g} requests/s: its "
            "latency goes by the length of the run; take a lower --rate, or --metric throughput"
        )


def check_metric(metric: str, known: Sequence[str] | dict[str, str]) -> None:
    """Raises InputError unless `metric` is one of those known here."""
    if metric not in known:
        raise InputError(f"the metric {metric} is not known here; known are {', '.join(known)}")
