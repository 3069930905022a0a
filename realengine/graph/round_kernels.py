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
