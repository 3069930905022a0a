"""From requests to flat inputs: sizes that CUDA graphs exist for, and prompts cut into chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat

import numpy
import numpy.typing

from realengine.graph.drafting import Drafter, Key

Values = numpy.typing.NDArray[numpy.int64]

CHUNK_ENDS = 64  # prompts that may end in one chunk: rows of the head's matrix product
MIXED_ENDS = 16  # of those, beside a round in a captured pass
MIXED_ROWS = (*range(128, 513, 64), *range(640, 2049, 128))  # of captured mixed passes
MIXED_BATCHES = (8, 16, 32, 48, *range(64, 129, 16), *range(160, 257, 32))


@dataclass(frozen=True, slots=True)
class Work:
    """One run of a device program.

    Attributes:
        rows: leading rows of the result that count.
        more: begin and end of further ones that do; the rest is padding.
    """

    key: Key
    values: Values
    rows: int
    more: tuple[int, int] = (0, 0)

    def counted(self, result: Values) -> Values:
        """The rows of `result` that count."""
        first, more = result[: self.rows], result[slice(*self.more)]
        return numpy.concatenate([first, more]) if len(more) else first


@dataclass(frozen=True, slots=True)
class Sizes:
    """Batch sizes of rounds, token counts of prefill, and shapes of mixed passes (rows, batch,
    drafts), that are padded up to.

    Larger ones, and all of them on the CPU where all are empty, run at their exact size.
    """

    batches: tuple[int, ...] = ()
    prefill_tokens: tuple[int, ...] = ()
    mixed: tuple[tuple[int, int, int], ...] = ()

    def prefill_key(self, tokens: int, blocks: int, ends: int, block_tokens: int) -> Key:
        padded = _at_least(tokens, self.prefill_tokens)
        if padded not in self.prefill_tokens:
            return tokens, blocks, ends
        return captured_key(padded, block_tokens, CHUNK_ENDS)

    def batch(self, requests: int) -> int:
        return _at_least(requests, self.batches)

    def mixed_shape(self, rows: int, ends: int, batch: int, drafts: int) -> tuple[int, int]:
        """Rows and batch of the smallest captured pass that holds this one; these themselves if
        there is none."""
        fitting = [
            shape[:2]
            for shape in self.mixed
            if shape[2] == drafts and shape[0] >= rows and shape[1] >= batch
        ]
        return min(fitting) if fitting and ends <= MIXED_ENDS else (rows, batch)


def captured_key(tokens: int, block_tokens: int, ends: int) -> Key:
    """Each of up to `ends` + 1 pieces has at most one block that is not full."""
    return tokens, tokens // block_tokens + ends + 1, ends


def empty_prefill_work(tokens: int, block_tokens: int, padding: int) -> Work:
    """A prefill of nothing at all, of a captured size."""
    key = captured_key(tokens, block_tokens, CHUNK_ENDS)
    return _prefill_values(key, [], [], [], padding)


def cuda_sizes(max_requests: int, drafts: int) -> Sizes:
    """Sizes worth a CUDA graph on a GPU: close enough together that padding costs under a fifth.

    On a slow host the launches of a pass of 1,000 tokens take as long as it does.

    Args:
        drafts: of the rounds in mixed passes; those of other lengths have no graphs.
    """
    steps = [1, 2, 3, 4, 6, *range(8, 33, 4), *range(40, 129, 8), *range(144, 513, 16)]
    batches = [size for size in steps if size < max_requests] + [min(max_requests, steps[-1])]
    mixed = [
        (rows, batch, drafts)
        for rows in MIXED_ROWS
        for batch in MIXED_BATCHES
        if batch * (drafts + 1) <= rows and batch < 2 * max_requests
    ]
    prompts = (16, 32, 64, 128, 192, 256, 320, 384, 512, 640, 768, *range(1024, 2049, 128))
    return Sizes(tuple(batches), prompts, tuple(mixed))


def _at_least(count: int, sizes: tuple[int, ...]) -> int:
    return next((size for size in sizes if size >= count), count)


def round_work(
    slots: Sequence[int], numbers: Sequence[int], batch: int, padding: int, *shape: int
) -> Work:
    """Input of a draft, verify or decode stage, padded to `batch`.

    Args:
        numbers: what the stage wants to know of each request.
        shape: the rest of the key.
    """
    # One list: the device waits for the host here, and three slices of an array take longer.
    values = [*slots, *repeat(padding, batch - len(slots))]
    values += [*numbers, *repeat(-1, batch - len(numbers))]
    return Work((batch, *shape), numpy.array(values, numpy.int64), len(slots))


def draft_shapes(drafter: Drafter, lengths: Sequence[int]) -> list[tuple[int, ...]]:
    """What follows the batch in the keys of draft runs in an engine of these lengths.

    States and drafts are taken in one run where a round has but one length. With several, a round
    may follow one of another length: the run that takes states in makes the first draft, and
    another one the others, so that not every two lengths need a graph.
    """
    if not drafter.takes_states:
        return [(length,) for length in lengths]
    if len(lengths) == 1:
        return [(lengths[0] + 1, lengths[0])]
    first: list[tuple[int, ...]] = [(length + 1, drafts) for drafts in (1, 0) for length in lengths]
    return first + [(0, length) for length in lengths if length > 1]


def draft_runs(
    drafter: Drafter, lengths: Sequence[int], states: int, length: int
) -> list[tuple[int, ...]]:
    """Those of one round of `length` drafts for requests that have up to `states` new states."""
    if not drafter.takes_states:
        return [(length,)]
    room = min(each + 1 for each in lengths if each + 1 >= states)
    if len(lengths) == 1 or length < 2:
        return [(room, length)]
    return [(room, 1), (0, length)]


def admit_work(
    slots: Sequence[int], keys: Sequence[int], pages: Sequence[Sequence[int]], table_width: int
) -> Work:
    """Input of `Stages.admit`. Unused entries point to the dummy page."""
    tables = numpy.zeros((len(slots), table_width), numpy.int64)
    for table, held in zip(tables, pages, strict=True):
        table[: len(held)] = held
    head = numpy.array([*slots, *keys], numpy.int64)
    return Work((len(slots),), numpy.concatenate([head, tables.ravel()]), len(slots))


@dataclass(frozen=True, slots=True)
class Piece:
    """What a prefill takes of a prompt: `tokens` from `begin` on, up to `end`."""

    slot: int
    tokens: Sequence[int]
    begin: int
    end: int


@dataclass(slots=True)
class _Chunk:
    tokens: list[int] = field(default_factory=list)
    blocks: list[tuple[int, int, int, int]] = field(default_factory=list)
    ends: list[tuple[int, int, int]] = field(default_factory=list)
    following: int = 0

    def add(self, slot: int, prompt: Sequence[int], begin: int, end: int, block: int) -> None:
        """Tokens `begin` to `end` of `prompt`, in blocks of at most `block`."""
        first = len(self.tokens) - begin
        for i in range(begin, end, block):
            self.blocks.append((first + i, min(block, end - i), slot, i))
        self.tokens.extend(prompt[begin:end])
        if end < len(prompt):
            self.following = prompt[end]
        else:
            self.ends.append((len(self.tokens) - 1, slot, end))

    def work(self, sizes: Sizes, block_tokens: int, padding: int) -> Work:
        key = sizes.prefill_key(len(self.tokens), len(self.blocks), len(self.ends), block_tokens)
        return self.padded(key, padding)

    def padded(self, key: Key, padding: int) -> Work:
        tokens = [*self.tokens, self.following]
        return _prefill_values(key, tokens, self.blocks, self.ends, padding)


def _prefill_values(
    key: Key,
    tokens: Sequence[int],
    blocks: Sequence[tuple[int, ...]],
    ends: Sequence[tuple[int, ...]],
    padding: int,
) -> Work:
    room = key[0] + 1
    flat = numpy.zeros(room + 4 * key[1], numpy.int64)
    flat[: len(tokens)] = tokens
    flat[room : room + 4 * len(blocks)] = numpy.array(blocks, numpy.int64).ravel()
    # Padding "ends" at row 0 with length 1, which leaves padding's own length at 2.
    columns = numpy.repeat(numpy.array([[0], [padding], [1]], numpy.int64), key[2], axis=1)
    columns[:, : len(ends)] = numpy.array(ends, numpy.int64).reshape(-1, 3).T
    return Work(key, numpy.concatenate([flat, columns.ravel()]), len(ends))


def prefill_work(
    pieces: Iterable[Piece],
    chunk_tokens: int,
    block_tokens: int,
    padding: int,
    sizes: Sizes,
) -> Iterator[Work]:
    """Cut `pieces` into chunks of at most `chunk_tokens`, in order; a long one spans several, and
    later ones of a prompt find the earlier ones in the cache. A prompt that does not end in its
    piece must be the last: a chunk says what follows its last token only."""
    chunk = _Chunk()
    for each in pieces:
        done = each.begin
        while done < each.end:
            begin, done = done, min(each.end, done + chunk_tokens - len(chunk.tokens))
            chunk.add(each.slot, each.tokens, begin, done, block_tokens)
            if len(chunk.tokens) == chunk_tokens or len(chunk.ends) == CHUNK_ENDS:
                yield chunk.work(sizes, block_tokens, padding)
                chunk = _Chunk()
    if chunk.tokens:
        yield chunk.work(sizes, block_tokens, padding)


def mixed_work(
    pieces: Iterable[Piece],
    slots: Sequence[int],
    forced: Sequence[int],
    length: int,
    block_tokens: int,
    padding: int,
    sizes: Sizes,
) -> Work:
    """Input of a mixed pass: a round of `length` drafts for `slots`, then one chunk of `pieces`."""
    chunk = _Chunk([0] * (len(slots) * (length + 1)))
    for each in pieces:
        chunk.add(each.slot, each.tokens, each.begin, each.end, block_tokens)
    shape = sizes.mixed_shape(len(chunk.tokens), len(chunk.ends), len(slots), length)
    key: Key = len(chunk.tokens), len(chunk.blocks), len(chunk.ends)
    if (*shape, length) in sizes.mixed:
        key = captured_key(shape[0], block_tokens, MIXED_ENDS)
    return _beside(chunk.padded(key, padding), round_work(slots, forced, shape[1], padding, length))


def empty_mixed_work(shape: tuple[int, int, int], block_tokens: int, padding: int) -> Work:
    """A mixed pass of nothing at all; `shape` as in `Sizes.mixed`."""
    rows, batch, length = shape
    prompts = _prefill_values(captured_key(rows, block_tokens, MIXED_ENDS), [], [], [], padding)
    return _beside(prompts, round_work([], [], batch, padding, length))


def _beside(prompts: Work, rounds: Work) -> Work:
    key, values = (*prompts.key, *rounds.key), numpy.concatenate([prompts.values, rounds.values])
    batch = rounds.key[0]
    return Work(key, values, rounds.rows, (batch, batch + prompts.rows))
