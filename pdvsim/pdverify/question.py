"""Takes a published difference apart: the question behind `pdvsim ablate --published`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pdvsim.ablate.document import document, first_runs, length_of
from pdvsim.ablate.question import check_metric
from pdvsim.ablate.shapley import Scale, ablate
from pdvsim.cell import check_bounds
from pdvsim.documents import ablation as documents
from pdvsim.errors import InputError
from pdvsim.pdverify.ablation import METRICS, published
from pdvsim.pdverify.published import read_published
from pdvsim.pdverify.tables import ARCHITECTURE_OF
from pdvsim.profile import Profile
from pdvsim.sweep import check_replications


def ablated(
    tables: tuple[Path, Path],
    names: Sequence[str],
    concurrency: int,
    profile: Profile,
    *,
    metric: str,
    mechanisms: Sequence[str] | None,
    scale: Scale,
    replications: int,
    seed: int,
    on_run: Callable[[int, int], None] | None = None,
    command: str | None = None,
) -> documents.Ablation:
    """What the difference of two published cells, the second over the first, is made of.

    Args:
        tables: the summary and the detailed file.
        names: one or two of our architectures; their published engines are compared.
        profile: says what threads do to each other; its stage times are not used.
        metric: of `pdvsim.pdverify.ablation.METRICS`.
        mechanisms: which to switch off; None for all that play a part.

    Raises:
        InputError: an engine, a cell or something else that is not known.
    """
    check_metric(metric, METRICS)
    check_replications(replications)
    check_bounds("seed", seed)
    engine_of = {name: engine for engine, name in ARCHITECTURE_OF.items()}
    missing = [name for name in names if name not in engine_of]
    if missing:
        raise InputError(f"{missing[0]} was never published; choose among {', '.join(engine_of)}")
    subjects = published(
        read_published(*tables),
        [engine_of[name] for name in names],
        concurrency,
        profile.host_costs(),
        replications,
        seed,
    )
    return document(
        ablate(subjects, METRICS[metric], mechanisms, scale, on_run=on_run),
        profile,
        concurrency,
        seed,
        published=tables,
        length=length_of(subjects, first_runs(subjects)),
        command=command,
    )
