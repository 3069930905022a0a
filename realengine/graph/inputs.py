"""What the device is handed for a launch: whose rows, which tokens, how many drafts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pdvsim.core import PREFILLS, DraftTokens, Request, Stage
from pdvsim.core import Drafter as Kind
from pdvsim.errors import InputError
from realengine.engine import RequestError
from realengine.graph.admission import Held
from realengine.graph.config import GraphConfig
from realengine.graph.drafting import Drafter
from realengine.graph.plan import (
    Piece,
    Sizes,
    Work,
    draft_runs,
    mixed_work,
    prefill_work,
    round_work,
)
from realengine.prompts import Prompts


class Inputs:
    """Turns launches into the work of device programs.

    Args:
        prompts: of requests that bring none.
        block_tokens: longest block of a prompt that the kernels take.
    """

    def __init__(
        self, config: GraphConfig, prompts: Prompts, drafter: Drafter, block_tokens: int
    ) -> None:
        self._config, self._prompts = config, prompts
        self._drafter, self._block_tokens = drafter, block_tokens
        self._longest = config.longest

    def lengths(
        self, stage: Stage, batch: Sequence[Request], drafts: DraftTokens | None
    ) -> list[int]:
        """Each request's number of drafts. Asked before anyone is admitted.

        Raises:
            InputError: this engine does not draft so many, or cannot take the pass.
        """
        given = self._config.draft_tokens if drafts is None else drafts
        lengths = [given] * len(batch) if isinstance(given, int) else list(given)
        if len(lengths) != len(batch):
            raise InputError(f"{len(lengths)} numbers of drafts for {len(batch)} requests")
        for length in set(lengths):
            if not 0 <= length <= self._longest:
                raise InputError(
                    f"a round of {length} drafts was asked for; this engine drafts up to "
                    f"{self._longest}"
                )
        if stage is Stage.MIXED:
            if self._drafter.kind is Kind.NONE:
                lengths = [0] * len(batch)
            self._check_mixed(batch, lengths)
        return lengths

    def work(
        self, stage: Stage, held: Mapping[Request, Held], drafts: Sequence[int], sizes: Sizes
    ) -> Iterable[Work]:
        """What the program of `stage` runs on for those that hold memory. Of a prefill made as it
        is asked for: the device begins with its first chunk meanwhile.

        Args:
            drafts: each one's number.
            sizes: to be padded to.
        """
        padding = self._config.max_requests
        slots = [each.holding.slot for each in held.values()]
        if stage in PREFILLS:
            pieces = self._pieces(held)
            chunk, block = self._config.chunk_tokens, self._block_tokens
            return prefill_work(pieces, chunk, block, padding, sizes)
        if not slots:
            return []
        if stage is Stage.MIXED:
            return [self._mixed_work(held, drafts, sizes)]
        size, longest = sizes.batch(len(slots)), max(drafts)
        if stage is Stage.DECODE:
            return [round_work(slots, [], size, padding)]
        if stage is Stage.VERIFY:
            forced = self._forced(list(held), drafts)
            return [round_work(slots, forced, size, padding, longest)]
        states = max(each.states for each in held.values())
        shapes = draft_runs(self._drafter, self._config.lengths, states, longest)
        return [round_work(slots, drafts, size, padding, *shape) for shape in shapes]

    def _pieces(self, held: Mapping[Request, Held]) -> Iterator[Piece]:
        """What is prefilled: whole prompts, or the chunks that requests say; one that goes on
        later comes last."""
        spans = []
        for request in held:
            begin, chunk = request.prefilled_tokens, request.chunk_tokens
            whole = request.prompt_tokens + len(request.tokens)
            begin, end = (begin, begin + chunk) if chunk else (0, whole)
            spans.append((end < whole, request, begin, end))
        for _, request, begin, end in sorted(spans, key=lambda span: span[0]):
            yield Piece(held[request].holding.slot, self._prompt(request), begin, end)

    def _check_mixed(self, batch: Sequence[Request], lengths: Sequence[int]) -> None:
        """Refuse, before anyone is admitted, what cannot be launched."""
        rounds = [
            (request, length)
            for request, length in zip(batch, lengths, strict=True)
            if not (request.chunk_tokens or request.finished)
        ]
        self._forced([request for request, _ in rounds], [length for _, length in rounds])
        behind = [r for r in batch if r.chunk_tokens and not ends(r)]
        if len(behind) > 1:
            raise InputError(
                f"{len(behind)} prompts would end behind this pass; only one may be cut by it"
            )
        new = sum(length + 1 for _, length in rounds)
        new += sum(request.chunk_tokens for request in batch)
        if new > self._config.chunk_tokens:
            raise InputError(
                f"a mixed pass of {new} tokens was asked for; this engine takes "
                f"{self._config.chunk_tokens} in one pass"
            )

    def _mixed_work(
        self, held: Mapping[Request, Held], drafts: Sequence[int], sizes: Sizes
    ) -> Work:
        prompts = {request: each for request, each in held.items() if request.chunk_tokens}
        rounds = [request for request in held if not request.chunk_tokens]
        lengths = dict(zip(held, drafts, strict=True))
        longest = max([lengths[request] for request in rounds], default=0)
        return mixed_work(
            self._pieces(prompts),
            [held[request].holding.slot for request in rounds],
            self._forced(rounds, [lengths[request] for request in rounds]),
            longest,
            self._block_tokens,
            self._config.max_requests,
            sizes,
        )

    def _prompt(self, request: Request) -> Sequence[int]:
        """What to prefill: after a pre-emption also the tokens there were."""
        return [*self._prompts.of(request), *request.tokens]

    def _forced(self, served: Sequence[Request], drafts: Sequence[int]) -> list[int]:
        """Injected accepted drafts of the coming round, -1 where tokens are compared."""
        forced, longest = [], self._longest
        if self._drafter.kind is Kind.NONE:
            return [-1] * len(served)
        for request, length in zip(served, drafts, strict=True):
            outcomes, done = request.outcomes, request.rounds
            if not outcomes:
                forced.append(-1)
            elif done < len(outcomes) and 0 <= outcomes[done] <= longest:
                forced.append(min(outcomes[done], length))
            else:
                raise RequestError(
                    request, f"has no outcome from 0 to {longest} for its round {done + 1}"
                )
        return forced


def ends(request: Request) -> bool:
    """Whether its prompt ends in the mixed pass that it is in."""
    chunk = request.chunk_tokens
    return chunk > 0 and request.prefilled_tokens + chunk == request.prompt_tokens
