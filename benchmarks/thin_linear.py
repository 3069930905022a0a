"""Matrix products of few rows: kernels that stream the weights, beside cuBLAS and the copy rate.

    python benchmarks/thin_linear.py --json OUT.json [--quick]

A decode step at a small batch is the time it takes to read the weights. For each matrix of a
Llama-2-7B layer, of its head and of an EAGLE-3 head this times cuBLAS and a Triton kernel over its
tile sizes, with weights that are not in the L2 cache, as a share of the device's copy rate.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from engine_stages import Report, ceilings
from torch import Tensor

GPU = torch.device("cuda")
SHAPES = {  # (columns of the output, width of the input)
    "qkv": (12288, 4096),
    "output": (4096, 4096),
    "gate_up": (22016, 4096),
    "down": (4096, 11008),
    "head": (32000, 4096),
    "eagle3 qkv": (12288, 8192),
    "eagle3 fusion": (4096, 12288),
}
L2_BYTES = 50 << 20


@triton.jit
def thin_kernel(  # type: ignore[no-untyped-def]
    x,
    weight,
    out,
    rows,
    columns,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """`out [rows, columns] = x [rows, WIDTH] @ weight [columns, WIDTH].T`, few rows.

    Grid: (tile of columns). A program streams its rows of `weight` once."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    m = tl.arange(0, BLOCK_M)
    k = tl.arange(0, BLOCK_K)
    acc = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    at_w = weight + n[:, None].to(tl.int64) * WIDTH + k[None, :]
    at_x = x + m[None, :] * WIDTH + k[:, None]
    real_n, real_m = (n < columns)[:, None], (m < rows)[None, :]
    for start in range(0, WIDTH, BLOCK_K):
        if WIDTH % BLOCK_K == 0:
            w = tl.load(at_w + start, mask=real_n, other=0.0, eviction_policy="evict_first")
            v = tl.load(at_x + start, mask=real_m, other=0.0)
        else:
            left = k < WIDTH - start
            w = tl.load(at_w + start, mask=real_n & left[None, :], other=0.0)
            v = tl.load(at_x + start, mask=real_m & left[:, None], other=0.0)
        acc = tl.dot(w, v, acc)
    to = out + m[None, :] * columns + n[:, None]
    tl.store(to, acc.to(out.dtype.element_ty), mask=real_n & real_m)


@triton.jit
def described_kernel(  # type: ignore[no-untyped-def]
    x,
    weight,
    out,
    rows,
    columns,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """As `thin_kernel`; `weight` is a tensor descriptor, read by the tensor memory accelerator."""
    first = tl.program_id(0) * BLOCK_N
    n = first + tl.arange(0, BLOCK_N)
    m = tl.arange(0, BLOCK_M)
    k = tl.arange(0, BLOCK_K)
    acc = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    at_x = x + m[None, :] * WIDTH + k[:, None]
    real_n, real_m = (n < columns)[:, None], (m < rows)[None, :]
    for start in range(0, WIDTH, BLOCK_K):
        w = weight.load([first, start])
        left = k < WIDTH - start
        v = tl.load(at_x + start, mask=real_m & left[:, None], other=0.0)
        acc = tl.dot(w, v, acc)
    to = out + m[None, :] * columns + n[:, None]
    tl.store(to, acc.to(out.dtype.element_ty), mask=real_n & real_m)


def graph_s(work: Callable[[int], object], copies: int) -> float:
    """Seconds of one call: `copies` of them, over different weights, in a CUDA graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        work(0)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin()
        for i in range(copies):
            work(i)
        graph.capture_end()
        times = []
        for _ in range(7):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record(stream)
            graph.replay()
            end.record(stream)
            end.synchronize()
            times.append(start.elapsed_time(end) * 1e-3)
    return statistics.median(times[2:]) / copies


def variants(rows: int, quick: bool) -> list[tuple[int, int, int, int, bool]]:
    """(columns of a tile, its width, warps, stages, by descriptor)."""
    wide = (16, 32) if rows <= 16 else (64, 128)
    deep = (128, 256) if quick else (128, 256, 512)
    found = itertools.product(wide, deep, (4,) if quick else (4, 8), (3, 5), (False, True))
    block_m = max(16, triton.next_power_of_2(rows))
    return [
        (n, k, warps, stages, tma)
        for n, k, warps, stages, tma in found
        if stages * k * (n + block_m) * 2 <= 220_000 and n * k >= 2048 * warps // 4
        if not tma or n >= 32
    ]


def measure(name: str, rows: int, copy_rate: float, quick: bool) -> dict[str, Any]:
    """cuBLAS and the best tiles for one matrix."""
    columns, width = SHAPES[name]
    one = columns * width * 2
    copies = max(2, 4 * L2_BYTES // one + 1)
    weights = [torch.randn(columns, width, device=GPU, dtype=torch.bfloat16) for _ in range(copies)]
    x = torch.randn(rows, width, device=GPU, dtype=torch.bfloat16)
    out = torch.empty(rows, columns, device=GPU, dtype=torch.bfloat16)
    expected = F.linear(x.double(), weights[0].double())
    cublas_s = graph_s(lambda i: F.linear(x, weights[i]), copies)
    block_m = max(16, triton.next_power_of_2(rows))
    tried: list[dict[str, Any]] = []
    for n, k, warps, stages, tma in variants(rows, quick):
        sources: Sequence[Any] = weights
        if tma:
            from triton.tools.tensor_descriptor import TensorDescriptor

            sources = [TensorDescriptor.from_tensor(weight, [n, k]) for weight in weights]
        kernel = described_kernel if tma else thin_kernel

        def run(
            i: int,
            n: int = n,
            k: int = k,
            warps: int = warps,
            stages: int = stages,
            sources: Sequence[Any] = sources,
            kernel: Any = kernel,
        ) -> Tensor:
            kernel[(triton.cdiv(columns, n),)](
                x,
                sources[i],
                out,
                rows,
                columns,
                WIDTH=width,
                BLOCK_M=block_m,
                BLOCK_N=n,
                BLOCK_K=k,
                num_warps=warps,
                num_stages=stages,
            )
            return out

        try:
            error = float((run(0).double() - expected).abs().max() / expected.std())
            seconds = graph_s(run, copies)
        except Exception as problem:
            tried.append({"tile": [n, k, warps, stages, tma], "error": str(problem)[:200]})
            continue
        tried.append({"tile": [n, k, warps, stages, tma], "us": seconds * 1e6, "off": error})
    good = sorted((t for t in tried if t.get("off", 1.0) < 0.05), key=lambda t: t["us"])
    floor_s = one / copy_rate
    return {
        "matrix": name,
        "rows": rows,
        "floor_us": floor_s * 1e6,
        "cublas_us": cublas_s * 1e6,
        "best": good[:6],
        "failed": len(tried) - len(good),
        "failures": [t for t in tried if "error" in t][:2],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="where results go")
    parser.add_argument("--quick", action="store_true", help="fewer tiles and numbers of rows")
    options = parser.parse_args()
    report = Report(options.json)
    copy_rate = report.section("ceilings", ceilings)["copy_bytes_per_s"]
    for rows in (1, 5, 40) if options.quick else (1, 5, 16, 40, 64):
        for name in SHAPES:
            row = report.section(
                f"{name} rows {rows}",
                lambda n=name, r=rows: measure(n, r, copy_rate, options.quick),
            )
            if row.get("best"):
                best = row["best"][0]
                print(
                    f"{name:14} rows {rows:3d}: floor {row['floor_us']:6.1f} us, cuBLAS "
                    f"{row['cublas_us']:6.1f}, best {best['us']:6.1f} {best['tile']}, "
                    f"{row['failed']} failed"
                )


if __name__ == "__main__":
    main()
