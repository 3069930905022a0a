"""The shared nouns: read this file first.

A *request* passes through *stages* (prefill, draft, verify, ...), each run by a *lane* for a
batch of requests on a *stream*. An *executor* says what a stage is (one request at a time, or one
batched pass). Both worlds, simulated and real, use these types and nothing else in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from typing import NamedTuple, TypeAlias

from pdvsim.errors import InputError


class Name(StrEnum):
    """Names to look things up by: hashed as the text that they equal, without a Python call."""

    __hash__ = str.__hash__


class Drafter(Name):
    """What proposes the tokens that a verifier checks. `pdvsim.drafters` says what each costs."""

    MODEL = "model"  # a smaller model with a cache of its own
    EAGLE3 = "eagle3"  # a head of one layer over the verifier's hidden states
    NGRAM = "ngram"  # what followed when the newest tokens occurred before: no model
    NONE = "none"


class Model(Name):
    """The two sides of a speculative pair; each has one lock in the eager executor."""

    DRAFT = "draft"
    VERIFIER = "verifier"


class Stage(Name):
    """One kind of GPU work. Its `model` says whose weights it reads."""

    model: Model

    PREFILL_DRAFT = "prefill_draft"
    PREFILL_VERIFIER = "prefill_verifier"
    DRAFT = "draft"
    VERIFY = "verify"
    COMMIT_DRAFT = "commit_draft"
    COMMIT_VERIFIER = "commit_verifier"
    DECODE = "decode"
    MIXED = "mixed"  # a round and chunks of prompts in one pass


_MODEL_OF = {
    Stage.PREFILL_DRAFT: Model.DRAFT,
    Stage.PREFILL_VERIFIER: Model.VERIFIER,
    Stage.DRAFT: Model.DRAFT,
    Stage.VERIFY: Model.VERIFIER,
    Stage.COMMIT_DRAFT: Model.DRAFT,
    Stage.COMMIT_VERIFIER: Model.VERIFIER,
    Stage.DECODE: Model.VERIFIER,
    Stage.MIXED: Model.VERIFIER,
}
for _stage, _model in _MODEL_OF.items():
    _stage.model = _model

PREFILLS = (Stage.PREFILL_DRAFT, Stage.PREFILL_VERIFIER)

# Drafted tokens of a round: one number for the whole batch, or one for each request.
DraftTokens: TypeAlias = int | Sequence[int]

# For hot loops: before Python 3.12 it takes 0.1 us to find a member through its class.
_PREFILL_DRAFT, _PREFILL_VERIFIER = Stage.PREFILL_DRAFT, Stage.PREFILL_VERIFIER
_DRAFT, _DECODE, _MIXED = Stage.DRAFT, Stage.DECODE, Stage.MIXED


class Stream(Name):
    """CUDA streams an architecture may use."""

    MAIN = "main"
    PREFILL = "prefill"
    DRAFT = "draft"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class Executor:
    """What "a stage for a batch" is, and which stages there are, independently of the architecture.

    Attributes:
        batched: one pass serves a whole batch; otherwise a launch takes one request.
        prefill: stages that bring a request from prompt to ready-to-decode.
        speculate: draft-side stages of a round.
        check: verifier-side stages of a round.
        synchronous: the host holds the model's lock and waits after each stage; otherwise
            stages are chained on the device and the host waits once per round.
        bonus_token: a round that accepts every drafted token also yields the verifier's next
            one (mean accepted length counts it). Without it a round yields at most the draft
            length.
        prefill_emits: tokens that prefill itself yields (0 or 1).
        truncates: output stops at exactly `output_tokens`; otherwise at the end of the round
            that reaches it.
        drafter: what proposes tokens.
        settles_round: the stage whose end makes a round's tokens count; the last of `check`.
    """

    name: str
    batched: bool
    prefill: tuple[Stage, ...]
    speculate: tuple[Stage, ...]
    check: tuple[Stage, ...]
    synchronous: bool
    bonus_token: bool
    prefill_emits: int
    truncates: bool
    drafter: Drafter = Drafter.MODEL
    settles_round: Stage = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "settles_round", self.check[-1])

    @property
    def plain_prefill(self) -> tuple[Stage, ...]:
        """Prefill stages without a draft model."""
        return tuple(stage for stage in self.prefill if stage.model is Model.VERIFIER)

    def with_drafter(self, drafter: Drafter) -> Executor:
        """This executor with another drafter; the same object for the same drafter."""
        return self if drafter is self.drafter else _with_drafter(EXECUTORS[self.name], drafter)

    def tokens_of_round(self, accepted: int, draft_tokens: int) -> int:
        """Tokens that a round yields when `accepted` of `draft_tokens` drafts were kept: at least
        one, for a round without drafts is a plain decode."""
        if self.bonus_token or accepted < draft_tokens or not draft_tokens:
            return accepted + 1
        return draft_tokens


EAGER = Executor(
    name="eager",
    batched=False,
    prefill=(Stage.PREFILL_DRAFT, Stage.PREFILL_VERIFIER),
    speculate=(Stage.DRAFT,),
    check=(Stage.VERIFY, Stage.COMMIT_DRAFT, Stage.COMMIT_VERIFIER),
    synchronous=True,
    bonus_token=False,
    prefill_emits=0,
    truncates=False,
)
GRAPH = Executor(
    name="graph",
    batched=True,
    prefill=(Stage.PREFILL_DRAFT, Stage.PREFILL_VERIFIER),
    speculate=(Stage.DRAFT,),
    check=(Stage.VERIFY,),
    synchronous=False,
    bonus_token=True,
    prefill_emits=1,
    truncates=True,
)
EXECUTORS = {executor.name: executor for executor in (EAGER, GRAPH)}


def check_drafter(executor: Executor, drafter: Drafter) -> None:
    """Refuse a drafter that no engine of `executor` has.

    Raises:
        InputError: naming both.
    """
    if executor.synchronous and drafter is not Drafter.MODEL:
        raise InputError(
            f"the {executor.name} executor drafts with a model only, not with {drafter}; "
            f"take --executor {GRAPH.name}"
        )


@cache
def _with_drafter(executor: Executor, drafter: Drafter) -> Executor:
    """Only a model drafts from a cache that is filled beside the verifier's: a head's is filled by
    the verifier's own stages, and nothing else has one."""
    if drafter is Drafter.MODEL:
        return executor

    def verifiers(stages: Sequence[Stage]) -> tuple[Stage, ...]:
        return tuple(stage for stage in stages if stage.model is Model.VERIFIER)

    plain = drafter is Drafter.NONE
    return replace(
        executor,
        drafter=drafter,
        prefill=verifiers(executor.prefill),
        speculate=() if plain else executor.speculate,
        check=(Stage.DECODE,) if plain else verifiers(executor.check),
    )


class Checked(NamedTuple):
    """What comparing real tokens found for a request's round: drafts kept, of those made. Fewer may
    be made than were asked for: a look-up of n-grams makes none where it finds nothing."""

    kept: int
    drafted: int


@dataclass(slots=True, eq=False)
class Request:
    """One request and how far it has come. Mutable; only a world's `settle` advances it.

    Attributes:
        arrival_s: seconds since the start of the run; set by a closed loop when it is released.
        outcomes: accepted drafts of each round to come (injected acceptance); empty when the
            engine compares real tokens.
        checked: each round so far, where the engine compared real tokens.
        cancelled: it gets no more work, and leaves as one that is finished does.
        failed_s: when it left without its output, since it was cancelled, or the engine could not
            go on with it.
        prefilled_tokens: of its prompt that mixed passes have taken in.
        chunk_tokens: of its prompt that the mixed pass which it is in takes, and the draft's
            prefill before that; a lane says so, and the end of the pass makes it 0 again.
    """

    id: int
    prompt_tokens: int
    output_tokens: int
    arrival_s: float = 0.0
    outcomes: Sequence[int] = ()
    prompt: Sequence[int] = ()
    produced_tokens: int = 0
    rounds: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    admitted_s: float | None = None
    first_token_s: float | None = None
    completed_s: float | None = None
    failed_s: float | None = None
    cancelled: bool = False
    prefilled_tokens: int = 0
    chunk_tokens: int = 0
    checked: list[Checked] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    @property
    def context_tokens(self) -> int:
        """Tokens in the KV cache before the next round."""
        return self.prompt_tokens + self.produced_tokens

    @property
    def accepted_per_round(self) -> Sequence[int]:
        """Drafts kept in each round so far, whether compared or injected."""
        if self.checked:
            return [each.kept for each in self.checked]
        return self.outcomes[: self.rounds]

    @property
    def drafted_per_round(self) -> Sequence[int]:
        """Drafts made in each round so far. Where outcomes are injected, rounds are as long as on
        average: nobody counts them one by one."""
        if self.checked:
            return [each.drafted for each in self.checked]
        return equal_shares(self.drafted_tokens, self.rounds)

    @property
    def finished(self) -> bool:
        return self.produced_tokens >= self.output_tokens or self.cancelled

    @property
    def left_s(self) -> float | None:
        """When it left: completed, or failed."""
        return self.completed_s if self.failed_s is None else self.failed_s

    def emit(self, tokens: int, now_s: float) -> None:
        """Count `tokens` new output tokens at `now_s`."""
        self.produced_tokens += tokens
        if self.first_token_s is None and tokens:
            self.first_token_s = now_s


def equal_shares(drafted_tokens: int, rounds: int) -> list[int]:
    """Drafts of each of `rounds`, as even as whole numbers can be."""
    return [
        drafted_tokens * (i + 1) // rounds - drafted_tokens * i // rounds for i in range(rounds)
    ]


def unfinished(batch: Sequence[Request]) -> list[Request]:
    """Those of `batch` that are not `finished`, without a call for each."""
    return [r for r in batch if r.produced_tokens < r.output_tokens and not r.cancelled]


def settle(
    executor: Executor,
    stage: Stage,
    batch: Sequence[Request],
    draft_tokens: DraftTokens,
    now_s: float,
    checked: Sequence[Checked] | None = None,
) -> list[int]:
    """Advance the requests of `batch` when `stage` has ended; both worlds call this, once.

    Args:
        draft_tokens: drafts that the round was asked for.
        checked: what comparing real tokens found, per request; without it the requests' own
            `outcomes` say, and all drafts were made.

    Returns:
        New output tokens per request; empty if the stage yields none.
    """
    if stage is _DRAFT:
        return []
    if stage is _DECODE:
        tokens = 1
    elif stage is executor.settles_round:
        if checked is not None:
            return [
                _settle_checked(executor, request, found, now_s)
                for request, found in zip(batch, checked, strict=True)
            ]
        if isinstance(draft_tokens, int):
            return _settle_round(executor, batch, draft_tokens, now_s)
        return [
            _settle_round(executor, (request,), drafted, now_s)[0]
            for request, drafted in zip(batch, draft_tokens, strict=True)
        ]
    elif stage is _MIXED:
        return _settle_mixed(executor, batch, draft_tokens, now_s, checked)
    elif stage is _PREFILL_VERIFIER and executor.prefill_emits:
        tokens = executor.prefill_emits
    else:
        return []
    for request in batch:
        request.emit(tokens, now_s)
    return [tokens] * len(batch)


def _settle_mixed(
    executor: Executor,
    batch: Sequence[Request],
    draft_tokens: DraftTokens,
    now_s: float,
    checked: Sequence[Checked] | None,
) -> list[int]:
    """`settle` for a mixed pass: a prompt that ends in it yields what a prefill does, another one
    nothing, and all others end a round."""
    emitted, rounds = [0] * len(batch), []
    for i, request in enumerate(batch):
        if not request.chunk_tokens:
            rounds.append(i)
            continue
        request.prefilled_tokens += request.chunk_tokens
        request.chunk_tokens = 0
        if request.prefilled_tokens == request.prompt_tokens:
            emitted[i] = executor.prefill_emits
        request.emit(emitted[i], now_s)
    if rounds:
        drafted = draft_tokens
        if not isinstance(draft_tokens, int):
            drafted = [draft_tokens[i] for i in rounds]
        found = None if checked is None else [checked[i] for i in rounds]
        ended = [batch[i] for i in rounds]
        tokens = settle(executor, executor.settles_round, ended, drafted, now_s, found)
        for i, count in zip(rounds, tokens, strict=True):
            emitted[i] = count
    return emitted


def _settle_checked(executor: Executor, request: Request, found: Checked, now_s: float) -> int:
    """`settle` for a round of one request whose tokens were compared."""
    request.checked.append(found)
    (tokens,) = _settle_round(executor, (request,), found.drafted, now_s, found.kept)
    return tokens


def _settle_round(
    executor: Executor,
    batch: Sequence[Request],
    draft_tokens: int,
    now_s: float,
    found: int | None = None,
) -> list[int]:
    """`settle` for the stage that ends a round, with drawn outcomes, or what was `found` to be
    kept.

    An outcome is drawn for the longest round; a shorter one keeps no more than it drafted. A
    simulation spends much of its time here, hence the few calls.
    """
    truncates = executor.truncates
    all_kept = executor.tokens_of_round(draft_tokens, draft_tokens)
    emitted = []
    for request in batch:
        rounds = request.rounds
        kept = request.outcomes[rounds] if found is None else found
        if kept < draft_tokens:
            tokens = kept + 1
        else:
            kept, tokens = draft_tokens, all_kept
        produced = request.produced_tokens + tokens
        if produced > request.output_tokens and truncates:
            tokens -= produced - request.output_tokens
            produced = request.output_tokens
        request.produced_tokens = produced
        request.rounds = rounds + 1
        request.drafted_tokens += draft_tokens
        request.accepted_tokens += kept
        if request.first_token_s is None and tokens:
            request.first_token_s = now_s
        emitted.append(tokens)
    return emitted


def query_tokens(
    executor: Executor, stage: Stage, batch: Sequence[Request], draft_tokens: DraftTokens
) -> int:
    """New tokens that `stage` passes through its model for the whole batch.

    The synchronous executor drafts one token less than it proposes (the first comes from logits
    kept from the last round) and is charged a full draft in its commits.
    """
    count = len(batch)
    if stage is _DECODE:
        return count
    if stage is _PREFILL_DRAFT or stage is _PREFILL_VERIFIER:
        return sum([request.chunk_tokens or request.prompt_tokens for request in batch])
    if stage is _MIXED:
        return _mixed_tokens(executor, batch, draft_tokens)
    drafted = draft_tokens * count if isinstance(draft_tokens, int) else sum(draft_tokens)
    if executor.synchronous:
        return max(0, drafted - count) if stage is _DRAFT else drafted
    return drafted if stage is _DRAFT else drafted + count


def _mixed_tokens(executor: Executor, batch: Sequence[Request], draft_tokens: DraftTokens) -> int:
    """`query_tokens` of a mixed pass: chunks, and of the others one more than was drafted."""
    if executor.drafter is Drafter.NONE:
        draft_tokens = 0
    each = [draft_tokens] * len(batch) if isinstance(draft_tokens, int) else draft_tokens
    return sum(
        [request.chunk_tokens or drafted + 1 for request, drafted in zip(batch, each, strict=True)]
    )
