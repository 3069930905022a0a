# mypy: ignore-errors
# Triton's language only looks like Python: its functions carry no types.
"""Device code. Every kernel finds its metadata (lengths, page numbers) in device memory, so the
host plans nothing between rounds and a CUDA graph can be replayed whatever the lengths are.

Rows of `qkv` hold `HEADS` query heads, then `KV_HEADS` key heads, then `KV_HEADS` value heads, each
`2 x HALF` wide. Rotary embedding pairs the halves, so queries and keys are handled as two halves
and a score is the sum of two products.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _begin(EARLY: tl.constexpr):
    """With `EARLY`, kernels are launched while the one before still runs: wait for its writes."""
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()


@triton.jit
def norm_kernel(
    residual,
    update,
    gain,
    out,
    width,
    epsilon,
    rows,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):
    """One row per program: `residual += update`, the sum of `PARTS` (which may be none);
    `out = residual / rms(residual) * gain`."""
    _begin(EARLY)
    at = tl.program_id(0).to(tl.int64) * width + tl.arange(0, BLOCK)
    mask = tl.arange(0, BLOCK) < width
    x = tl.load(residual + at, mask=mask, other=0.0).to(tl.float32)
    # Before the sum: behind its barrier, a row's time would hold a second trip to memory.
    g = tl.load(gain + tl.arange(0, BLOCK), mask=mask, other=0.0).to(tl.float32)
    for part in tl.static_range(PARTS):
        x += tl.load(update + part * rows * width + at, mask=mask, other=0.0).to(tl.float32)
    if PARTS:
        tl.store(residual + at, x.to(residual.dtype.element_ty), mask=mask)
    scale = 1.0 / tl.sqrt(tl.sum(x * x) / width + epsilon)
    tl.store(out + at, (x * scale * g).to(out.dtype.element_ty), mask=mask)


@triton.jit
def norm_heads_kernel(
    qkv, gains, width, epsilon, HEADS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr
):
    """One row per program: the first `HEADS` heads of the row, each over its own rms."""
    head = tl.arange(0, BLOCK)
    at = head[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    mask = (head < HEADS)[:, None]
    row = qkv + tl.program_id(0).to(tl.int64) * width
    x = tl.load(row + at, mask=mask, other=0.0).to(tl.float32)
    g = tl.load(gains + at, mask=mask, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(x * x, 1) / SIZE + epsilon)
    tl.store(row + at, (x * scale[:, None] * g).to(qkv.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize_on_alignment=["tokens"])
def beside_kernel(
    tokens,
    embedding,
    token_gain,
    states,
    state_gain,
    out,
    width,
    state_stride,
    epsilon,
    BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):
    """RMS norms of a token's embedding (program `(row, 0)`) and of a state `(row, 1)`, written
    side by side."""
    _begin(EARLY)
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    mask = column < width
    if tl.program_id(1) == 0:
        source, gain = embedding + tl.load(tokens + row) * width, token_gain
    else:
        source, gain = states + row * state_stride, state_gain
    x = tl.load(source + column, mask=mask, other=0.0).to(tl.float32)
    g = tl.load(gain + column, mask=mask, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(x * x) / width + epsilon)
    to = out + (2 * row + tl.program_id(1)) * width + column
    tl.store(to, (x * scale * g).to(out.dtype.element_ty), mask=mask)


@triton.jit
def gated_kernel(
    gate_up,
    out,
    width,
    BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):
    """`out[row] = silu(gate) * up`, `BLOCK` columns of one row per program."""
    _begin(EARLY)
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < width
    gate = tl.load(gate_up + row * 2 * width + column, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * width + width + column, mask=mask, other=0.0).to(tl.float32)
    y = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(out + row * width + column, y.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _rotated(first, second, c, s, dtype: tl.constexpr):
    """Rotary embedding of two halves, in float32, rounded once."""
    a, b = first.to(tl.float32), second.to(tl.float32)
    return (a * c - b * s).to(dtype), (b * c + a * s).to(dtype)


@triton.jit
def _cached_block(
    qa,
    qb,
    acc,
    top,
    total,
    kv,
    value_at,
    at,
    live,
    scale,
    causal,
    HALF: tl.constexpr,
    PAD: tl.constexpr,
):
    """One step of the online softmax over `[BLOCK_N]` cached tokens at offsets `at`."""
    half = tl.arange(0, HALF)
    dim = tl.arange(0, 2 * HALF)
    ka = tl.load(kv + at[None, :] + half[:, None])
    kb = tl.load(kv + at[None, :] + HALF + half[:, None])
    v = tl.load(kv + value_at + at[:, None] + dim[None, :])
    scores = (tl.dot(qa, ka, input_precision=PAD) + tl.dot(qb, kb, input_precision=PAD)) * scale
    scores = tl.where(live[None, :] & causal, scores, float("-inf"))
    return _accumulate(scores, v, acc, top, total, PAD)


@triton.jit
def _accumulate(scores, v, acc, top, total, PAD: tl.constexpr):
    """Fold `scores [M, N]` (base 2) and `v [N, D]` into the running softmax."""
    higher = tl.maximum(top, tl.max(scores, 1))
    p = tl.exp2(scores - higher[:, None])
    shrink = tl.exp2(top - higher)
    acc = acc * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision=PAD)
    return acc, higher, total * shrink + tl.sum(p, 1)


@triton.jit(do_not_specialize=["offset", "splits"])
def decode_kernel(
    qkv,
    kv,
    out,
    partial,
    partial_log,
    slots,
    lengths,
    page_table,
    cos,
    sin,
    offset,
    splits,
    scale,
    table_width,
    value_at,
    QUERY: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    PAGE: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Attention of `QUERY` new tokens per request against its pages and against themselves.

    Grid: (request, kv head x tile of rows, part). The parts are `splits` shares of the cached
    tokens, and the new tokens: a last part of their own, or if `SPLIT` is off done after the one
    share. The rows of a tile are the new tokens times the query heads that share a kv head, so a
    page is read once for all of them. The new keys and values come straight from `qkv`: no program
    reads from a page what another one writes, and rotating, appending and attending are one launch.
    """
    GROUP: tl.constexpr = HEADS // KV_HEADS
    TILES: tl.constexpr = (QUERY * GROUP + BLOCK_M - 1) // BLOCK_M
    SIZE: tl.constexpr = 2 * HALF
    WIDTH: tl.constexpr = (HEADS + 2 * KV_HEADS) * SIZE
    _begin(EARLY)
    request = tl.program_id(0)
    kv_head = tl.program_id(1) // TILES
    tile = tl.program_id(1) % TILES
    part = tl.program_id(2)
    parts = splits + 1 if SPLIT else 1
    slot = tl.load(slots + request)
    cached = (tl.load(lengths + slot) + offset).to(tl.int32)
    base = qkv + request.to(tl.int64) * QUERY * WIDTH
    half = tl.arange(0, HALF)
    dim = tl.arange(0, SIZE)
    dtype: tl.constexpr = kv.dtype.element_ty

    row = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    token = row // GROUP
    head = kv_head * GROUP + row % GROUP
    mine = row < QUERY * GROUP
    at_q = base + token[:, None] * WIDTH + head[:, None] * SIZE + half[None, :]
    at_c = (cached + token)[:, None] * HALF + half[None, :]
    c = tl.load(cos + at_c, mask=mine[:, None], other=0.0)
    s = tl.load(sin + at_c, mask=mine[:, None], other=0.0)
    q1 = tl.load(at_q, mask=mine[:, None], other=0.0)
    q2 = tl.load(at_q + HALF, mask=mine[:, None], other=0.0)
    qa, qb = _rotated(q1, q2, c, s, dtype)

    acc = tl.zeros([BLOCK_M, SIZE], tl.float32)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    table = page_table + slot * table_width
    share = tl.cdiv(tl.cdiv(cached, BLOCK_N), splits) * BLOCK_N
    low = part * share  # behind the last cached token in the part of the new ones
    high = tl.minimum(low + share, cached)
    for start in range(low, high, BLOCK_N):
        column = start + tl.arange(0, BLOCK_N)
        live = column < high
        page = tl.load(table + column // PAGE, mask=live, other=0).to(tl.int64)
        at = ((page * KV_HEADS + kv_head) * PAGE + column % PAGE) * SIZE
        acc, top, total = _cached_block(
            qa, qb, acc, top, total, kv, value_at, at, live, scale, True, HALF, PRECISION
        )

    if part == parts - 1:
        new = tl.arange(0, BLOCK_Q)
        real = new < QUERY
        at_k = base + HEADS * SIZE + kv_head * SIZE + new * WIDTH
        turn = (cached + new)[:, None] * HALF + half[None, :]
        cos_k = tl.load(cos + turn, mask=real[:, None], other=0.0)
        sin_k = tl.load(sin + turn, mask=real[:, None], other=0.0)
        k1 = tl.load(at_k[:, None] + half[None, :], mask=real[:, None], other=0.0)
        k2 = tl.load(at_k[:, None] + HALF + half[None, :], mask=real[:, None], other=0.0)
        ka, kb = _rotated(k1, k2, cos_k, sin_k, dtype)
        at_v = at_k[:, None] + KV_HEADS * SIZE + dim[None, :]
        v = tl.load(at_v, mask=real[:, None], other=0.0)
        if tile == 0:
            fresh = cached + new
            page_new = tl.load(table + fresh // PAGE, mask=real, other=0).to(tl.int64)
            at_new = ((page_new * KV_HEADS + kv_head) * PAGE + fresh % PAGE) * SIZE
            key_to = kv + at_new[:, None] + half[None, :]
            tl.store(key_to, ka, mask=real[:, None])
            tl.store(key_to + HALF, kb, mask=real[:, None])
            tl.store(kv + value_at + at_new[:, None] + dim[None, :], v, mask=real[:, None])
        scores = tl.dot(qa, tl.trans(ka), input_precision=PRECISION)
        scores += tl.dot(qb, tl.trans(kb), input_precision=PRECISION)
        seen = (new[None, :] <= token[:, None]) & real[None, :]
        scores = tl.where(seen, scores * scale, float("-inf"))
        acc, top, total = _accumulate(scores, v, acc, top, total, PRECISION)

    place = (request.to(tl.int64) * QUERY + token) * HEADS + head
    if SPLIT:
        worked = (high > low) | (part == splits)
        log = tl.where(worked, top + tl.log2(total), float("-inf"))
        tl.store(partial_log + place * parts + part, log, mask=mine)
        if worked:
            part_to = partial + (place * parts + part)[:, None] * SIZE + dim[None, :]
            tl.store(part_to, acc / total[:, None], mask=mine[:, None])
    else:
        out_to = out + place[:, None] * SIZE + dim[None, :]
        tl.store(out_to, (acc / total[:, None]).to(dtype), mask=mine[:, None])


@triton.jit(do_not_specialize=["parts"])
def combine_kernel(
    partial,
    partial_log,
    out,
    parts,
    SIZE: tl.constexpr,
    MOST: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Merge the parts of one query head of one token, weighted by their softmax sums."""
    _begin(EARLY)
    place = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, MOST)
    dim = tl.arange(0, SIZE)
    log = tl.load(partial_log + place * parts + part, mask=part < parts, other=float("-inf"))
    weight = tl.exp2(log - tl.max(log, 0))
    at = (place * parts + part)[:, None] * SIZE + dim[None, :]
    values = tl.load(partial + at, mask=(weight > 0)[:, None], other=0.0)
    merged = tl.sum(values * weight[:, None], 0) / tl.sum(weight, 0)
    tl.store(out + place * SIZE + dim, merged.to(out.dtype.element_ty))


@triton.jit(do_not_specialize_on_alignment=["blocks"])
def append_kernel(
    qkv,
    kv,
    blocks,
    page_table,
    cos,
    sin,
    table_width,
    value_at,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Prefill: rotate the keys of one block of tokens and write keys and values to pages.

    Grid: (block, kv head).
    """
    SIZE: tl.constexpr = 2 * HALF
    WIDTH: tl.constexpr = (HEADS + 2 * KV_HEADS) * SIZE
    kv_head = tl.program_id(1)
    block = blocks + tl.program_id(0) * 4
    first, rows = tl.load(block), tl.load(block + 1).to(tl.int32)
    slot, position = tl.load(block + 2), tl.load(block + 3).to(tl.int32)
    i = tl.arange(0, BLOCK_M)
    half = tl.arange(0, HALF)
    dim = tl.arange(0, SIZE)
    mask = (i < rows)[:, None]
    at_k = qkv + ((first + i) * WIDTH + (HEADS + kv_head) * SIZE)[:, None]
    at_c = (position + i)[:, None] * HALF + half[None, :]
    c = tl.load(cos + at_c, mask=mask, other=0.0)
    s = tl.load(sin + at_c, mask=mask, other=0.0)
    k1 = tl.load(at_k + half[None, :], mask=mask, other=0.0)
    k2 = tl.load(at_k + HALF + half[None, :], mask=mask, other=0.0)
    ka, kb = _rotated(k1, k2, c, s, kv.dtype.element_ty)
    v = tl.load(at_k + KV_HEADS * SIZE + dim[None, :], mask=mask, other=0.0)
    column = position + i
    page = tl.load(page_table + slot * table_width + column // PAGE, mask=i < rows, other=0)
    at = ((page.to(tl.int64) * KV_HEADS + kv_head) * PAGE + column % PAGE) * SIZE
    to = kv + at[:, None] + half[None, :]
    tl.store(to, ka, mask=mask)
    tl.store(to + HALF, kb, mask=mask)
    tl.store(kv + value_at + at[:, None] + dim[None, :], v, mask=mask)


@triton.jit(do_not_specialize_on_alignment=["blocks"])
def prefill_kernel(
    qkv,
    kv,
    out,
    blocks,
    page_table,
    cos,
    sin,
    scale,
    table_width,
    value_at,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Causal attention of one block of prompt tokens over pages, its own included.

    Grid: (block, head). Runs after `append_kernel`, so a prompt may come in chunks.
    """
    SIZE: tl.constexpr = 2 * HALF
    WIDTH: tl.constexpr = (HEADS + 2 * KV_HEADS) * SIZE
    head = tl.program_id(1)
    kv_head = head // (HEADS // KV_HEADS)
    block = blocks + tl.program_id(0) * 4
    first, rows = tl.load(block), tl.load(block + 1).to(tl.int32)
    slot, position = tl.load(block + 2), tl.load(block + 3).to(tl.int32)
    i = tl.arange(0, BLOCK_M)
    half = tl.arange(0, HALF)
    dim = tl.arange(0, SIZE)
    mask = (i < rows)[:, None]
    at_q = qkv + ((first + i) * WIDTH + head * SIZE)[:, None] + half[None, :]
    at_c = (position + i)[:, None] * HALF + half[None, :]
    c = tl.load(cos + at_c, mask=mask, other=0.0)
    s = tl.load(sin + at_c, mask=mask, other=0.0)
    q1 = tl.load(at_q, mask=mask, other=0.0)
    q2 = tl.load(at_q + HALF, mask=mask, other=0.0)
    qa, qb = _rotated(q1, q2, c, s, kv.dtype.element_ty)

    acc = tl.zeros([BLOCK_M, SIZE], tl.float32)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    table = page_table + slot * table_width
    high = tl.where(rows > 0, position + rows, 0)
    for start in range(0, high, BLOCK_N):
        column = start + tl.arange(0, BLOCK_N)
        live = column < high
        page = tl.load(table + column // PAGE, mask=live, other=0).to(tl.int64)
        at = ((page * KV_HEADS + kv_head) * PAGE + column % PAGE) * SIZE
        causal = column[None, :] <= (position + i)[:, None]
        acc, top, total = _cached_block(
            qa, qb, acc, top, total, kv, value_at, at, live, scale, causal, HALF, PRECISION
        )
    to = out + ((first + i) * HEADS + head)[:, None] * SIZE + dim[None, :]
    tl.store(to, (acc / total[:, None]).to(out.dtype.element_ty), mask=mask)
