"""Acceptance as it was measured: read from records, or from a bench beside its records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING

from pdvsim.acceptance import Acceptance
from pdvsim.acceptance_forms import LEVELS, Stated, tokens_per_round
from pdvsim.cell_acceptance import LEAST_SPREAD
from pdvsim.cell_values import AcceptanceFile
from pdvsim.errors import InputError

if TYPE_CHECKING:
    from pdvsim.documents.benchmark import AcceptanceSpread

REQUESTS = "_requests.parquet"
ROUNDS = 6  # of `_matched`, which then moves by less than 1 in 1000


@dataclass(frozen=True, slots=True)
class MeasuredAcceptance:
    """Rounds of measured requests.

    Attributes:
        rounds: accepted drafts of each round, of each request that had one.
        draft_tokens: drafted in a round.
    """

    rounds: tuple[bytes, ...]
    draft_tokens: int

    def per_position(self, draft_tokens: int | None = None) -> tuple[float, ...]:
        """Share of drafts kept at each position, of those whose earlier ones were; 0 where none.

        Args:
            draft_tokens: the first so many; None for all.

        Raises:
            InputError: more positions than were measured.
        """
        every = b"".join(self.rounds)
        reached = [sum(kept >= i for kept in every) for i in range(self.draft_tokens + 1)]
        each = (kept / before if before else 0.0 for before, kept in pairwise(reached))
        return _first(tuple(each), draft_tokens)


@dataclass(frozen=True, slots=True)
class ToldAcceptance:
    """What a document of `pdvsim bench` tells of acceptance, without its records.

    Attributes:
        each: by position, of a request at the mean.
        spread: between requests (`pdvsim.acceptance.Acceptance`), beyond what independent rounds
            would make.
    """

    each: tuple[float, ...]
    spread: float

    def per_position(self, draft_tokens: int | None = None) -> tuple[float, ...]:
        """As `MeasuredAcceptance`."""
        return _first(self.each, draft_tokens)


def _first(each: tuple[float, ...], draft_tokens: int | None) -> tuple[float, ...]:
    if draft_tokens is not None and draft_tokens > len(each):
        raise InputError(
            f"--draft-tokens is {draft_tokens}, but --acceptance-from measured {len(each)} draft "
            "positions; give no more"
        )
    return each[:draft_tokens]


@cache
def measured_acceptance(file: AcceptanceFile) -> MeasuredAcceptance:
    """What `file` says: the request file of a record, or a document of `pdvsim bench`, whose
    records of cells that draft count all.

    Raises:
        InputError: it is neither, has no records beside it, or drafts of several lengths.
    """
    file.check()
    path = Path(file.path)
    found = list(_of_records(path) if path.suffix == ".parquet" else _of_bench(path))
    lengths = {one.draft_tokens for one in found}
    if len(lengths) > 1:
        drafts = ", ".join(map(str, sorted(lengths)))
        raise InputError(f"{path}: its cells draft {drafts} tokens; take records of one length")
    rounds = tuple(rounds for one in found for rounds in one.rounds)
    if not rounds:
        raise InputError(f"{path}: no request of it drafted anything")
    return MeasuredAcceptance(rounds, lengths.pop())


def _of_records(path: Path) -> Iterator[MeasuredAcceptance]:
    from pdvsim.record_files import read

    if not path.name.endswith(REQUESTS):
        raise InputError(f"{path}: the request file of a record is called ..{REQUESTS}")
    record, _ = read(path.with_name(path.name.removesuffix(REQUESTS)))
    kept = (bytes(request.accepted_per_round) for request in record.requests)
    yield MeasuredAcceptance(tuple(rounds for rounds in kept if rounds), record.config.draft_tokens)


def _of_bench(path: Path) -> Iterator[MeasuredAcceptance]:
    for requests in _records_of(path):
        yield from (one for one in _of_records(requests) if one.rounds)


def _records_of(path: Path) -> list[Path]:
    """Where the records of a bench are, or would be."""
    from pdvsim.measured.benched import read_bench

    stems = (stem for cell in read_bench(path).cells for stem in cell.records)
    return [stem.with_name(stem.name + REQUESTS) for stem in stems]


def has_records(path: Path) -> bool:
    """Whether `path` is, or lies beside, records to replay.

    Raises:
        InputError: it is neither a record nor a document of a bench.
    """
    if path.suffix == ".parquet":
        return True
    AcceptanceFile.of(path)  # says in a sentence that it cannot be read
    records = _records_of(path)
    return bool(records) and all(requests.exists() for requests in records)


def told_acceptance(path: Path) -> ToldAcceptance:
    """What the document of a bench tells, over all its runs that drafted.

    Rates by position are pooled. How far requests differ beyond chance is told of accepted over
    drafted; what it is of a probability follows from how fast the one goes with the other. Where
    requests differ, those that keep much come to later positions more often than others, which
    the probabilities of a request at the mean leave out (`_matched`).

    Raises:
        InputError: it tells nothing, or of several draft lengths.
    """
    from pdvsim.documents import read
    from pdvsim.documents.benchmark import Benchmark

    document = read(path)
    assert isinstance(document, Benchmark)  # `_records_of` has read it
    runs = [run.acceptance for row in document.cells for run in row.runs]
    found = [one for one in runs if one is not None]
    if not found:
        raise InputError(
            f"{path}: it tells nothing of accepted drafts, and its records are not beside it; "
            "bench again, with --records"
        )
    lengths = {len(one.unconditional) for one in found}
    if len(lengths) > 1:
        drafts = ", ".join(map(str, sorted(lengths)))
        raise InputError(f"{path}: its cells draft {drafts} tokens; take one draft length")
    rounds = sum(one.drafting_rounds for one in found)
    reached = [
        sum(one.drafting_rounds * one.unconditional[i] for one in found) / rounds
        for i in range(lengths.pop())
    ]
    spread = _beyond_chance([one.spread for one in found if one.spread is not None], reached)
    return ToldAcceptance(_matched(reached, spread), spread)


def _beyond_chance(found: Sequence[AcceptanceSpread], reached: Sequence[float]) -> float:
    """Deviation of a request's probability of keeping a draft."""
    requests = sum(one.requests for one in found)
    if not requests:
        return 0.0
    beyond = sum(one.requests * (one.std**2 - one.independent_std**2) for one in found) / requests
    (level, *_) = Stated("", "rate", (sum(reached) / len(reached),)).per_position(len(reached))
    per_draft = [
        (tokens_per_round((p,) * len(reached)) - 1.0) / len(reached)
        for p in (max(level - 0.01, 0.0), min(level + 0.01, 1.0))
    ]
    steepness = (per_draft[1] - per_draft[0]) / 0.02
    most = 0.9 * sqrt(level * (1.0 - level))
    spread = min(sqrt(max(beyond, 0.0)) / steepness, most, 0.49)
    return round(spread, 3) if spread >= LEAST_SPREAD else 0.0


def _matched(reached: Sequence[float], spread: float) -> tuple[float, ...]:
    """Probabilities of a request at the mean, of which all rounds together keep each position as
    often as was `reached`. A request that keeps little has more rounds; what share it has of them
    depends on all positions, so it goes round a few times."""
    if not spread:
        return Stated("", "unconditional", tuple(reached)).per_position(len(reached))
    import numpy as np

    quantiles = (np.arange(LEVELS) + 0.5) / LEVELS
    least = 0.5 - sqrt(0.25 - spread**2) + 1e-6  # where such a spread is possible
    weights, each = np.full(LEVELS, 1.0 / LEVELS), [0.0] * len(reached)
    for _ in range(ROUNDS):
        survive, tokens = np.ones(LEVELS), np.ones(LEVELS)
        for i, wanted in enumerate(reached):
            low, high = least, 1.0 - least
            for _ in range(24):
                each[i] = (low + high) / 2.0
                kept = survive * Acceptance((each[i],), spread).levels(quantiles)[:, 0]
                low, high = (each[i], high) if weights @ kept < wanted else (low, each[i])
            survive = kept
            tokens = tokens + survive
        weights = 1.0 / tokens / (1.0 / tokens).sum()
    return tuple(round(p, 6) for p in each)
