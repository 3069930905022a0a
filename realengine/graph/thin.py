# mypy: ignore-errors
# Triton's language only looks like Python: its functions carry no types.
"""Matrix products of few rows, which take as long as it takes to read the matrix: kernels that
stream it, and which of them beat cuBLAS on this device."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from realengine.graph.kernels import _begin

MOST_ROWS = 64
_COLD_BYTES = 200 << 20  # read between two uses of one matrix: more than any L2 cache


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
    PRECISION: tl.constexpr,
    EARLY: tl.constexpr,
):
    """`out [rows, columns] = x [rows, width] @ weight.T`, one tile of columns a program.

    With `GATED`, `weight` has `2 x columns` rows, those of the gate first, and a tile is one half
    of each: `out = silu(gate) * up`. `BLOCK_K` divides `width`.
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
    for start in range(0, width, BLOCK_K):
        w = tl.load(at_w + start, mask=real_n, other=0.0, eviction_policy="evict_first")
        v = tl.load(at_x + start, mask=real_m, other=0.0)
        acc = tl.dot(w, v, acc, input_precision=PRECISION)
    if GATED:
        pair = tl.permute(tl.reshape(acc, (2, HALF, BLOCK_M)), (1, 2, 0))
        gate, up = tl.split(pair)
        y = gate / (1.0 + tl.exp(-gate)) * up
        j = tl.program_id(0) * HALF + tl.arange(0, HALF)
        to = out + m[None, :] * columns + j[:, None]
        tl.store(to, y.to(out.dtype.element_ty), mask=(j < columns)[:, None] & real_m)
    else:
        to = out + m[None, :] * columns + n[:, None]
        tl.store(to, acc.to(out.dtype.element_ty), mask=real_n & real_m)


@dataclass(frozen=True, slots=True)
class Tile:
    """Columns and width of a program's tile, its warps, and loads in flight."""

    columns: int
    width: int
    warps: int
    stages: int


# By most rows: what was fastest for some matrix of a Llama-2-7B on an H100
# (`results/heads/h100_thin_linear.json`).
TILES = {
    16: (Tile(32, 256, 4, 5), Tile(32, 128, 4, 5)),
    32: (Tile(64, 128, 4, 5), Tile(32, 256, 4, 4)),
    64: (Tile(64, 128, 4, 5), Tile(128, 128, 4, 3)),
}


def bucket(rows: int) -> int:
    """The key of `TILES` for so many rows."""
    return max(16, triton.next_power_of_2(rows))


def product(x: Tensor, weight: Tensor, gated: bool, tile: Tile, early: bool = False) -> Tensor:
    """`x [rows, width]`, rows up to `MOST_ROWS`, by `weight`; `width` is divided by the tile's."""
    rows, width = x.shape
    columns = len(weight) // 2 if gated else len(weight)
    out = x.new_empty(rows, columns)
    programs = triton.cdiv(len(weight), tile.columns)
    thin_kernel[(programs,)](
        x,
        weight,
        out,
        rows,
        columns,
        width,
        x.stride(0),
        GATED=gated,
        BLOCK_M=bucket(rows),
        BLOCK_N=tile.columns,
        BLOCK_K=tile.width,
        PRECISION="ieee" if x.dtype == torch.float32 else "tf32",
        EARLY=early,
        num_warps=tile.warps,
        num_stages=tile.stages,
        launch_pdl=early,
    )
    return out


def fastest(weight: Tensor, gated: bool, usual) -> dict[int, Tile]:
    """For each key of `TILES` the tile that beats `usual(x, weight)`, if one does.

    Both run in a CUDA graph over copies of the matrix, so that none is found in the L2 cache.
    """
    one = weight.numel() * weight.element_size()
    copies = [weight] + [weight.clone() for _ in range(-(-_COLD_BYTES // one))]
    found = {}
    for most, tiles in TILES.items():
        x = torch.randn(most * 5 // 8, weight.shape[1], device=weight.device, dtype=weight.dtype)
        best_s, best = 0.99 * cold_s(lambda w, x=x: usual(x, w), copies, weight.device), None
        for tile in tiles:
            if weight.shape[1] % tile.width:
                continue
            took_s = cold_s(lambda w, x=x, t=tile: product(x, w, gated, t), copies, weight.device)
            if took_s < best_s:
                best_s, best = took_s, tile
        if best is not None:
            found[most] = best
    return found


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
