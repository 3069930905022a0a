"""The verifier's stages as device programs: functions of one flat input tensor, with no host in
the loop.

A program's *key* says how its input is laid out, and so which CUDA graph serves it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pdvsim.core import Stage
from realengine.graph.drafting import Drafter, Key, Program, Prompts
from realengine.graph.model import Ends, Tap, Weights, forward, logits
from realengine.graph.ops import Ops, Uniform, View
from realengine.graph.paged import PagedCache
from realengine.graph.sampling import Sampler
from realengine.graph.state import State


@dataclass(frozen=True, slots=True)
class Stages:
    """All device programs of one engine: the verifier's, and its drafter's.

    Inputs are int64. Keys and layouts:
        verify: key (batch, drafts); slots, then forced outcomes (or -1).
        decode: key (batch,); slots, then numbers without a meaning.
        prefill: see `Prompts.of`.
        admit: key (requests,); slots, random keys, page tables.
    """

    verifier: Weights
    cache: PagedCache
    drafter: Drafter
    ops: Ops
    state: State
    sampler: Sampler

    def programs(self) -> dict[Stage, Program]:
        own: dict[Stage, Program] = {
            Stage.PREFILL_VERIFIER: self.prefill,
            Stage.DECODE: self.decode,
        }
        drafters = self.drafter.programs()
        return own | drafters | ({Stage.VERIFY: self.verify} if drafters else {})

    def admit(self, flat: Tensor, key: Key) -> None:
        """Enter new requests into the tables."""
        (requests,) = key
        slots, keys, tables = flat.split((requests, requests, len(flat) - 2 * requests))
        self.state.keys[slots] = keys
        self.state.page_table[slots] = tables.view(requests, -1).int()

    def prefill(self, flat: Tensor, key: Key) -> Tensor:
        """Fill the verifier's cache. Returns `[ends, 1]`, the first token of each ended prompt."""
        prompts = Prompts.of(flat, key)
        rows, slots, lengths = prompts.rows, prompts.slots, prompts.lengths
        ends = Ends.of(rows, slots, lengths - 1)
        hidden, states = self._forward(prompts.tokens, prompts.view, ends)
        scores = logits(self.verifier, self.ops, hidden)
        first = self.sampler.first(scores, self.state, slots, lengths)
        self.state.last[slots] = torch.stack([prompts.tokens[rows], first], 1)
        self.state.lengths[slots] = lengths + 1
        self.drafter.see_prompts(prompts, states, first)
        return first[:, None]

    def verify(self, flat: Tensor, key: Key) -> Tensor:
        """Check the drafts and commit. Returns `[batch, g + 2]`: accepted drafts, then the
        committed tokens, of which the first accepted + 1 count."""
        batch, length = key
        slots, forced = flat.view(2, batch)
        state = self.state
        drafts = state.drafts[slots, :length]
        tokens = torch.cat([state.last[slots, 1:], drafts], 1)
        hidden, states = self._forward(tokens.flatten(), Uniform(slots, length + 1, -1))
        scores = logits(self.verifier, self.ops, hidden).view(batch, length + 1, -1)
        accepted, final = self.sampler.judge(scores, drafts, forced, state, slots)
        self._commit(slots, accepted + 1, tokens.gather(1, accepted[:, None])[:, 0], final)
        committed = torch.cat([drafts, final[:, None]], 1)
        committed.scatter_(1, accepted[:, None], final[:, None])
        self.drafter.see_round(slots, states, committed, accepted + 1)
        return torch.cat([accepted[:, None], committed], 1)

    def decode(self, flat: Tensor, key: Key) -> Tensor:
        """One token of the verifier alone, of which the drafter sees nothing. Returns
        `[batch, 1]`."""
        slots = flat[: key[0]]
        tokens = self.state.last[slots, 1]
        hidden = forward(self.verifier, self.ops, self.cache, tokens, Uniform(slots, 1, -1))
        positions = self.state.lengths[slots]
        scores = logits(self.verifier, self.ops, hidden)
        final = self.sampler.first(scores, self.state, slots, positions)
        self._commit(slots, torch.ones_like(final), tokens, final)
        return final[:, None]

    def _forward(
        self, tokens: Tensor, view: View, ends: Ends | None = None
    ) -> tuple[Tensor, Tensor]:
        """Normed states, and those of all tokens that the drafter is shown."""
        tap = Tap.new(self.drafter.depths, len(tokens), self.verifier.embedding)
        if len(self.verifier.layers) in self.drafter.depths and ends is not None:
            hidden = forward(self.verifier, self.ops, self.cache, tokens, view, tap)[ends.rows]
        else:
            hidden = forward(self.verifier, self.ops, self.cache, tokens, view, tap, ends)
        return hidden, tap.states

    def _commit(self, slots: Tensor, tokens: Tensor, before: Tensor, final: Tensor) -> None:
        """Advance by `tokens`, the newest two being `before` and `final`. Padding stays put."""
        self.state.lengths[slots] += torch.where(slots == self.state.padding, 0, tokens)
        self.state.last[slots] = torch.stack([before, final], 1)
