"""What the device sees of one launch: what the cost of a stage is asked for.

`work_of` makes it from a batch; it is called for every launch of a simulation.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from pdvsim.core import PREFILLS, Drafter, DraftTokens, Executor, Request, Stage, query_tokens

# For the hot path, as in `pdvsim.core`.
_DRAFT, _DECODE, _MIXED = Stage.DRAFT, Stage.DECODE, Stage.MIXED
_OF_PROMPTS = frozenset((*PREFILLS, Stage.MIXED))
_made = tuple.__new__


class Work(NamedTuple):
    """One launch of a stage. The first five say which kernels run; a cost is linear in the rest.

    A tuple, since a simulation makes hundreds of thousands.

    Attributes:
        passes: over the stage's weights, one after the other: one for each drafted token in a draft
            stage, else one.
        batch: requests.
        longest_new_tokens: most new tokens of a request in a pass; rounds are padded to it.
        chunk_tokens: new tokens of prompts, all together.
        prompts: requests whose prompt, or a chunk of it, is taken in.
        new_tokens: of all requests and passes together.
        context_tokens: cached ones that the requests of a round look back at, all together; of a
            prefill its prompts.
        prompt_pairs: (new token, token it looks back at) of prompts: the work of their attention.
    """

    passes: int
    batch: int
    longest_new_tokens: int
    chunk_tokens: int
    prompts: int
    new_tokens: int
    context_tokens: int
    prompt_pairs: float


Counts: TypeAlias = tuple[int, int, int, int, int, int]  # the fields of a Work before the context


def contexts_of(batch: Sequence[Request]) -> int:
    """Tokens that the requests of a batch have cached; the stages of a turn share it."""
    return sum([request.prompt_tokens + request.produced_tokens for request in batch])


def work_of(
    executor: Executor,
    stage: Stage,
    batch: Sequence[Request],
    draft_tokens: DraftTokens,
    context_tokens: int | None = None,
) -> Work:
    """The work of `stage` for a batch.

    Args:
        draft_tokens: of the round.
        context_tokens: `contexts_of(batch)`, where it is known.
    """
    count = len(batch)
    context = contexts_of(batch) if context_tokens is None else context_tokens
    if stage is _DECODE:
        return Work(1, count, 1, 0, 0, count, context, 0.0)
    if stage in PREFILLS:
        return _prompts(batch, context)
    if stage is _MIXED:
        return _mixed(executor, batch, draft_tokens)
    new = query_tokens(executor, stage, batch, draft_tokens)
    most = draft_tokens if isinstance(draft_tokens, int) else max(draft_tokens, default=0)
    if stage is _DRAFT:
        return Work(draft_passes(executor, most), count, 1, 0, 0, new, context, 0.0)
    most = most if executor.synchronous else most + 1
    return Work(1, count, most, 0, 0, new, context, 0.0)


class Works:
    """`work_of` an executor, quicker: of a round what its counts decide is made once."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._known: dict[tuple[Stage, int, int], Counts] = {}

    def of(
        self,
        stage: Stage,
        batch: Sequence[Request],
        draft_tokens: DraftTokens,
        context_tokens: int,
    ) -> Work:
        if isinstance(draft_tokens, int) and (counts := self.counts(stage, batch, draft_tokens)):
            return with_context(counts, context_tokens)
        return work_of(self._executor, stage, batch, draft_tokens, context_tokens)

    def counts(self, stage: Stage, batch: Sequence[Request], draft_tokens: int) -> Counts | None:
        """What a stage of a round is for any requests of that number; None if prompts decide."""
        if stage in _OF_PROMPTS:
            return None
        key = stage, len(batch), draft_tokens
        known = self._known.get(key)
        if known is None:
            work = work_of(self._executor, stage, batch, draft_tokens, 0)
            known = self._known[key] = work[:6]
        return known


def with_context(counts: Counts, context_tokens: int) -> Work:
    """The work of a round of known counts."""
    return _made(Work, counts + (context_tokens, 0.0))  # noqa: RUF005 - twice as quick


def draft_passes(executor: Executor, draft_tokens: int) -> int:
    """Passes of a draft stage that makes so many drafts.

    The synchronous executor takes its first draft from logits that it kept. A round without drafts
    passes once all the same, to fill the drafter's cache. A look-up is one, whatever it finds.
    """
    if executor.synchronous:
        return max(0, draft_tokens - 1)
    if executor.drafter is Drafter.NGRAM:
        return 1
    return draft_tokens or 1


def uniform_work(
    executor: Executor, stage: Stage, batch: int, new_tokens: int, context_tokens: int
) -> Work:
    """The work of a launch of which sums are known, as if its requests were alike: what records
    and closed forms say of one. Not of mixed passes, whose sums don't tell their parts."""
    each, passes = -(-new_tokens // batch), 1
    if stage in PREFILLS:
        pairs = new_tokens * new_tokens / (2.0 * batch)
        return Work(1, batch, each, new_tokens, batch, new_tokens, context_tokens, pairs)
    if stage is _DRAFT:
        passes, each = draft_passes(executor, each + executor.synchronous), 1
    return Work(passes, batch, each, 0, 0, new_tokens, context_tokens, 0.0)


def padded(sizes: Sequence[int], size: int) -> int:
    """The next of `sizes`, which ascend, from `size` on; itself beyond them."""
    i = bisect_left(sizes, size)
    return sizes[i] if i < len(sizes) else size


def round_part(work: Work) -> Work:
    """Of a mixed pass what its requests in a round would be alone."""
    batch, new = work.batch - work.prompts, work.new_tokens - work.chunk_tokens
    return Work(1, batch, work.longest_new_tokens, 0, 0, new, work.context_tokens, 0.0)


def prompt_part(work: Work) -> Work:
    """Of a mixed pass what its chunks would be alone."""
    count, new = work.prompts, work.chunk_tokens
    return Work(1, count, -(-new // count), new, count, new, new, work.prompt_pairs)


def _prompts(batch: Sequence[Request], context: int) -> Work:
    each = [request.chunk_tokens or request.prompt_tokens for request in batch]
    new, count = sum(each), len(batch)
    return Work(1, count, max(each, default=0), new, count, new, context, _pairs(batch))


def _mixed(executor: Executor, batch: Sequence[Request], draft_tokens: DraftTokens) -> Work:
    drafts = 0 if executor.drafter is Drafter.NONE else draft_tokens
    each = [drafts] * len(batch) if isinstance(drafts, int) else drafts
    prompts = [request for request in batch if request.chunk_tokens]
    rounds = [
        (request.prompt_tokens + request.produced_tokens, drafted + 1)
        for request, drafted in zip(batch, each, strict=True)
        if not request.chunk_tokens
    ]
    chunk = sum([request.chunk_tokens for request in prompts])
    return Work(
        passes=1,
        batch=len(batch),
        longest_new_tokens=max([new for _, new in rounds], default=0),
        chunk_tokens=chunk,
        prompts=len(prompts),
        new_tokens=chunk + sum([new for _, new in rounds]),
        context_tokens=sum([cached for cached, _ in rounds]),
        prompt_pairs=_pairs(prompts),
    )


def _pairs(batch: Sequence[Request]) -> float:
    pairs = 0.0
    for request in batch:
        new = request.chunk_tokens or request.prompt_tokens
        pairs += new * (request.prefilled_tokens + new / 2.0)
    return pairs
