"""The stages as device programs: functions of one flat input tensor, with no host in the loop.

A program's *key* says how its input is laid out, and so which CUDA graph serves it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from pdvsim.core import Stage
from realengine.graph.model import Weights, forward, logits
from realengine.graph.ops import Ops, Ragged, Uniform
from realengine.graph.paged import PagedCache
from realengine.graph.sampling import Sampler
from realengine.graph.state import State

Key: TypeAlias = tuple[int, ...]
Program: TypeAlias = Callable[[Tensor, Key], Tensor | None]


@dataclass(frozen=True, slots=True)
class Stages:
    """All device programs of one engine.

    Inputs are int64. Keys and layouts:
        rounds (`draft`, `verify`, `decode`): key (batch,); slots, then forced outcomes (or -1).
        prefill: key (tokens, blocks, ends); token ids, then blocks of four (see `Ragged`), then for
            each prompt that ends here: its last row, its slot, its length.
        admit: key (requests,); slots, random keys, page tables.
    """

    verifier: Weights
    verifier_cache: PagedCache
    draft_model: Weights | None
    draft_cache: PagedCache | None
    ops: Ops
    state: State
    sampler: Sampler
    draft_tokens: int

    def programs(self) -> dict[Stage, Program]:
        verifier_side: dict[Stage, Program] = {
            Stage.PREFILL_VERIFIER: self.prefill_verifier,
            Stage.DECODE: self.decode,
        }
        if self.draft_model is None:
            return verifier_side
        return verifier_side | {
            Stage.PREFILL_DRAFT: self.prefill_draft,
            Stage.DRAFT: self.draft,
            Stage.VERIFY: self.verify,
        }

    def admit(self, flat: Tensor, key: Key) -> None:
        """Enter new requests into the tables."""
        (requests,) = key
        slots, keys, tables = flat.split((requests, requests, len(flat) - 2 * requests))
        self.state.keys[slots] = keys
        self.state.page_table[slots] = tables.view(requests, -1).int()

    def prefill_draft(self, flat: Tensor, key: Key) -> None:
        """Fill the draft's cache with prompt tokens."""
        assert self.draft_model is not None and self.draft_cache is not None
        tokens, view, _ = _prefill_inputs(flat, key)
        forward(self.draft_model, self.ops, self.draft_cache, tokens, view)

    def prefill_verifier(self, flat: Tensor, key: Key) -> Tensor:
        """Fill the verifier's cache. Returns `[ends, 1]`, the first token of each ended prompt."""
        tokens, view, (rows, slots, lengths) = _prefill_inputs(flat, key)
        hidden = forward(self.verifier, self.ops, self.verifier_cache, tokens, view)
        scores = logits(self.verifier, hidden[rows])
        first = self.sampler.first(scores, self.state, slots, lengths)
        self.state.last[slots] = torch.stack([tokens[rows], first], 1)
        self.state.lengths[slots] = lengths + 1
        return first[:, None]

    def draft(self, flat: Tensor, key: Key) -> None:
        """The whole draft loop.

        The first step always feeds the last two tokens: after a round that kept every draft, the
        last of them has not been through the draft model. One more row costs next to nothing
        and spares the stage a ragged batch.
        """
        assert self.draft_model is not None and self.draft_cache is not None
        slots = flat[: key[0]]
        tokens, view = self.state.last[slots].flatten(), Uniform(slots, 2, -2)
        drafted = []
        for step in range(self.draft_tokens):
            hidden = forward(self.draft_model, self.ops, self.draft_cache, tokens, view)
            hidden = hidden.view(len(slots), view.query, -1)[:, -1]
            scores = logits(self.draft_model, hidden)
            tokens = self.sampler.propose(scores, self.state, slots, step)
            view = Uniform(slots, 1, step)
            drafted.append(tokens)
        self.state.drafts[slots] = torch.stack(drafted, 1)

    def verify(self, flat: Tensor, key: Key) -> Tensor:
        """Check the drafts and commit. Returns `[batch, g + 2]`: accepted drafts, then the
        committed tokens, of which the first accepted + 1 count."""
        slots, forced = flat.view(2, key[0])
        state, steps = self.state, self.draft_tokens + 1
        drafts = state.drafts[slots]
        tokens = torch.cat([state.last[slots, 1:], drafts], 1)
        view = Uniform(slots, steps, -1)
        hidden = forward(self.verifier, self.ops, self.verifier_cache, tokens.flatten(), view)
        scores = logits(self.verifier, hidden).view(len(slots), steps, -1)
        accepted, final = self.sampler.judge(scores, drafts, forced, state, slots)
        self._commit(slots, accepted + 1, tokens.gather(1, accepted[:, None])[:, 0], final)
        committed = torch.cat([drafts, final[:, None]], 1)
        committed.scatter_(1, accepted[:, None], final[:, None])
        return torch.cat([accepted[:, None], committed], 1)

    def decode(self, flat: Tensor, key: Key) -> Tensor:
        """One token of the verifier alone. Returns `[batch, 1]`."""
        slots = flat[: key[0]]
        tokens = self.state.last[slots, 1]
        view = Uniform(slots, 1, -1)
        hidden = forward(self.verifier, self.ops, self.verifier_cache, tokens, view)
        positions = self.state.lengths[slots]
        scores = logits(self.verifier, hidden)
        final = self.sampler.first(scores, self.state, slots, positions)
        self._commit(slots, torch.ones_like(final), tokens, final)
        return final[:, None]

    def _commit(self, slots: Tensor, tokens: Tensor, before: Tensor, final: Tensor) -> None:
        """Advance by `tokens`, the newest two being `before` and `final`. Padding stays put."""
        padding = self.state.lengths.shape[0] - 1
        self.state.lengths[slots] += torch.where(slots == padding, 0, tokens)
        self.state.last[slots] = torch.stack([before, final], 1)


def _prefill_inputs(flat: Tensor, key: Key) -> tuple[Tensor, Ragged, tuple[Tensor, ...]]:
    tokens, blocks, ends = flat.split((key[0], 4 * key[1], 3 * key[2]))
    return tokens, Ragged(blocks.view(-1, 4)), ends.view(3, -1).unbind()
