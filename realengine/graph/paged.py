"""Paged KV cache: who holds which page, and the tensors the pages live in.

`pdvsim.kv_cache` says what a page is and who is admitted. Rolling back rejected drafts is a smaller
length, nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pdvsim.errors import CapacityError
from pdvsim.kv_cache import KvCache
from pdvsim.models import ModelShape
from realengine.graph import rope

DUMMY_PAGE = 0  # padding rows read and write here; no request ever holds it


class OutOfPages(CapacityError):
    """Not enough free pages or slots now; the request can wait for others to complete."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What an admitted request holds: a row of the device's tables, and pages."""

    slot: int
    pages: tuple[int, ...]


class PagePool:
    """Free pages and slots. Not thread-safe: its owner locks.

    Args:
        slots: requests that can be held at once.
    """

    def __init__(self, cache: KvCache, slots: int) -> None:
        self.cache = cache
        self.slots = slots
        self._free_pages = list(range(cache.pages, DUMMY_PAGE, -1))
        self._free_slots = list(range(slots - 1, -1, -1))

    @property
    def free_pages(self) -> int:
        return len(self._free_pages)

    @property
    def free_slots(self) -> int:
        return len(self._free_slots)

    def fits(self, token_counts: Sequence[int]) -> bool:
        """Whether requests of these many tokens could be held together now."""
        pages = self.cache.fits(token_counts, self.free_pages)
        return pages and len(token_counts) <= self.free_slots

    def take(self, token_counts: Sequence[int]) -> list[Holding]:
        """Reserve for all of them or for none.

        Raises:
            OutOfPages: they do not fit.
        """
        if not self.fits(token_counts):
            needed = sum(map(self.cache.pages_for, token_counts))
            raise OutOfPages(
                f"{len(token_counts)} requests need {needed} pages; "
                f"{self.free_pages} pages and {self.free_slots} slots are free"
            )
        return [
            Holding(
                self._free_slots.pop(),
                tuple(self._free_pages.pop() for _ in range(self.cache.pages_for(tokens))),
            )
            for tokens in token_counts
        ]

    def give_back(self, holding: Holding) -> None:
        self._free_slots.append(holding.slot)
        self._free_pages.extend(holding.pages)


@dataclass(frozen=True, slots=True)
class PagedCache:
    """One model's pages and what attention needs to find its way in them.

    Attributes:
        layers: per layer `[2 (key, value), pages, kv_heads, page_tokens, head_size]`; a page of one
            head is contiguous, which is what a decode step reads. Keys are stored rotated.
        page_table: `[slots + 1, pages per request]` int32; the last row is padding's.
        lengths: `[slots + 1]` int64, committed tokens; the newest of them is not cached yet.
        cos, sin: `[positions, head_size / 2]` float32, rotary embedding.
    """

    layers: tuple[Tensor, ...]
    page_table: Tensor
    lengths: Tensor
    cos: Tensor
    sin: Tensor

    @property
    def page_tokens(self) -> int:
        return int(self.layers[0].shape[3])


def paged_cache(
    shape: ModelShape,
    pages: int,
    page_tokens: int,
    page_table: Tensor,
    lengths: Tensor,
    dtype: torch.dtype,
) -> PagedCache:
    """Allocate the pages of one model on the device of `page_table`.

    They are zeroed: a masked-out position is multiplied by zero, which does not hide a NaN.
    """
    device = page_table.device
    size = (2, pages, shape.kv_heads, page_tokens, shape.head_size)
    layers = tuple(torch.zeros(size, dtype=dtype, device=device) for _ in range(shape.layers))
    cos, sin = rope.tables(shape, page_table.shape[1] * page_tokens, device)
    return PagedCache(layers, page_table, lengths, cos, sin)
