"""The Triton kernels in Triton's interpreter against plain PyTorch, where Triton is installed.

The interpreter must be switched on before Triton is imported, so this file also is a script that
the test runs. It covers float32; on a GPU `benchmarks/engine_stages.py` checks bf16.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.mark.slow
def test_kernels_agree_with_plain_pytorch() -> None:
    pytest.importorskip("triton")
    root = Path(__file__).parents[1]
    environment = os.environ | {
        "TRITON_INTERPRET": "1",
        "PYTHONPATH": str(root),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def compare(multiprocessors: int, queries: list[tuple[int, int]]) -> None:
    """A ragged prefill in two pieces, then `queries`: (new tokens per request, offset); and each
    of these beside a chunk of another prompt."""
    from pdvsim.models import ModelShape
    from realengine.graph.model import Ends, forward
    from realengine.graph.ops import Mixed, Ops, Ragged, TorchOps, Uniform, View
    from realengine.graph.paged import PagedCache, paged_cache
    from realengine.graph.triton_ops import TritonOps
    from realengine.graph.weights import random_weights

    shape = ModelShape("test", 1, 64, 2, 1, 96, 64, 128)
    weights = random_weights(shape, torch.device("cpu"), torch.float32)

    def new_cache() -> PagedCache:
        pages = torch.randperm(18, generator=torch.Generator().manual_seed(1)) + 1
        table = pages.int().view(3, 6)
        lengths = torch.tensor([20, 70, 2])
        return paged_cache(shape, 19, 16, table, lengths, torch.float32)

    def states(
        ops: Ops, views: list[View], rows: list[int], ends: list[Ends | None]
    ) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(2)
        cache = new_cache()
        outputs = []
        for view, count, last in zip(views, rows, ends, strict=True):
            tokens = torch.randint(64, (count,), generator=generator)
            outputs.append(forward(weights, ops, cache, tokens, view, ends=last))
        return [*outputs, *(layer[:, 1:] for layer in cache.layers)]

    first = [[0, 20, 0, 0], [20, 64, 1, 0], [84, 2, 2, 0], [0, 0, 0, 0]]
    views: list[View] = [
        Ragged(torch.tensor(first)),
        Ragged(torch.tensor([[0, 6, 1, 64]])),
        *(Uniform(torch.tensor([2, 1, 0]), query, offset) for query, offset in queries),
    ]
    rows = [86, 6, *(3 * query for query, _ in queries)]
    ends: list[Ends | None] = [None] * len(views)
    for query, offset in queries:
        # The second round may be padding: then tokens of the prompt stand in its rows.
        for first, slot in ((2 * query, 1), (query, 2)):
            rounds = Uniform(torch.tensor([3 - slot, slot]), query, offset)
            chunk = Ragged(torch.tensor([[first, 5, 0, 20], [first + 5, 0, 2, 0]]))
            views += [Mixed(rounds, chunk)] * 2
            rows += [max(2 * query, first + 5)] * 2
            last = Ends.of(*(torch.tensor([each]) for each in (first + 4, 0, 24)), rounds)
            ends += [None, last]
    pairs = zip(
        states(TritonOps(multiprocessors), views, rows, ends),
        states(TorchOps(), views, rows, ends),
        strict=True,
    )
    for ours, plain in pairs:
        torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)


def compare_head(multiprocessors: int, lengths: tuple[int, ...]) -> None:
    """Prompts, rounds and both mixed with an EAGLE-3 head, through the engine's own programs."""
    from pdvsim.core import Request, Stage
    from pdvsim.drafters import head_for
    from pdvsim.models import ModelShape
    from realengine.device import CpuDevice
    from realengine.graph import GraphConfig, GraphEngine
    from realengine.graph.head_weights import random_head
    from realengine.graph.ops import Ops, TorchOps
    from realengine.graph.triton_ops import TritonOps
    from realengine.graph.weights import random_weights
    from tests.graph_driver import run

    shape = ModelShape("test", 3, 64, 2, 1, 96, 64, 128)
    cpu = torch.device("cpu")
    weights = random_weights(shape, cpu, torch.float32)
    head = random_head(head_for(shape, 40), weights, cpu, torch.float32)

    def served(ops: Ops) -> list[torch.Tensor]:
        config = GraphConfig(3, draft_lengths=lengths, max_requests=4, max_context_tokens=64)
        engine = GraphEngine(config, weights, head, CpuDevice(), ops)
        requests = [Request(i, n, 30, outcomes=[3, 0, 2, 1] * 4) for i, n in enumerate((20, 3, 33))]
        run(engine, engine.executor.prefill, requests)
        for length in (3, 3, *lengths, 3):
            run(engine, engine.executor.speculate + engine.executor.check, requests, length)
        late = Request(9, 11, 30, outcomes=[1] * 12)
        for late.chunk_tokens in (7, 4):
            run(engine, engine.executor.speculate, requests)
            run(engine, (Stage.MIXED,), [*requests, late])
        run(engine, engine.executor.speculate, [*requests, late])
        drafter = engine._drafter
        return [engine._state.drafts, drafter.waiting.states, drafter.cache.layers[0][:, 1:]]

    for ours, plain in zip(served(TritonOps(multiprocessors)), served(TorchOps()), strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)


def compare_products() -> None:
    """Products of few rows with every tile, of rows that are parts of wider ones."""
    from realengine.graph import thin
    from realengine.graph.ops import TorchOps, Use

    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(2 * 72, 3 * 256, generator=generator)
    uses = ((Use.PLAIN, TorchOps().linear), (Use.GATED, TorchOps().gated))
    for most, tiles in thin.TILES.items():
        x = torch.randn(most - 3, 2, 3 * 256, generator=generator)[:, -1]
        for tile in tiles:
            for use, plain in uses[: 1 if tile.parts > 1 else 2]:
                ours = thin.product(x, weight, use, tile)
                ours = ours.sum(0) if tile.parts > 1 else ours
                torch.testing.assert_close(ours, plain(x, weight), atol=1e-3, rtol=1e-4)


def check_ways() -> None:
    """Found is what is faster than the usual way by more than a hundredth, and can be used."""
    from realengine.graph import products, thin
    from realengine.graph.ops import Use

    asked: list[products.Way] = []
    parts = [tile for tile in thin.TILES[16] if tile.parts > 1]
    for use, fast_s, best in (
        (Use.PLAIN, 0.5, thin.TILES[16][0]),
        (Use.ADDED, 0.5, parts[0]),
        (Use.ADDED, 0.995, None),
    ):

        def seconds(
            work: Callable[[torch.Tensor], object],
            copies: Sequence[torch.Tensor],
            best: object = best,
            fast_s: float = fast_s,
        ) -> float:
            work(copies[0])
            return fast_s if asked[-1] == (best or products.Library.BIASED) else 1.0

        weight = torch.randn(8, 256)
        found = products.fastest(weight, use, lambda x, w, way: asked.append(way), seconds)
        assert found == ({16: best} if best else {}), found


def compare_norms() -> None:
    """A norm after an update in parts, and after none."""
    from realengine.graph.ops import TorchOps
    from realengine.graph.triton_ops import TritonOps

    start, gain = torch.randn(5, 48), torch.randn(48)
    parts = torch.randn(4, 5, 48)
    for update, whole in ((None, None), (parts[0], parts[0]), (parts, parts.sum(0))):
        ours, plain = start.clone(), start.clone()
        found = TritonOps(1).norm(ours, update, gain, 1e-5)
        torch.testing.assert_close(found, TorchOps().norm(plain, whole, gain, 1e-5))
        torch.testing.assert_close(ours, plain)


def mend_loops() -> None:
    """Before Triton 3.9 its interpreter takes loop bounds as `int(array of one)`, which NumPy has
    refused since 2.4."""
    from triton.runtime import interpreter

    usual = interpreter._patch_lang_tensor

    def patched(tensor: Any, *scope: Any) -> None:
        usual(tensor, *scope)
        tensor.__index__ = lambda self: self.handle.data.item()

    interpreter._patch_lang_tensor = patched


def compare_choices() -> None:
    """The most likely tokens; equal scores are many."""
    from realengine.graph.ops import TorchOps
    from realengine.graph.triton_ops import TritonOps

    scores, ids = torch.randint(9, (5, 70)).float(), torch.randint(1000, (70,))
    for names in (None, ids):
        ours, plain = (ops.best(scores, names) for ops in (TritonOps(1), TorchOps()))
        torch.testing.assert_close(ours, plain)


def compare_rounds(length: int) -> None:
    """The end of rounds, some of them padding's or with a forced outcome."""
    from realengine.graph.ops import Ops, TorchOps
    from realengine.graph.state import new_state
    from realengine.graph.triton_ops import TritonOps

    slots = torch.tensor([2, 6, 0, 3, 6])  # 6 is padding's
    forced = torch.tensor([-1, -1, 0, length, -1])
    tokens, best = torch.randint(2, (2, 5, length + 1))
    drafted, lengths = torch.randint(length + 1, (7,)), torch.randint(50, (7,))

    def ended(ops: Ops) -> tuple[torch.Tensor, ...]:
        state = new_state(6, max(1, length), 1, 0, torch.device("cpu"))
        state.drafted.copy_(drafted)
        state.lengths.copy_(lengths)
        accepted, final = ops.accept(best, tokens[:, 1:], forced, state, slots)
        result = ops.commit(state, slots, tokens, accepted, final)
        return result, state.lengths, state.last[:6]

    torch.testing.assert_close(ended(TritonOps(1)), ended(TorchOps()))


if __name__ == "__main__":
    mend_loops()
    torch.manual_seed(4)
    compare_choices()
    for length in (0, 1, 4):
        compare_rounds(length)
    check_ways()
    compare_norms()
    compare_products()
    compare(1, [(5, -1), (2, -2)])
    compare(16, [(1, 0), (17, -1)])
    compare_head(1, ())
    compare_head(16, (0, 1))
