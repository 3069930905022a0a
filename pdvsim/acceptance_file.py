"""Acceptance as it was measured: read from records, or from a bench beside its records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from pdvsim.cell_values import AcceptanceFile
from pdvsim.errors import InputError

REQUESTS = "_requests.parquet"


@dataclass(frozen=True, slots=True)
class MeasuredAcceptance:
    """Rounds of measured requests.

    Attributes:
        rounds: accepted drafts of each round, of each request that had one.
        draft_tokens: drafted in a round.
    """

    rounds: tuple[bytes, ...]
    draft_tokens: int

    def per_position(self, draft_tokens: int) -> tuple[float, ...]:
        """Share of drafts kept at each position, of those whose earlier ones were; 0 where none.

        Raises:
            InputError: more positions than were measured.
        """
        if draft_tokens > self.draft_tokens:
            raise InputError(
                f"--draft-tokens is {draft_tokens}, but --acceptance-from measured "
                f"{self.draft_tokens} draft positions; give no more"
            )
        every = b"".join(self.rounds)
        reached = [sum(kept >= i for kept in every) for i in range(draft_tokens + 1)]
        return tuple(kept / before if before else 0.0 for before, kept in pairwise(reached))


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
    from pdvsim.measured.benched import read_bench

    for cell in read_bench(path).cells:
        for stem in cell.records:
            requests = stem.with_name(stem.name + REQUESTS)
            if not requests.exists():
                raise InputError(
                    f"{path}: its records are not beside it ({requests.name} is missing); bench "
                    "writes them with --records"
                )
            yield from (one for one in _of_records(requests) if one.rounds)
