"""What a calibration measures.

A batched engine's rounds run as graphs of so many requests and drafts: few enough that all of them
are measured, at one short context, and no formula has to guess at tiles and padding. What is left
is smooth. Context costs what reading it costs, so long contexts are measured at a few batches and
lengths. Prompts are measured at the sizes that passes are padded to and beyond, whole and in
several pieces. Mixed passes have four variables, and are spread evenly over them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

_PAGE = 16
_MIXED_CONTEXTS = (64, 400, 1200, 256)
_SPREAD = (0.7548776662466927, 0.5698402909980532)  # of points over a square: R2, Roberts 2018


@dataclass(frozen=True, slots=True)
class Point:
    """Rounds of `batch` requests after prompts of `prompt_tokens`, of each of `lengths` drafts."""

    prompt_tokens: int
    batch: int
    lengths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MixedPoint:
    """A pass of `batch` rounds, each after `prompt_tokens`, and `chunk_tokens` of a prompt,
    `cached_tokens` of it known."""

    batch: int
    prompt_tokens: int
    chunk_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Beside:
    """Two stages at the same time: rounds of `batch` requests and of `draft_tokens`, and a prompt
    of `prompt_tokens`."""

    batch: int
    draft_tokens: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        prompts: prompt lengths, tokens; rounds run at all batches behind the first.
        batches: batch sizes; (1,) for an executor that takes one request per launch.
        rounds: rounds per point and pass.
        passes: how often everything is gone through; their spread is the run-to-run spread.
        race_seconds, race_rounds: how long threads are raced at a time, and how often.
        lengths: numbers of drafts.
        few_batches, few_lengths: behind the other prompts.
        prefills: (prompts, tokens of each) of one launch.
        mixed: passes of a round and a chunk of a prompt.
        beside: rounds and prompts at the same time.
    """

    prompts: tuple[int, ...] = (10, 64, 256, 512)
    batches: tuple[int, ...] = (1,)
    rounds: int = 6
    passes: int = 4
    race_seconds: float = 0.6
    race_rounds: int = 6
    lengths: tuple[int, ...] = (1, 4, 8)
    few_batches: tuple[int, ...] = (1,)
    few_lengths: tuple[int, ...] = (4,)
    prefills: tuple[tuple[int, int], ...] = ()
    mixed: int = 0
    beside: tuple[Beside, ...] = ()

    @property
    def growth(self) -> int:
        """Most tokens that a request grows by, and what its last page leaves empty."""
        return (self.rounds + 2) * (len(self.lengths) + 1) + 4 * max(self.lengths) + _PAGE

    def points(self, most_tokens: int, most_context: int) -> list[Point]:
        """Those that fit into a cache of `most_tokens`, and a request's `most_context`."""
        found = []
        for prompt in self.prompts:
            first = prompt == self.prompts[0]
            batches, lengths = self.batches, self.lengths
            if not first:
                batches, lengths = self.few_batches, self.few_lengths
            found += [
                Point(prompt, batch, lengths)
                for batch in batches
                if batch * (prompt + self.growth) <= most_tokens
                and prompt + self.growth <= most_context
            ]
        return found

    def prefill_points(self, most_tokens: int, most_context: int) -> list[tuple[int, int]]:
        return [
            (batch, tokens)
            for batch, tokens in self.prefills
            if batch <= max(self.batches)
            and batch * (tokens + _PAGE + 2) <= most_tokens
            and tokens + self.growth <= most_context
        ]

    def mixed_points(self, most_context: int, most_chunk: int) -> Iterator[MixedPoint]:
        """Evenly spread in the logarithms of batch and chunk, contexts of rounds in turn; every
        fifth has no rounds, every third goes on with a prompt."""
        most_batch = max(self.batches) - 1
        for i in range(self.mixed):
            u, v = ((0.5 + i * step) % 1.0 for step in _SPREAD)
            chunk = round(16 * (most_chunk / 16) ** v)
            batch = 0 if i % 5 == 4 else max(1, round(most_batch**u))
            cached = min(most_context - chunk - 32, 4 * chunk) if i % 3 == 2 else 0
            context = min(_MIXED_CONTEXTS[i % len(_MIXED_CONTEXTS)], most_context - self.growth)
            yield MixedPoint(batch, context, chunk, max(0, cached))


EAGER_PLAN = Plan()
GRAPH_PLAN = Plan(
    prompts=(64, 256, 1024, 1920, 3900, 8000),
    batches=(1, 2, 3, 4, 6, *range(8, 33, 4), *range(40, 129, 8), *range(144, 257, 16)),
    rounds=4,
    passes=2,
    race_seconds=0.3,
    lengths=(1, 2, 3, 4, 5, 6, 7, 8),
    few_batches=(1, 2, 8, 24, 64, 128, 256),
    few_lengths=(1, 4, 8),
    prefills=(
        *((1, size) for size in (16, 32, 48, 64, 96, 128, 192, 256, 320, 384, 512, 640, 768)),
        *((1, size) for size in range(1024, 2049, 128)),
        *((1, size) for size in (3000, 3900, 6000, 8000)),
        *((2, 16), (4, 16), (16, 16), (2, 64), (4, 64), (8, 64), (16, 64), (32, 64), (64, 32)),
        *((2, 128), (4, 128), (8, 128), (16, 128), (2, 256), (4, 256), (6, 256), (8, 256)),
        *((2, 512), (3, 512), (4, 512), (2, 1000), (4, 1000), (8, 1000)),
    ),
    mixed=48,
    beside=(
        *(Beside(batch, 4, 512) for batch in (2, 8, 32, 64, 96, 128)),
        *(Beside(batch, drafts, 512) for batch in (8, 64) for drafts in (1, 8)),
        *(Beside(batch, 4, prompt) for batch in (2, 16, 128) for prompt in (128, 1900)),
    ),
)


def quick(plan: Plan) -> Plan:
    """A look at the machine instead of a profile."""
    return replace(
        plan,
        prompts=plan.prompts[:2],
        batches=plan.batches[:3],
        few_batches=plan.few_batches[:1],
        lengths=(1, 4),
        few_lengths=(4,),
        prefills=plan.prefills[:6:2],
        mixed=min(plan.mixed, 3),
        rounds=3,
        passes=2,
        race_seconds=0.2,
        race_rounds=3,
        beside=plan.beside[:1],
    )
