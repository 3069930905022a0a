"""The document of an ablation: the answer behind `pdvsim ablate`."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import numpy as np

from pdvsim.ablate.shapley import Ablation, Part, Subject
from pdvsim.cell import Cell
from pdvsim.documents import ablation as documents
from pdvsim.documents.base import OF_ONE_RUN, PUBLISHED_ENGINES, RunLength
from pdvsim.documents.head import calibration, head, valid_for
from pdvsim.extrapolation import told
from pdvsim.metrics import summarize
from pdvsim.profile import Profile
from pdvsim.records import RunRecord
from pdvsim.rules_said import rules_said
from pdvsim.statistics import Interval
from pdvsim.verdict import PENDING, judged


def document(
    found: Ablation,
    profile: Profile,
    concurrency: int,
    seed: int,
    *,
    cells: Sequence[Cell] | None = None,
    published: Sequence[Path] | None = None,
    length: RunLength | None = None,
    extrapolated: Sequence[str] = (),
    command: str | None = None,
) -> documents.Ablation:
    """What `found` says.

    Args:
        cells: those compared; None for those of a published table.
        published: files of that table.
        extrapolated: where the cells' runs left what was calibrated.
    """
    without = [part.name for part in found.parts if not found.matters(part)]
    made = documents.Ablation(
        **head("ablate", command),
        subject=f"{found.second} against {found.first or 'itself'} · C = {concurrency}",
        valid_for=valid_for(profile) if published is None else PUBLISHED_ENGINES,
        interval=OF_ONE_RUN,
        verdict=PENDING,
        notes=(
            *((f"Without effect: {', '.join(without)}.",) if without else ()),
            f"{'Factors multiply' if found.scale == 'ratio' else 'Amounts add up'} to the whole. "
            f"{found.replications} replications, seed {seed}, {found.runs} simulated runs in all.",
            *(rules_said(cells) if cells else ()),
            *told(extrapolated),
        ),
        extrapolated=tuple(extrapolated),
        seed=seed,
        concurrency=concurrency,
        metric=found.metric,
        scale=found.scale,
        first=found.first,
        second=found.second,
        cells=None if cells is None else tuple(cells),
        published=None if published is None else tuple(map(str, published)),
        length=length,
        whole=found.told(found.whole),
        decided=found.decided,
        parts=tuple(_part(found, part) for part in found.parts),
        sentence=found.sentence(),
        replications=found.replications,
        runs=found.runs,
        profile=calibration(profile),
    )
    return judged(made)


def first_runs(subjects: Sequence[Subject]) -> list[RunRecord]:
    """One run of each subject, with all its mechanisms."""
    return [subject.first.run() for subject in subjects]


def length_of(subjects: Sequence[Subject], records: Sequence[RunRecord]) -> RunLength:
    """Of `first_runs`."""
    summaries = [summarize(record) for record in records]
    seconds, requests = (
        float(np.mean([found[name] or 0.0 for found in summaries]))
        for name in ("duration_s", "completed")
    )
    return RunLength(runs=len(subjects[0].settings), seconds=seconds, requests=requests)


def _part(found: Ablation, part: Part) -> documents.Part:
    return documents.Part(
        mechanism=part.name,
        part=found.told(part.shapley),
        share=_share(part.share),
        switched_off_alone=found.told(part.alone),
        effect=found.matters(part),
    )


def _share(share: Interval) -> Interval | None:
    """None of a whole that is none."""
    return share if isfinite(share.value) else None
