"""Pages: reserved together or not at all, given back once, after the device is done."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy
import pytest

from pdvsim.core import Request
from pdvsim.errors import CapacityError
from pdvsim.kv_cache import KvCache, MemoryDemand
from pdvsim.models import shape
from realengine.graph.admission import Admission
from realengine.graph.paged import DUMMY_PAGE, OutOfPages, PagePool
from realengine.graph.plan import (
    Piece,
    Sizes,
    cuda_sizes,
    mixed_work,
    prefill_work,
    round_work,
)


@dataclass
class Running:
    """Device work that ends when told to."""

    ended: bool = False

    def done(self) -> bool:
        return self.ended

    def wait(self) -> None:
        return

    def span_s(self) -> tuple[float, float]:
        return 0.0, 0.0

    def results(self) -> list[object]:
        return []


def cache(pages: int) -> KvCache:
    return KvCache(pages, 16, token_bytes=8, overrun_tokens=4, longest_tokens=128)


def test_ten_thousand_requests_leak_nothing_and_share_nothing() -> None:
    rng = random.Random(0)
    pool = PagePool(cache(199), 12)
    held = []
    served = 0
    while served < 10_000:
        batch = [rng.randint(1, 400) for _ in range(rng.randint(1, 3))]
        if pool.fits(batch):
            held += pool.take(batch)
            served += len(batch)
            pages = [page for holding in held for page in holding.pages]
            slots = [holding.slot for holding in held]
            assert len(set(pages)) == len(pages) and DUMMY_PAGE not in pages
            assert len(set(slots)) == len(slots) <= 12
            assert len(pages) + pool.free_pages == 199
        else:
            before = pool.free_pages, pool.free_slots
            with pytest.raises(OutOfPages):
                pool.take(batch)
            assert (pool.free_pages, pool.free_slots) == before
            pool.give_back(held.pop(rng.randrange(len(held))))
    for holding in held:
        pool.give_back(holding)
    assert (pool.free_pages, pool.free_slots) == (199, 12)


def test_pages_come_back_only_when_the_device_is_done_with_them() -> None:
    admission = Admission(PagePool(cache(8), 4), 100)
    request, other = Request(0, 60, 60), Request(1, 60, 60)
    admission.admit([request])
    work = Running()
    admission.held([request])[request].latest = work  # type: ignore[assignment]
    admission.release(request)
    assert admission.free_pages == 0 and not admission.fits([other])
    work.ended = True
    assert admission.fits([other]) and admission.free_pages == 8
    admission.release(request)
    assert admission.free_pages == 8


def test_a_batch_is_admitted_whole_or_not_at_all() -> None:
    admission = Admission(PagePool(cache(8), 4), 100)
    batch = [Request(i, 30, 30) for i in range(3)]
    with pytest.raises(OutOfPages):
        admission.admit(batch)
    assert admission.free_pages == 8
    assert [request.id for request, _ in admission.admit(batch[:2])] == [0, 1]
    assert admission.admit(batch[:2]) == []


def test_memory_is_asked_for_in_pages_and_refusals_say_how_much() -> None:
    def demand(**changes: int) -> MemoryDemand:
        values = {"requests": 8, "context_tokens": 1024, "chunk_tokens": 2048, "round_tokens": 5}
        values |= changes
        return MemoryDemand(
            [shape("llama-2-7b"), shape("tinyllama-1.1b")],
            page_tokens=16,
            graph_bytes=0,
            states=0,
            tempered=False,
            element_bytes=2,
            **{"cache_tokens": None, **values},
        )

    assert demand().page_bytes == 16 * (524_288 + 22_528)
    assert demand().pages(80 * 10**9) == 8 * 64 + 1
    workspace = demand().workspace_bytes
    assert demand().pages(workspace + 20 * demand().page_bytes) == 20
    with pytest.raises(CapacityError, match=r"needs 9 pages of 16 tokens, 0\.08 GB"):
        demand().pages(workspace + 8 * demand().page_bytes)
    with pytest.raises(CapacityError, match="needs 65 pages"):
        demand(cache_tokens=1024).pages(workspace + 64 * demand().page_bytes)


def test_rounds_are_padded_to_the_next_captured_size() -> None:
    sizes = cuda_sizes(100, 4)
    assert sizes.batch(5) == 6 and sizes.batch(97) == 100 and sizes.batch(1) == 1
    assert Sizes().batch(5) == 5
    work = round_work([3, 1], [4, -1], 4, padding=9)
    assert work.key == (4,) and work.rows == 2
    assert work.values.tolist() == [3, 1, 9, 9, 4, -1, -1, -1]


def test_every_prompt_token_is_in_one_block_and_ends_once() -> None:
    rng = random.Random(2)
    for sizes in (Sizes(), Sizes((), (64, 256))):
        prompts = [(slot, [slot] * rng.randint(1, 90)) for slot in range(100)]
        pieces = [Piece(slot, prompt, 0, len(prompt)) for slot, prompt in prompts]
        covered = {slot: 0 for slot, _ in prompts}
        ended = []
        for work in prefill_work(pieces, 200, 16, 555, sizes):
            tokens, blocks, ends = work.key
            flat = work.values.tolist()
            assert len(flat) == tokens + 1 + 4 * blocks + 3 * ends
            for i in range(tokens + 1, tokens + 1 + 4 * blocks, 4):
                row, rows, slot, position = flat[i : i + 4]
                assert rows <= 16 and row + rows <= tokens
                if rows:
                    assert flat[row : row + rows] == [slot] * rows
                    assert position == covered[slot]
                    covered[slot] += rows
            rest = flat[tokens + 1 + 4 * blocks :]
            assert set(rest[ends + work.rows : 2 * ends]) <= {555}
            ended += list(zip(rest[ends:], rest[2 * ends :], strict=False))[: work.rows]
        assert ended == [(slot, len(prompt)) for slot, prompt in prompts]
        assert covered == {slot: len(prompt) for slot, prompt in prompts}


@pytest.mark.parametrize("drafts", [0, 1, 4, 8])
def test_a_mixed_pass_is_padded_to_a_captured_one_that_holds_it(drafts: int) -> None:
    sizes = cuda_sizes(256, drafts)
    for batch in (1, 5, 17, 31, 100, 190):
        for tokens in (1, 60, 256, 400, 1000):
            rows = tokens + batch * (drafts + 1)
            padded, wide = sizes.mixed_shape(rows, 1, batch, drafts)
            assert padded >= rows and wide >= batch
            assert ((padded, wide, drafts) in sizes.mixed) is (rows <= 2048)
            assert wide * (drafts + 1) <= padded or padded == rows
    assert sizes.mixed_shape(100, 17, 4, drafts) == (100, 4)  # more prompts end than a graph has
    assert sizes.mixed_shape(100, 1, 4, drafts + 1) == (100, 4)  # another length


def test_of_a_mixed_pass_rows_of_rounds_and_of_ended_prompts_count() -> None:
    sizes = Sizes(mixed=((16, 4, 2),))
    pieces = [Piece(5, [1, 2, 3], 0, 3), Piece(6, [4, 5, 6, 7], 0, 2)]
    work = mixed_work(pieces, [7, 8], [1, -1], 2, 16, 9, sizes)
    assert work.key == (16, 18, 16, 4, 2)
    assert work.values[:12].tolist() == [0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6]
    assert work.values[17:25].tolist() == [6, 3, 5, 0, 9, 2, 6, 0]  # blocks of the prompts
    assert work.values[-8:].tolist() == [7, 8, 9, 9, 1, -1, -1, -1]
    result = numpy.arange(20)[:, None]
    assert work.counted(result)[:, 0].tolist() == [0, 1, 4]
    exact = mixed_work(pieces, [7, 8], [1, -1], 2, 16, 9, Sizes())
    assert exact.key == (11, 2, 1, 2, 2) and exact.counted(result)[:, 0].tolist() == [0, 1, 2]
