"""The two rates that no stage can beat: copying device memory, and multiplying matrices."""

from __future__ import annotations

from collections.abc import Callable

import torch

COPY_BYTES = 2 << 30
MATMUL_SIZE = 8192
REPEATS = 20


def measure_ceilings(device: torch.device) -> dict[str, float]:
    """Median copy rate (bytes read plus written) and bf16 matrix-product rate on random data."""
    with torch.cuda.device(device):
        return {"copy_bytes_per_s": _copy_rate(), "matmul_flops_per_s": _matmul_rate()}


def _copy_rate() -> float:
    source = torch.randn(COPY_BYTES // 4, device="cuda")
    target = torch.empty_like(source)
    return 2 * COPY_BYTES / _median_seconds(lambda: target.copy_(source))


def _matmul_rate() -> float:
    shape = (MATMUL_SIZE, MATMUL_SIZE)
    a, b = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * MATMUL_SIZE**3 / _median_seconds(lambda: torch.matmul(a, b, out=out))


def _median_seconds(work: Callable[[], object]) -> float:
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2 * REPEATS)]
    for _ in range(3):
        work()
    for start, end in zip(events[::2], events[1::2], strict=True):
        start.record()
        work()
        end.record()
    torch.cuda.synchronize()
    times = sorted(s.elapsed_time(e) for s, e in zip(events[::2], events[1::2], strict=True))
    return float(times[len(times) // 2]) * 1e-3
