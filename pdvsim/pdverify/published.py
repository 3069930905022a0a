"""The published cells, and the workload that their rows reveal."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pdvsim.architectures import Config, architecture
from pdvsim.core import EAGER
from pdvsim.errors import InputError
from pdvsim.pdverify.protocol import (
    DEADLINE_S,
    DRAFT_TOKENS,
    PROMPT_TOKENS,
    PROTOCOL,
    arrivals_s,
)
from pdvsim.pdverify.tables import (
    ARCHITECTURE_OF,
    RequestRow,
    SummaryRow,
    read_detailed,
    read_summary,
)
from pdvsim.workload import Workload

Work = tuple[int, int]  # rounds and output tokens of one request


@dataclass(frozen=True, slots=True)
class PublishedRequest:
    """One completed request: durations in seconds."""

    id: int
    latency_s: float
    prefill_s: float
    decode_s: float
    work: Work


@dataclass(frozen=True, slots=True)
class PublishedCell:
    """One engine at one C, as published, with its completed requests."""

    engine: str
    concurrency: int
    throughput_tokens_per_s: float
    latency_s: float
    requests: tuple[PublishedRequest, ...]

    @property
    def architecture(self) -> str:
        return ARCHITECTURE_OF[self.engine]

    @property
    def work(self) -> dict[int, Work]:
        return {request.id: request.work for request in self.requests}


def read_published(summary: Path, detailed: Path) -> list[PublishedCell]:
    """Read one pair of published tables.

    Raises:
        InputError: a file or column is missing, a value is not a number, an engine is unknown,
            or the two files do not belong together.
    """
    requests = read_detailed(detailed)
    cells = []
    for row in read_summary(summary):
        if row.engine not in ARCHITECTURE_OF:
            known = ", ".join(ARCHITECTURE_OF)
            raise InputError(f"{summary}: unknown engine {row.engine!r}; known are {known}")
        cells.append(
            PublishedCell(
                row.engine,
                row.concurrency,
                _throughput(row, summary),
                row.latency_s,
                tuple(
                    _request(request, detailed)
                    for request in requests.pop((row.engine, row.concurrency), ())
                ),
            )
        )
    if requests:
        engine, concurrency = next(iter(requests))
        raise InputError(
            f"{detailed}: has requests of {engine} at C = {concurrency}, which {summary} lacks"
        )
    return cells


def _throughput(row: SummaryRow, path: Path) -> float:
    try:
        value = float(row.throughput)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise InputError(
            f"{path}: {row.engine} at C = {row.concurrency} has a throughput of "
            f"{row.throughput!r}; it must be a number above 0"
        )
    return value


def _request(row: RequestRow, path: Path) -> PublishedRequest:
    digits = row.id.removeprefix("req_")
    if not digits.isdigit():
        raise InputError(f"{path}: RequestID {row.id!r} is not of the form req_0007")
    rounds = row.drafted // DRAFT_TOKENS
    if not rounds <= row.tokens <= row.drafted or rounds < 1:
        raise InputError(
            f"{path}: {row.id} has {row.tokens} tokens from {row.drafted} drafted; "
            f"a round of {DRAFT_TOKENS} drafts yields 1 to {DRAFT_TOKENS}"
        )
    return PublishedRequest(
        int(digits), row.latency_s, row.prefill_s, row.decode_s, (rounds, row.tokens)
    )


def config_of(cell: PublishedCell) -> Config:
    """The published system that a cell ran on."""
    as_published = architecture(cell.architecture).published
    return Config(cell.architecture, EAGER, batch_cap=cell.concurrency, parameters=as_published)


class RequestWork:
    """What each request id of a cell needs: its rounds and tokens.

    The same prompts come in the same order in every run, except that a table may hold runs with
    different prompt lists. So a cell's unknown requests are looked up in the cells that agree
    with it on most of the requests that both completed; requests that nobody completed are drawn
    from the known ones.
    """

    _AGREEMENT = 0.6

    def __init__(self, cells: Sequence[PublishedCell]) -> None:
        self._cells = cells

    def known(self, cell: PublishedCell) -> dict[int, Work]:
        """Work by request id, the cell's own rows first."""
        own = cell.work
        votes: dict[int, Counter[Work]] = defaultdict(Counter)
        for other in self._cells:
            common = own.keys() & other.work.keys()
            agreement = sum(own[i] == other.work[i] for i in common) / max(1, len(common))
            # One shared request agrees too easily; then the nearest C is the better witness.
            nearness = 1.0 / (1.0 + abs(np.log(other.concurrency / cell.concurrency)))
            if agreement >= self._AGREEMENT:
                for i, work in other.work.items():
                    votes[i][work] += (len(common) > 1) * agreement + 0.01 * nearness
        return {i: count.most_common(1)[0][0] for i, count in votes.items()} | own

    def workload(self, cell: PublishedCell, rng: np.random.Generator) -> Workload:
        """The cell's run under the published protocol; unknown work is drawn with `rng`."""
        arrivals = arrivals_s(cell.concurrency).tolist()
        known = self.known(cell)
        pool = sorted(known.values())
        if not pool:
            raise InputError(
                f"no completed request says how many rounds {cell.engine} at "
                f"C = {cell.concurrency} needed"
            )
        work = [
            known[i] if i in known else pool[int(rng.integers(len(pool)))]
            for i in range(len(arrivals))
        ]
        return Workload(
            PROTOCOL.name,
            prompt_tokens=[PROMPT_TOKENS] * len(work),
            output_tokens=[tokens for _, tokens in work],
            outcomes=[_outcomes(*entry) for entry in work],
            arrival_s=arrivals,
            deadline_s=DEADLINE_S,
        )


def _outcomes(rounds: int, tokens: int) -> list[int]:
    """Accepted drafts per round, so that exactly `rounds` rounds yield `tokens` tokens: each
    yields one and the rest is spread from the last round backwards."""
    extra = tokens - rounds
    per_round = []
    for _ in range(rounds):
        more = min(DRAFT_TOKENS - 1, extra)
        extra -= more
        # Four tokens mean that all four drafts were kept; fewer include the correction.
        per_round.append(DRAFT_TOKENS if more == DRAFT_TOKENS - 1 else more)
    return per_round[::-1]
