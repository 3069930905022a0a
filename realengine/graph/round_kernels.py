# mypy: ignore-errors
# Triton's language only looks like Python: its functions carry no types.
"""Device code between forward passes: the most likely tokens, and what a round comes to."""

import triton
import triton.language as tl

from realengine.graph.kernels import _begin


@triton.jit
def best_kernel(
    scores, ids, out, columns, stride, IDS: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr
):
    """One row per program: the first of its highest scores, or what `ids` calls it."""
    _begin(EARLY)
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    top = tl.full([BLOCK], float("-inf"), tl.float32)
    at = i
    for start in range(0, columns, BLOCK):
        column = start + i
        x = tl.load(scores + row * stride + column, mask=column < columns, other=float("-inf"))
        better = x.to(tl.float32) > top
        top = tl.where(better, x.to(tl.float32), top)
        at = tl.where(better, column, at)
    best = tl.min(tl.where(top == tl.max(top), at, columns - 1)).to(tl.int64)
    if IDS:
        best = tl.load(ids + best)
    tl.store(out + row, best)


@triton.jit(do_not_specialize_on_alignment=["drafts", "forced", "slots", "accepted", "final"])
def accept_kernel(
    best,
    drafts,
    drafts_stride,
    forced,
    drafted,
    slots,
    accepted,
    final,
    LENGTH: tl.constexpr,
    BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):
    """One request per program: how many leading drafts are the verifier's own choice, at most as
    many as were drafted, unless `forced` says otherwise; and its choice behind them."""
    _begin(EARLY)
    request = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    mine = tl.load(best + request * (LENGTH + 1) + i, mask=i <= LENGTH, other=0)
    draft = tl.load(drafts + request * drafts_stride + i, mask=i < LENGTH, other=0)
    run = tl.min(tl.where((mine != draft) & (i < LENGTH), i, LENGTH)).to(tl.int64)
    kept = tl.minimum(run, tl.load(drafted + tl.load(slots + request)))
    asked = tl.load(forced + request)
    kept = tl.where(asked >= 0, asked, kept)
    tl.store(accepted + request, kept)
    tl.store(final + request, tl.sum(tl.where(i == kept, mine, 0)))


@triton.jit(
    do_not_specialize=["padding"],
    do_not_specialize_on_alignment=["slots", "tokens", "accepted", "final"],
)
def commit_kernel(
    tokens,
    accepted,
    final,
    slots,
    drafted,
    lengths,
    last,
    result,
    padding,
    LENGTH: tl.constexpr,
    BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):
    """One request per program: see `Ops.commit`."""
    _begin(EARLY)
    request = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + request)
    kept, new = tl.load(accepted + request), tl.load(final + request)
    i = tl.arange(0, BLOCK)
    mine = tokens + request * (LENGTH + 1)
    draft = tl.load(mine + 1 + i, mask=i < LENGTH, other=0)
    to = result + request * (LENGTH + 3)
    tl.store(to, kept)
    tl.store(to + 1, tl.load(drafted + slot))
    tl.store(to + 2 + i, tl.where((i == kept) | (i == LENGTH), new, draft), mask=i <= LENGTH)
    tl.store(last + 2 * slot, tl.load(mine + kept))
    tl.store(last + 2 * slot + 1, new)
    if slot != padding:
        tl.store(lengths + slot, tl.load(lengths + slot) + kept + 1)


@triton.jit(do_not_specialize_on_alignment=["slots", "numbers"])
def waiting_kernel(
    slots, numbers, drafted, lengths, fresh, blocks, last, states, EARLY: tl.constexpr
):
    """One request per program: see `Ops.waiting`."""
    _begin(EARLY)
    request = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + request)
    tl.store(drafted + slot, tl.maximum(tl.load(numbers + request), 0))
    count, first = tl.load(fresh + slot), request * states
    block = blocks + 4 * request
    tl.store(block, first)
    tl.store(block + 1, states)
    tl.store(block + 2, slot)
    tl.store(block + 3, tl.load(lengths + slot) - 1 - count)
    tl.store(last + request, first + count - 1)


@triton.jit(do_not_specialize=["padding"], do_not_specialize_on_alignment=["slots", "tokens"])
def keep_kernel(
    slots,
    states,
    tokens,
    tokens_stride,
    accepted,
    kept_states,
    kept_tokens,
    fresh,
    padding,
    width,
    most,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):
    """One row of a round per program: see `Ops.keep`."""
    _begin(EARLY)
    row = tl.program_id(0).to(tl.int64)
    request, i = row // COUNT, row % COUNT
    slot = tl.load(slots + request)
    column = tl.arange(0, BLOCK)
    mask = column < width
    to = slot * most + i
    x = tl.load(states + row * width + column, mask=mask)
    tl.store(kept_states + to * width + column, x, mask=mask)
    tl.store(kept_tokens + to, tl.load(tokens + request * tokens_stride + i))
    if i == 0:
        count = tl.load(accepted + request) + 1
        tl.store(fresh + slot, tl.where(slot == padding, 1, count))
