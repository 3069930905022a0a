"""What a forward pass is made of, and its plain PyTorch form.

`TorchOps` serves the CPU and is the reference that the GPU's kernels are held against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from realengine.graph.paged import PagedCache
from realengine.graph.state import State, Waiting


@dataclass(frozen=True, slots=True)
class Uniform:
    """New tokens of decode-like stages: `query` tokens for each request.

    The first of them stands at position `lengths[slot] + offset`; everything before it is cached.

    Attributes:
        slots: `[batch]` int64.
    """

    slots: Tensor
    query: int
    offset: int


@dataclass(frozen=True, slots=True)
class Ragged:
    """New tokens of prefill: blocks of consecutive tokens of one request.

    Attributes:
        blocks: `[blocks, 4]` int64: first row, rows, slot, position of the first row. Blocks of one
            request stand in order of position; zero rows are padding.
    """

    blocks: Tensor


@dataclass(frozen=True, slots=True)
class Mixed:
    """New tokens of a mixed pass: those of rounds stand first.

    A round of padding may stand where tokens of prompts do: what those attend to counts.
    """

    rounds: Uniform
    prompts: Ragged

    @property
    def round_rows(self) -> int:
        return len(self.rounds.slots) * self.rounds.query


View: TypeAlias = Uniform | Ragged | Mixed


class Use(StrEnum):
    """What a matrix is for: `Ops.linear`, `Ops.gated` or `Ops.added`."""

    PLAIN = "linear"
    GATED = "gated"
    ADDED = "added"


class Ops(Protocol):
    """The pieces of a Llama layer.

    Attributes:
        block_tokens: longest block that `attend` takes in a `Ragged` view.
    """

    block_tokens: int

    def tune(self, matrices: Sequence[tuple[Tensor, Use]]) -> None:
        """Find out how products with such matrices `[columns, width]` are fastest here."""
        ...

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """`x [rows, width]` by `weight [columns, width]`: `[rows, columns]`."""
        ...

    def added(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """As `linear`, for an update of `norm`: it may come in parts, `[parts, rows, columns]`."""
        ...

    def norm(
        self,
        residual: Tensor,
        update: Tensor | None,
        gain: Tensor,
        epsilon: float,
    ) -> Tensor:
        """Add `update`, as from `added`, to `residual` in place and return its RMS norm times
        `gain`."""
        ...

    def norm_heads(self, qkv: Tensor, gains: Tensor, epsilon: float) -> None:
        """RMS norm of each query and key head of `qkv`, in place.

        Args:
            qkv: as in `attend`.
            gains: `[heads + kv_heads, head_size]`.
        """
        ...

    def gated(self, x: Tensor, gate_up: Tensor, bias: Tensor | None = None) -> Tensor:
        """`x [rows, width]` by `gate_up [2 x wide, width]`: silu(gate) x up, `[rows, wide]`."""
        ...

    def beside(
        self,
        tokens: Tensor,
        embedding: Tensor,
        token_gain: Tensor,
        states: Tensor,
        state_gain: Tensor,
        epsilon: float,
    ) -> Tensor:
        """The embeddings of `tokens [rows]` and `states [rows, hidden]`, each RMS-normed, side by
        side: `[rows, 2 x hidden]`."""
        ...

    def best(self, scores: Tensor, ids: Tensor | None = None) -> Tensor:
        """The column of the highest of each of `scores [rows, columns]`, the first among equals,
        or what `ids [columns]` calls it: `[rows]` int64."""
        ...

    def accept(
        self, best: Tensor, drafts: Tensor, forced: Tensor, state: State, slots: Tensor
    ) -> tuple[Tensor, Tensor]:
        """How many of `drafts [batch, g]` are kept where `best [batch, g + 1]` are the verifier's
        own tokens, and its token behind these. See `Sampler.judge`."""
        ...

    def commit(
        self, state: State, slots: Tensor, tokens: Tensor, accepted: Tensor, final: Tensor
    ) -> Tensor:
        """Advance each request by its accepted drafts and its final token. Padding stays put.

        Args:
            tokens: `[batch, g + 1]`, the newest token before the round and the drafts behind it.

        Returns:
            `[batch, g + 3]`: how many drafts were accepted, how many there were, then the
            committed tokens, of which the first accepted + 1 count.
        """
        ...

    def keep(
        self,
        waiting: Waiting,
        state: State,
        slots: Tensor,
        states: Tensor,
        tokens: Tensor,
        accepted: Tensor,
    ) -> None:
        """Put the `states [batch x (g + 1), width]` of a round and the `tokens [batch, g + 1]`
        behind them where they wait for the drafter; `accepted` + 1 of each are committed. Padding
        stays at its two tokens, which have one state."""
        ...

    def waiting(
        self, waiting: Waiting, state: State, slots: Tensor, numbers: Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        """Begin rounds of `numbers [batch]` drafts (none where negative) that take in what waits,
        `count` rows of each request.

        Returns:
            Blocks as in `Ragged`, whose first rows are fresh, and the row of the last of these.
        """
        ...

    def append(self, qkv: Tensor, heads: int, cache: PagedCache, layer: int, view: Ragged) -> None:
        """The part of `attend` that fills the cache. `heads` may be 0: keys and values alone."""
        ...

    def attend(
        self,
        qkv: Tensor,
        heads: int,
        cache: PagedCache,
        layer: int,
        view: View,
    ) -> Tensor:
        """Rotate, append keys and values to the pages, attend causally.

        Args:
            qkv: `[rows, (heads + 2 kv_heads) x head_size]`, rows in the order of `view`.

        Returns:
            `[rows, heads x head_size]`.
        """
        ...


class TorchOps:
    """Plain PyTorch; any float type; attention by `scaled_dot_product_attention`."""

    block_tokens = 1 << 30

    def tune(self, matrices: Sequence[tuple[Tensor, Use]]) -> None:
        pass

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(x, weight, bias)

    def added(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(x, weight, bias)

    def norm(
        self,
        residual: Tensor,
        update: Tensor | None,
        gain: Tensor,
        epsilon: float,
    ) -> Tensor:
        if update is not None:
            residual += update
        return _rms(residual, gain, epsilon)

    def norm_heads(self, qkv: Tensor, gains: Tensor, epsilon: float) -> None:
        heads = qkv[:, : gains.numel()].view(len(qkv), *gains.shape)
        heads.copy_(_rms(heads, gains, epsilon))

    def gated(self, x: Tensor, gate_up: Tensor, bias: Tensor | None = None) -> Tensor:
        gate, up = F.linear(x, gate_up, bias).chunk(2, dim=-1)
        return F.silu(gate) * up

    def beside(
        self,
        tokens: Tensor,
        embedding: Tensor,
        token_gain: Tensor,
        states: Tensor,
        state_gain: Tensor,
        epsilon: float,
    ) -> Tensor:
        embedded = _rms(F.embedding(tokens, embedding), token_gain, epsilon)
        return torch.cat([embedded, _rms(states, state_gain, epsilon)], 1)

    def best(self, scores: Tensor, ids: Tensor | None = None) -> Tensor:
        found = scores.argmax(-1)
        return found if ids is None else ids[found]

    def accept(
        self, best: Tensor, drafts: Tensor, forced: Tensor, state: State, slots: Tensor
    ) -> tuple[Tensor, Tensor]:
        accepted = leading(best[:, :-1] == drafts, state.drafted[slots], forced)
        return accepted, best.gather(1, accepted[:, None])[:, 0]

    def commit(
        self, state: State, slots: Tensor, tokens: Tensor, accepted: Tensor, final: Tensor
    ) -> Tensor:
        state.lengths[slots] += torch.where(slots == state.padding, 0, accepted + 1)
        before = tokens.gather(1, accepted[:, None])[:, 0]
        state.last[slots] = torch.stack([before, final], 1)
        committed = torch.cat([tokens[:, 1:], final[:, None]], 1)
        committed.scatter_(1, accepted[:, None], final[:, None])
        counts = torch.stack([accepted, state.drafted[slots]], 1)
        return torch.cat([counts, committed], 1)

    def keep(
        self,
        waiting: Waiting,
        state: State,
        slots: Tensor,
        states: Tensor,
        tokens: Tensor,
        accepted: Tensor,
    ) -> None:
        batch, count = tokens.shape
        waiting.states[slots, :count] = states.view(batch, count, -1)
        waiting.tokens[slots, :count] = tokens
        waiting.fresh[slots] = torch.where(slots == state.padding, 1, accepted + 1)

    def waiting(
        self, waiting: Waiting, state: State, slots: Tensor, numbers: Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        state.drafted[slots] = numbers.clamp_min(0)
        rows = torch.arange(0, len(slots) * count, count, device=slots.device)
        fresh = waiting.fresh[slots]
        begin = state.lengths[slots] - 1 - fresh
        blocks = torch.stack([rows, torch.full_like(rows, count), slots, begin], 1)
        return blocks, rows + fresh - 1

    def append(self, qkv: Tensor, heads: int, cache: PagedCache, layer: int, view: Ragged) -> None:
        kv = cache.layers[layer]
        kv_heads, head_size = kv.shape[2], kv.shape[4]
        new = qkv.view(-1, heads + 2 * kv_heads, head_size)[:, heads:]
        for row, rows, slot, position in view.blocks.tolist():
            slots = view.blocks.new_tensor([slot])
            positions = torch.arange(position, position + rows, device=qkv.device)[None]
            key, value = new[None, row : row + rows].split(kv_heads, dim=2)
            _append(_rotate(key, cache, positions), value, cache, kv, slots, positions)

    def attend(
        self,
        qkv: Tensor,
        heads: int,
        cache: PagedCache,
        layer: int,
        view: View,
    ) -> Tensor:
        kv = cache.layers[layer]
        kv_heads, head_size = kv.shape[2], kv.shape[4]
        new = qkv.view(-1, heads + 2 * kv_heads, head_size)
        if isinstance(view, Uniform):
            positions = (cache.lengths[view.slots] + view.offset)[:, None]
            positions = positions + torch.arange(view.query, device=qkv.device)
            batch = new.unflatten(0, (-1, view.query))
            return _attend(batch, heads, cache, kv, view.slots, positions).view(len(qkv), -1)
        out = new.new_zeros(len(qkv), heads * head_size)
        blocks = view.prompts.blocks if isinstance(view, Mixed) else view.blocks
        if isinstance(view, Mixed):
            rounds = view.round_rows
            out[:rounds] = self.attend(qkv[:rounds], heads, cache, layer, view.rounds)
        for row, rows, slot, position in blocks.tolist():
            if rows:
                slots = blocks.new_tensor([slot])
                positions = torch.arange(position, position + rows, device=qkv.device)[None]
                block = new[None, row : row + rows]
                attended = _attend(block, heads, cache, kv, slots, positions)
                out[row : row + rows] = attended.view(rows, -1)
        return out


def leading(kept: Tensor, drafted: Tensor, forced: Tensor) -> Tensor:
    """Length of the leading run of `kept [batch, g]` among the first `drafted`, unless `forced`
    says otherwise."""
    run = kept.long().cumprod(1).sum(1)
    return torch.where(forced >= 0, forced, torch.minimum(run, drafted))


def _rms(x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    return (wide * scale * gain).to(x.dtype)


def _attend(
    new: Tensor, heads: int, cache: PagedCache, kv: Tensor, slots: Tensor, positions: Tensor
) -> Tensor:
    """`new [batch, query, heads + 2 kv_heads, head_size]` at `positions [batch, query]`."""
    kv_heads, page_tokens = kv.shape[2], kv.shape[3]
    query, key, value = new.split((heads, kv_heads, kv_heads), dim=2)
    query, key = (_rotate(x, cache, positions) for x in (query, key))
    _append(key, value, cache, kv, slots, positions)
    table = cache.page_table[slots].long()
    pages = table[:, : int(positions.max()) // page_tokens + 1]
    keys, values = (x[pages].transpose(1, 2).flatten(2, 3) for x in (kv[0], kv[1]))
    visible = torch.arange(keys.shape[2], device=new.device) <= positions[..., None]
    out = F.scaled_dot_product_attention(
        query.transpose(1, 2), keys, values, attn_mask=visible[:, None], enable_gqa=True
    )
    return out.transpose(1, 2).contiguous()


def _append(
    key: Tensor, value: Tensor, cache: PagedCache, kv: Tensor, slots: Tensor, positions: Tensor
) -> None:
    """Write rotated `key` and `value`, `[batch, query, kv_heads, head_size]`, to their pages."""
    page = cache.page_table[slots].long().gather(1, positions // cache.page_tokens)
    kv[0][page, :, positions % cache.page_tokens] = key
    kv[1][page, :, positions % cache.page_tokens] = value


def _rotate(x: Tensor, cache: PagedCache, positions: Tensor) -> Tensor:
    """Rotary embedding of `x [batch, query, heads, head_size]`, halves as Hugging Face has them."""
    cos, sin = (t[positions].unsqueeze(2).to(x.dtype) for t in (cache.cos, cache.sin))
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
