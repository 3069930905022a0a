# mypy: ignore-errors
# Triton's language only looks like Python: its functions carry no types.
"""Matrix products of few rows, which take as long as it takes to read the matrix: a kernel that
streams it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from realengine.graph.kernels import _begin
from realengine.graph.ops import Use


@triton.jit
def thin_kernel(
    x,
    weight,
    out,
    rows,
    columns,
    width,
    x_stride,
    GATED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
    EARLY: tl.constexpr,
):
    """`out [rows, columns] = x [rows, width] @ weight.T`, one tile of columns a program.

    With `GATED`, `weight` has `2 x columns` rows, those of the gate first, and a tile is one half
    of each: `out = silu(gate) * up`. With several `PARTS` each is the product over a share of the
    width, `[PARTS, rows, columns]`. `BLOCK_K` divides `width`.
    """
    _begin(EARLY)
    i = tl.arange(0, BLOCK_N)
    if GATED:
        HALF: tl.constexpr = BLOCK_N // 2
        n = tl.program_id(0) * HALF + i % HALF
        row_of_weight = n + (i // HALF) * columns
    else:
        n = tl.program_id(0) * BLOCK_N + i
        row_of_weight = n
    m = tl.arange(0, BLOCK_M)
    k = tl.arange(0, BLOCK_K)
    at_w = weight + row_of_weight[:, None].to(tl.int64) * width + k[None, :]
    at_x = x + m[None, :] * x_stride + k[:, None]
    real_n, real_m = (n < columns)[:, None], (m < rows)[None, :]
    acc = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    share = tl.cdiv(width // BLOCK_K, PARTS) * BLOCK_K
    low = tl.program_id(1) * share
    high = tl.minimum(low + share, width)
    for start in range(low, high, BLOCK_K):
        w = tl.load(at_w + start, mask=real_n, other=0.0, eviction_policy="evict_first")
        v = tl.load(at_x + start, mask=real_m, other=0.0)
        acc = tl.dot(w, v, acc, input_precision=PRECISION)
    to = out + tl.program_id(1) * rows * columns + m[None, :] * columns
    if GATED:
        pair = tl.permute(tl.reshape(acc, (2, HALF, BLOCK_M)), (1, 2, 0))
        gate, up = tl.split(pair)
        y = gate / (1.0 + tl.exp(-gate)) * up
        j = tl.program_id(0) * HALF + tl.arange(0, HALF)
        tl.store(to + j[:, None], y.to(out.dtype.element_ty), mask=(j < columns)[:, None] & real_m)
    else:
        tl.store(to + n[:, None], acc.to(out.dtype.element_ty), mask=real_n & real_m)


@dataclass(frozen=True, slots=True)
class Tile:
    """Columns and width of a program's tile, its warps, loads in flight; parts of a product."""

    columns: int
    width: int
    warps: int
    stages: int
    parts: int = 1


# By most rows: what was fastest for some matrix of a Llama-2-7B on an H100
# (`results/heads/h100_thin_linear.json`, `h100_head_rounds.json`).
TILES: dict[int, tuple[Tile, ...]] = {
    16: (Tile(32, 256, 4, 5), Tile(32, 128, 4, 5), Tile(32, 256, 4, 4, 2), Tile(64, 128, 4, 5, 4)),
    32: (Tile(64, 128, 4, 5), Tile(32, 256, 4, 4), Tile(32, 128, 4, 5, 2)),
    64: (Tile(64, 128, 4, 5), Tile(128, 128, 4, 3), Tile(64, 128, 4, 3, 4)),
}
MOST_ROWS = max(TILES)


def product(x: Tensor, weight: Tensor, use: Use, tile: Tile, early: bool = False) -> Tensor:
    """`x [rows, width]`, rows up to `MOST_ROWS`, by `weight`; `width` is divided by the tile's.
    A tile of several parts gives float32 `[parts, rows, columns]`."""
    rows, width = x.shape
    columns = len(weight) // 2 if use is Use.GATED else len(weight)
    if tile.parts > 1:
        out = x.new_empty(tile.parts, rows, columns, dtype=torch.float32)
    else:
        out = x.new_empty(rows, columns)
    thin_kernel[(triton.cdiv(len(weight), tile.columns), tile.parts)](
        x,
        weight,
        out,
        rows,
        columns,
        width,
        x.stride(0),
        GATED=use is Use.GATED,
        BLOCK_M=next(most for most in TILES if most >= rows),
        BLOCK_N=tile.columns,
        BLOCK_K=tile.width,
        PARTS=tile.parts,
        PRECISION="ieee" if x.dtype == torch.float32 else "tf32",
        EARLY=early,
        num_warps=tile.warps,
        num_stages=tile.stages,
        launch_pdl=early,
    )
    return out


def cold_s(work, items, device) -> float:
    """Seconds of `work` on one of `items`, in a CUDA graph that takes each in turn."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        work(items[0])  # compiles
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin()
        for item in items:
            work(item)
        graph.capture_end()
        times = []
        for _ in range(7):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record(stream)
            graph.replay()
            end.record(stream)
            end.synchronize()
            times.append(start.elapsed_time(end) * 1e-3)
    return statistics.median(times[2:]) / len(items)
