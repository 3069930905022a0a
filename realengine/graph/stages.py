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
from realengine.graph.ops import Mixed, Ops, Uniform, View
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
        mixed: key (rows, blocks, prompts that end, batch, drafts); prompts, behind the rows of
            rounds, then as verify.
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
            Stage.MIXED: self.mixed,
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
        ends = Ends.of(prompts.rows, prompts.slots, prompts.lengths - 1)
        hidden, states = self._forward(prompts.tokens, prompts.view, ends)
        return self._begin(prompts, logits(self.verifier, self.ops, hidden), states)

    def verify(self, flat: Tensor, key: Key) -> Tensor:
        """Check the drafts and commit. Returns `[batch, g + 3]`: how many were accepted, how many
        there were, then the committed tokens, of which the first accepted + 1 count."""
        batch, length = key
        slots, forced = flat.view(2, batch)
        tokens = self._newest(slots, length)
        hidden, states = self._forward(tokens.flatten(), Uniform(slots, length + 1, -1))
        return self._check(slots, forced, tokens, logits(self.verifier, self.ops, hidden), states)

    def mixed(self, flat: Tensor, key: Key) -> Tensor:
        """A verify and a prefill in one pass. Returns what verify does, then first tokens of
        prompts that end, `[., g + 3]`. Rounds of padding read rows of prompts."""
        prompt_key, (batch, length) = key[:-2], key[-2:]
        prompts = Prompts.of(flat[: -2 * batch], prompt_key)
        slots, forced = flat[-2 * batch :].view(2, batch)
        tokens, rounds = self._newest(slots, length), Uniform(slots, length + 1, -1)
        count = tokens.numel()
        own = (slots != self.state.padding)[:, None].expand_as(tokens).flatten()
        inputs = prompts.tokens.clone()
        inputs[:count] = torch.where(own, tokens.flatten(), inputs[:count])
        hidden, states = self._forward(
            inputs,
            Mixed(rounds, prompts.view),
            Ends.of(prompts.rows, prompts.slots, prompts.lengths - 1, rounds),
        )
        # One product with the head: its weights are read once.
        scores = logits(self.verifier, self.ops, hidden)
        checked = self._check(slots, forced, tokens, scores[:count], states[:count])
        first = self._begin(prompts, scores[count:], states)
        return torch.cat([checked, first.expand(-1, length + 3)])

    def decode(self, flat: Tensor, key: Key) -> Tensor:
        """One token of the verifier alone, of which the drafter sees nothing. Returns
        `[batch, 1]`."""
        slots = flat[: key[0]]
        tokens = self.state.last[slots, 1]
        hidden = forward(self.verifier, self.ops, self.cache, tokens, Uniform(slots, 1, -1))
        positions = self.state.lengths[slots]
        scores = logits(self.verifier, self.ops, hidden)
        final = self.sampler.first(scores, self.state, slots, positions)
        self.ops.commit(self.state, slots, tokens[:, None], torch.zeros_like(final), final)
        return final[:, None]

    def _newest(self, slots: Tensor, length: int) -> Tensor:
        """What a round checks: `[batch, g + 1]`, each newest token and the drafts behind it."""
        return torch.cat([self.state.last[slots, 1:], self.state.drafts[slots, :length]], 1)

    def _check(
        self, slots: Tensor, forced: Tensor, tokens: Tensor, scores: Tensor, states: Tensor
    ) -> Tensor:
        """The end of a round, from logits `[batch x (g + 1), V]`; see `verify`."""
        drafts = tokens[:, 1:]
        scores = scores.view(*tokens.shape, scores.shape[1])
        accepted, final = self.sampler.judge(scores, drafts, forced, self.state, slots)
        result = self.ops.commit(self.state, slots, tokens, accepted, final)
        self.drafter.see_round(slots, states, result[:, 2:], accepted)
        return result

    def _begin(self, prompts: Prompts, scores: Tensor, states: Tensor) -> Tensor:
        """The end of a prefill, from logits `[ends, V]`; see `prefill`."""
        slots, lengths = prompts.slots, prompts.lengths
        first = self.sampler.first(scores, self.state, slots, lengths)
        self.state.last[slots] = torch.stack([prompts.tokens[prompts.rows], first], 1)
        self.state.lengths[slots] = lengths + 1
        self.drafter.see_prompts(prompts, states, first)
        return first[:, None]

    def _forward(
        self, tokens: Tensor, view: View, ends: Ends | None = None
    ) -> tuple[Tensor, Tensor]:
        """Normed states, and what the drafter is shown of all tokens."""
        tap = Tap.new(self.drafter.depths, len(tokens), self.verifier.embedding)
        if len(self.verifier.layers) in self.drafter.depths and ends is not None:
            hidden = forward(self.verifier, self.ops, self.cache, tokens, view, tap)[ends.rows]
        else:
            hidden = forward(self.verifier, self.ops, self.cache, tokens, view, tap, ends)
        return hidden, self.drafter.shown(tap.states)
