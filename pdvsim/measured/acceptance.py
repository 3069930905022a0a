"""Measured acceptance, as a document of bench says it."""

from __future__ import annotations

import numpy as np

from pdvsim.documents.benchmark import AcceptanceSpread, MeasuredAcceptance, RequestRounds
from pdvsim.records import RunRecord
from pdvsim.speculation import Speculation, independent_std

LEAST_REQUESTS = 2  # that a spread can be told of


def measured_acceptance(record: RunRecord) -> MeasuredAcceptance | None:
    """Over the whole run, its warm-up included: that changes nothing of it. None where nothing was
    drafted."""
    found = Speculation.of(record.config.executor, record.requests)
    if found is None:
        return None
    drafted, accepted = found.of_requests(found.drafted), found.of_requests(found.kept)
    counts = (found.rounds, drafted, accepted)
    return MeasuredAcceptance(
        rounds=len(found.kept),
        drafting_rounds=found.drafting,
        drafted=int(drafted.sum()),
        accepted=int(accepted.sum()),
        rate=found.rate,
        conditional=found.conditional,
        unconditional=found.unconditional,
        length=found.length,
        tokens_per_round=found.tokens_per_round,
        spread=_spread(record, found),
        requests=RequestRounds(
            id=tuple(request.id for request in record.requests),
            **{
                name: tuple(values.tolist())
                for name, values in zip(("rounds", "drafted", "accepted"), counts, strict=True)
            },
        ),
    )


def _spread(record: RunRecord, found: Speculation) -> AcceptanceSpread | None:
    """Between requests that were served to their ends: of others, only the begin is known."""
    drafted, accepted = found.of_requests(found.drafted), found.of_requests(found.kept)
    ended = np.array([request.completed_s is not None for request in record.requests])
    chosen = ended & (drafted > 0)
    if chosen.sum() < LEAST_REQUESTS:
        return None
    rates = accepted[chosen] / drafted[chosen]
    low, middle, high = np.quantile(rates, (0.1, 0.5, 0.9)).tolist()
    return AcceptanceSpread(
        requests=int(chosen.sum()),
        std=float(rates.std(ddof=1)),
        independent_std=independent_std(found, chosen),
        p10=low,
        median=middle,
        p90=high,
    )
