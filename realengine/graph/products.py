"""Which of several ways to multiply with a matrix is fastest on this device, by rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TypeAlias

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from realengine.graph import thin
from realengine.graph.kernels import gated_kernel
from realengine.graph.ops import Use

BUCKETS = (*thin.TILES, 128, 160, 320, 640)  # most rows; beyond these all ways are equal
_COLD_BYTES = 200 << 20  # read between two uses of one matrix: more than any L2 cache


class Library(StrEnum):
    """Ways to ask cuBLAS for a product. With a bias, of zeros, other kernels come into question."""

    USUAL = "usual"
    BIASED = "biased"


Way: TypeAlias = thin.Tile | Library
Run: TypeAlias = Callable[[Tensor, Tensor, Way], object]


def bucket(rows: int) -> int | None:
    """The most rows for which the same way is fastest, if ways differ there."""
    return next((most for most in BUCKETS if most >= rows), None)


class Products:
    """Products with the matrices of an engine, each by the way that was found for it.

    Attributes:
        ways: of a matrix `[columns, width]` for a use, by bucket of rows; the usual way if none.
    """

    def __init__(self, early: bool) -> None:
        self.early = early
        self.ways: dict[tuple[int, int, Use], dict[int, Way]] = {}
        self._zeros: dict[int, Tensor] = {}

    def tune(
        self, matrices: Sequence[tuple[Tensor, Use]], added: Callable[[Tensor], object]
    ) -> None:
        """Find the ways.

        Args:
            added: what an update goes through; one that comes in parts gives it more to do.
        """
        for weight, use in matrices:
            key = weight.shape[0], weight.shape[1], use
            if key in self.ways or weight.dtype.itemsize != 2:
                continue
            self._zeros[len(weight)] = weight.new_zeros(len(weight))

            def run(x: Tensor, weight: Tensor, way: Way, use: Use = use) -> None:
                product = self._by(way, x, weight, use)
                if use is Use.ADDED:
                    added(product)

            self.ways[key] = fastest(weight, use, run)

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None, use: Use) -> Tensor:
        most = bucket(len(x))
        if bias is not None or most is None or not len(x):
            return self._by(Library.USUAL, x, weight, use, bias)
        found = self.ways.get((weight.shape[0], weight.shape[1], use), {})
        return self._by(found.get(most, Library.USUAL), x, weight, use)

    def _by(
        self, way: Way, x: Tensor, weight: Tensor, use: Use, bias: Tensor | None = None
    ) -> Tensor:
        if isinstance(way, thin.Tile):
            return thin.product(x, weight, use, way, self.early)
        if way is Library.BIASED:
            bias = self._zeros[len(weight)]
        product = F.linear(x, weight, bias)
        return self._gate(product) if use is Use.GATED else product

    def _gate(self, product: Tensor) -> Tensor:
        rows, width = product.shape[0], product.shape[1] // 2
        out = product.new_empty(rows, width)
        block = 1024
        gated_kernel[(rows, triton.cdiv(width, block))](
            product, out, width, BLOCK=block, EARLY=self.early, launch_pdl=self.early
        )
        return out


def cold_s(work: Callable[[Tensor], object], items: Sequence[Tensor]) -> float:
    return float(thin.cold_s(work, items, items[0].device))


def fastest(
    weight: Tensor,
    use: Use,
    run: Run,
    seconds: Callable[[Callable[[Tensor], object], Sequence[Tensor]], float] = cold_s,
) -> dict[int, Way]:
    """For each of `BUCKETS` the way that is fastest by `run(x, weight, way)`, where one beats the
    usual by more than a hundredth.

    Args:
        seconds: of a call with each of several copies of the matrix, so that none is found in the
            L2 cache.
    """
    one = weight.numel() * weight.element_size()
    copies = [weight] + [weight.clone() for _ in range(-(-_COLD_BYTES // one))]
    found = {}
    for most in BUCKETS:
        rows = most * 5 // 8 if most in thin.TILES else most
        x = torch.randn(rows, weight.shape[1], device=weight.device, dtype=weight.dtype)
        tiles = [
            tile
            for tile in thin.TILES.get(most, ())
            if weight.shape[1] % tile.width == 0 and (tile.parts == 1 or use is Use.ADDED)
        ]
        took_s: dict[Way, float] = {}
        for way in (*Library, *tiles):
            took_s[way] = seconds(lambda w, x=x, way=way: run(x, w, way), copies)  # type: ignore[misc]
        best = min(took_s, key=took_s.__getitem__)
        if took_s[best] < 0.99 * took_s[Library.USUAL]:
            found[most] = best
    return found
