"""Choosing tokens, batched on the device: greedy, and speculative sampling without loss.

Random numbers are counter-based: the uniform number for a decision is a hash of (the request's
key, the token's position, which decision). A request's tokens therefore depend on neither its
batch mates nor the order of launches, and a CUDA graph draws fresh numbers at every replay. A
position that is drafted again after a rejection meets the same numbers, which is harmless: whatever
was drafted behind a rejected token had no influence on anything that was kept.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from realengine.graph.ops import Ops, leading
from realengine.graph.state import State

PROPOSE, ACCEPT, FINAL = range(3)  # which decision at a position


class Sampler(Protocol):
    """How tokens are chosen from logits."""

    def propose(
        self, logits: Tensor, state: State, slots: Tensor, step: int, ids: Tensor | None = None
    ) -> Tensor:
        """Draft token number `step` of each request, from the drafter's `logits [batch, D]`.

        Args:
            ids: `[D]` int64, the tokens that the logits are of, if these are not all, in order.
        """
        ...

    def first(self, logits: Tensor, state: State, slots: Tensor, positions: Tensor) -> Tensor:
        """The token at `positions`, from the verifier's `logits [batch, V]`."""
        ...

    def judge(
        self, logits: Tensor, drafts: Tensor, forced: Tensor, state: State, slots: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compare `drafts [batch, g]` with the verifier's `logits [batch, g + 1, V]`. A request's
        drafts beyond its `state.drafted` are none.

        Args:
            forced: `[batch]`, accepted drafts where injected, -1 where they are to be compared.

        Returns:
            Accepted drafts and the verifier's own next token, `[batch]` each.
        """
        ...


class Greedy:
    """The most likely token; a draft is kept where it is the verifier's most likely one."""

    def __init__(self, ops: Ops) -> None:
        self.ops = ops

    def propose(
        self, logits: Tensor, state: State, slots: Tensor, step: int, ids: Tensor | None = None
    ) -> Tensor:
        return self.ops.best(logits, ids)

    def first(self, logits: Tensor, state: State, slots: Tensor, positions: Tensor) -> Tensor:
        return self.ops.best(logits)

    def judge(
        self, logits: Tensor, drafts: Tensor, forced: Tensor, state: State, slots: Tensor
    ) -> tuple[Tensor, Tensor]:
        best = self.ops.best(logits.flatten(0, 1)).view(logits.shape[:2])
        return self.ops.accept(best, drafts, forced, state, slots)


class Tempered:
    """Speculative sampling (Leviathan et al., arXiv 2211.17192, algorithm 1): the output is
    distributed as if the verifier had sampled every token at `temperature`."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def _probabilities(self, logits: Tensor) -> Tensor:
        return (logits.float() / self.temperature).softmax(-1)

    def propose(
        self, logits: Tensor, state: State, slots: Tensor, step: int, ids: Tensor | None = None
    ) -> Tensor:
        probabilities = self._probabilities(logits)
        if ids is not None:
            some, size = probabilities, state.draft_probabilities.shape[-1]
            probabilities = some.new_zeros(len(some), size).index_copy_(1, ids, some)
        state.draft_probabilities[slots, step] = probabilities
        positions = state.lengths[slots] + step
        return draw(probabilities, uniform(state.keys[slots], positions, PROPOSE))

    def first(self, logits: Tensor, state: State, slots: Tensor, positions: Tensor) -> Tensor:
        return draw(self._probabilities(logits), uniform(state.keys[slots], positions, FINAL))

    def judge(
        self, logits: Tensor, drafts: Tensor, forced: Tensor, state: State, slots: Tensor
    ) -> tuple[Tensor, Tensor]:
        target = self._probabilities(logits)
        drafted, count = state.drafted[slots], drafts.shape[1]
        keys, start = state.keys[slots], state.lengths[slots]
        steps = torch.arange(count, device=drafts.device)
        proposal = state.draft_probabilities[slots, :count]
        proposal = proposal * (steps < drafted[:, None])[..., None]
        chance = uniform(keys[:, None], start[:, None] + steps, ACCEPT)
        wanted, offered = (
            p.gather(2, drafts[..., None])[..., 0] for p in (target[:, :-1], proposal)
        )
        accepted = leading(chance * offered < wanted, drafted, forced)

        # After a rejection the token comes from what the proposal left uncovered; after none,
        # from the verifier itself, as if the proposal had covered nothing.
        row = accepted[:, None, None].expand(-1, 1, target.shape[2])
        covered = F.pad(proposal, (0, 0, 0, 1))
        final = target.gather(1, row)[:, 0]
        residual = (final - covered.gather(1, row)[:, 0]).clamp_min(0)
        residual = torch.where(residual.sum(-1, keepdim=True) > 0, residual, final)
        return accepted, draw(residual, uniform(keys, start + accepted, FINAL))


def draw(weights: Tensor, chance: Tensor) -> Tensor:
    """Invert the cumulative distribution of `weights [batch, V]` at `chance [batch]` in [0, 1)."""
    cumulative = weights.cumsum(-1)
    mark = chance[:, None] * cumulative[:, -1:]
    # The first index whose cumulative weight exceeds the mark has a weight above zero.
    found = torch.searchsorted(cumulative, mark, right=True)[:, 0]
    return found.clamp_max(weights.shape[-1] - 1)


_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014) on int64, which wraps as uint64 does."""
    x = (x ^ _shifted(x, 30)) * _MIX_1
    x = (x ^ _shifted(x, 27)) * _MIX_2
    return x ^ _shifted(x, 31)


def uniform(keys: Tensor, positions: Tensor, decision: int) -> Tensor:
    """Uniform numbers in [0, 1) for each (key, position, decision), in steps of 2^-23."""
    counter = positions * 3 + decision + 1
    return _shifted(mix(keys + counter * _GOLDEN), 41).float() * 2.0**-23


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch shifts the sign in."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
