"""`Ops` on our own Triton kernels: what the `graph` executor runs on a GPU.

Library attention was measured first: planning FlashInfer's paged wrappers costs 0.14 to 1.3 ms of
host time a round, and its prefill kernel takes 5.05 ms for TinyLlama's verify at batch 128, q = 5
(H100, context 320), against a floor of 0.31 ms, since it tiles queries and not queries times the
heads of a group. The kernels here plan nothing and pack both into one tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from realengine.graph import kernels, round_kernels
from realengine.graph.ops import Mixed, Ragged, Uniform, Use, View
from realengine.graph.paged import PagedCache
from realengine.graph.products import Products
from realengine.graph.state import State, Waiting

MOST_SPLITS = 16
LOG2E = 1.4426950408889634  # the kernels' softmax is in base 2


@dataclass(frozen=True, slots=True)
class DecodeTile:
    """Cached tokens that a decode kernel reads at once, its warps, and blocks in flight.

    Page numbers come one block ahead, keys and values two.
    """

    tokens: int
    warps: int
    stages: int


# By rows (new tokens times the query heads of a kv head), measured on an H100
# (`results/heads/h100_head_tiles.json`): a warp for 16 rows waits for no other.
DECODE_TILES = {16: DecodeTile(16, 1, 5), 32: DecodeTile(32, 2, 5), 64: DecodeTile(32, 4, 5)}


def tiles_of(one: DecodeTile | None) -> dict[int, DecodeTile]:
    """`one` for all rows, or `DECODE_TILES`."""
    return dict.fromkeys(DECODE_TILES, one) if one else DECODE_TILES


class TritonOps:
    """Fused kernels for NVIDIA GPUs (or Triton's interpreter, in tests).

    Args:
        multiprocessors: of the device; a decode kernel is split to give each two programs.
        decode: how decode kernels read their pages; `DECODE_TILES` if not given.
        early: launch a kernel while the one before it still runs (Hopper and later).
    """

    block_tokens = 64

    def __init__(
        self,
        multiprocessors: int,
        decode: DecodeTile | None = None,
        early: bool = False,
    ) -> None:
        self._programs = 2 * multiprocessors
        self.decode_tiles = tiles_of(decode)
        self.products = Products(early)

    @property
    def _early(self) -> dict[str, bool]:
        return {"EARLY": self.products.early, "launch_pdl": self.products.early}

    def norm(
        self,
        residual: Tensor,
        update: Tensor | None,
        gain: Tensor,
        epsilon: float,
    ) -> Tensor:
        rows, width = residual.shape
        out = torch.empty_like(residual)
        block = triton.next_power_of_2(width)
        kernels.norm_kernel[(rows,)](
            residual,
            residual if update is None else update,
            gain,
            out,
            width,
            epsilon,
            rows,
            PARTS=0 if update is None else update.numel() // residual.numel(),
            BLOCK=block,
            num_warps=min(16, max(8, block // 512)),
            **self._early,
        )
        return out

    def norm_heads(self, qkv: Tensor, gains: Tensor, epsilon: float) -> None:
        heads, size = gains.shape
        block = triton.next_power_of_2(heads)
        kernels.norm_heads_kernel[(len(qkv),)](
            qkv, gains, qkv.stride(0), epsilon, HEADS=heads, SIZE=size, BLOCK=block, num_warps=8
        )

    def tune(self, matrices: Sequence[tuple[Tensor, Use]]) -> None:
        def added(update: Tensor) -> None:
            residual = update.new_empty(update.shape[-2:], dtype=torch.bfloat16)
            self.norm(residual, update, residual[0], 1e-5)

        self.products.tune(matrices, added)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.products(x, weight, bias, Use.PLAIN)

    def added(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.products(x, weight, bias, Use.ADDED)

    def gated(self, x: Tensor, gate_up: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.products(x, gate_up, bias, Use.GATED)

    def beside(
        self,
        tokens: Tensor,
        embedding: Tensor,
        token_gain: Tensor,
        states: Tensor,
        state_gain: Tensor,
        epsilon: float,
    ) -> Tensor:
        rows, width = states.shape
        out = states.new_empty(rows, 2 * width)
        block = triton.next_power_of_2(width)
        kernels.beside_kernel[(rows, 2)](
            tokens,
            embedding,
            token_gain,
            states,
            state_gain,
            out,
            width,
            states.stride(0),
            epsilon,
            BLOCK=block,
            num_warps=min(16, max(8, block // 512)),
            **self._early,
        )
        return out

    def best(self, scores: Tensor, ids: Tensor | None = None) -> Tensor:
        rows, columns = scores.shape
        out = scores.new_empty(rows, dtype=torch.int64)
        block = min(1 << 15, triton.next_power_of_2(columns))
        round_kernels.best_kernel[(rows,)](
            scores,
            ids,
            out,
            columns,
            scores.stride(0),
            IDS=ids is not None,
            BLOCK=block,
            num_warps=min(16, max(4, block // 1024)),
            **self._early,
        )
        return out

    def accept(
        self, best: Tensor, drafts: Tensor, forced: Tensor, state: State, slots: Tensor
    ) -> tuple[Tensor, Tensor]:
        batch, length = drafts.shape
        accepted, final = best.new_empty(2, batch).unbind()
        round_kernels.accept_kernel[(batch,)](
            best,
            drafts,
            drafts.stride(0),
            forced,
            state.drafted,
            slots,
            accepted,
            final,
            LENGTH=length,
            BLOCK=triton.next_power_of_2(length + 1),
            num_warps=1,
            **self._early,
        )
        return accepted, final

    def commit(
        self, state: State, slots: Tensor, tokens: Tensor, accepted: Tensor, final: Tensor
    ) -> Tensor:
        batch, length = tokens.shape[0], tokens.shape[1] - 1
        result = tokens.new_empty(batch, length + 3)
        round_kernels.commit_kernel[(batch,)](
            tokens,
            accepted,
            final,
            slots,
            state.drafted,
            state.lengths,
            state.last,
            result,
            state.padding,
            LENGTH=length,
            BLOCK=triton.next_power_of_2(length + 1),
            num_warps=1,
            **self._early,
        )
        return result

    def keep(
        self,
        waiting: Waiting,
        state: State,
        slots: Tensor,
        states: Tensor,
        tokens: Tensor,
        accepted: Tensor,
    ) -> None:
        rows, width = states.shape
        block = triton.next_power_of_2(width)
        round_kernels.keep_kernel[(rows,)](
            slots,
            states,
            tokens,
            tokens.stride(0),
            accepted,
            waiting.states,
            waiting.tokens,
            waiting.fresh,
            state.padding,
            width,
            waiting.tokens.shape[1],
            COUNT=tokens.shape[1],
            BLOCK=block,
            num_warps=max(1, min(8, block // 512)),
            **self._early,
        )

    def waiting(
        self, waiting: Waiting, state: State, slots: Tensor, numbers: Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        batch = len(slots)
        blocks, last = slots.new_empty(batch, 4), slots.new_empty(batch)
        round_kernels.waiting_kernel[(batch,)](
            slots,
            numbers,
            state.drafted,
            state.lengths,
            waiting.fresh,
            blocks,
            last,
            count,
            num_warps=1,
            **self._early,
        )
        return blocks, last

    def append(self, qkv: Tensor, heads: int, cache: PagedCache, layer: int, view: Ragged) -> None:
        kv = cache.layers[layer]
        _, _, kv_heads, page_tokens, head_size = kv.shape
        kernels.append_kernel[(len(view.blocks), kv_heads)](
            qkv,
            kv,
            view.blocks,
            cache.page_table,
            cache.cos,
            cache.sin,
            cache.page_table.shape[1],
            kv.stride(0),
            HEADS=heads,
            KV_HEADS=kv_heads,
            HALF=head_size // 2,
            PAGE=page_tokens,
            BLOCK_M=self.block_tokens,
        )

    def attend(
        self,
        qkv: Tensor,
        heads: int,
        cache: PagedCache,
        layer: int,
        view: View,
    ) -> Tensor:
        out = qkv.new_empty(len(qkv), heads * cache.layers[layer].shape[4])
        if isinstance(view, Mixed):
            self._attend(qkv[: view.round_rows], out, heads, cache, layer, view.rounds)
            self._attend(qkv, out, heads, cache, layer, view.prompts)
        else:
            self._attend(qkv, out, heads, cache, layer, view)
        return out

    def _attend(
        self,
        qkv: Tensor,
        out: Tensor,
        heads: int,
        cache: PagedCache,
        layer: int,
        view: Uniform | Ragged,
    ) -> None:
        if isinstance(view, Uniform):
            self._decode(qkv, out, heads, cache, cache.layers[layer], view)
        else:
            self.append(qkv, heads, cache, layer, view)
            self._prefill(qkv, out, heads, cache, cache.layers[layer], view)

    def _decode(
        self,
        qkv: Tensor,
        out: Tensor,
        heads: int,
        cache: PagedCache,
        kv: Tensor,
        view: Uniform,
    ) -> None:
        _, _, kv_heads, page_tokens, head_size = kv.shape
        rows = view.query * (heads // kv_heads)
        block_m = min(64, max(16, triton.next_power_of_2(rows)))
        tile = self.decode_tiles[block_m]
        head_tiles = kv_heads * triton.cdiv(rows, block_m)
        splits = self._splits(len(view.slots) * head_tiles)
        places = len(qkv) * heads if splits > 1 else 1
        parts = splits + 1 if splits > 1 else 1
        partial = torch.empty(places, parts, head_size, device=qkv.device)
        partial_log = torch.empty(places, parts, device=qkv.device)
        kernels.decode_kernel[(len(view.slots), head_tiles, parts)](
            qkv,
            kv,
            out,
            partial,
            partial_log,
            view.slots,
            cache.lengths,
            cache.page_table,
            cache.cos,
            cache.sin,
            view.offset,
            splits,
            LOG2E / math.sqrt(head_size),
            cache.page_table.shape[1],
            kv.stride(0),
            QUERY=view.query,
            HEADS=heads,
            KV_HEADS=kv_heads,
            HALF=head_size // 2,
            PAGE=page_tokens,
            SPLIT=splits > 1,
            BLOCK_M=block_m,
            BLOCK_Q=max(16, triton.next_power_of_2(view.query)),
            BLOCK_N=tile.tokens,
            PRECISION=_precision(qkv),
            num_warps=tile.warps,
            num_stages=tile.stages,
            **self._early,
        )
        if splits > 1:
            kernels.combine_kernel[(places,)](
                partial,
                partial_log,
                out,
                parts,
                SIZE=head_size,
                MOST=2 * MOST_SPLITS,
                num_warps=4,
                **self._early,
            )

    def _splits(self, programs: int) -> int:
        """Splits of the cached tokens that fill the device: a power of two."""
        wanted = max(1, min(MOST_SPLITS, self._programs // programs))
        return 1 << (wanted.bit_length() - 1)

    def _prefill(
        self, qkv: Tensor, out: Tensor, heads: int, cache: PagedCache, kv: Tensor, view: Ragged
    ) -> None:
        _, _, kv_heads, page_tokens, head_size = kv.shape
        table_width = cache.page_table.shape[1]
        geometry = {
            "HEADS": heads,
            "KV_HEADS": kv_heads,
            "HALF": head_size // 2,
            "PAGE": page_tokens,
            "BLOCK_M": self.block_tokens,
        }
        shared = view.blocks, cache.page_table, cache.cos, cache.sin
        kernels.prefill_kernel[(len(view.blocks), heads)](
            qkv,
            kv,
            out,
            *shared,
            LOG2E / math.sqrt(head_size),
            table_width,
            kv.stride(0),
            BLOCK_N=64,
            PRECISION=_precision(qkv),
            **geometry,
            num_warps=4,
            num_stages=2,
        )


def _precision(x: Tensor) -> str:
    """How products of float32 are taken; 16-bit types have but one way."""
    return "ieee" if x.dtype == torch.float32 else "tf32"
