"""An EAGLE-3 head as a drafter: one layer over the verifier's states of three depths.

At position p the head sees the state of token p and token p + 1, and says what token p + 2 may be.
Between rounds the device keeps, for each request, the fused states that the verifier has computed
since the head's last step and the tokens behind them. A draft stage first takes these in: their
keys and values enter the head's cache, and the last of them is the first draft step. Further steps
go on from the head's own output. What was drafted and rejected is overwritten by the next round,
and nobody looks at it before: nothing is copied, and nothing waits for the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pdvsim.core import Drafter as Kind
from pdvsim.core import Stage
from pdvsim.drafters import HeadShape
from realengine.graph.drafting import Drafter, Key, Program, Prompts
from realengine.graph.ops import Ops, Ragged, Uniform, Use
from realengine.graph.paged import PagedCache
from realengine.graph.sampling import Sampler
from realengine.graph.state import State, Waiting


@dataclass(frozen=True, slots=True)
class Head:
    """Weights of a head; matrices are `[out, in]`.

    Attributes:
        embedding: the verifier's, where the head has none.
        fusion: `[hidden, depths x verifier's hidden]`.
        qkv: over a token's embedding and its state, both normed, `[., 2 x hidden]`.
        head: `[tokens that it can propose, hidden]`.
        ids: int64, what the verifier calls these tokens; None where they are all of its, in order.
        folder: the checkpoint it was read from; None for random weights.
    """

    shape: HeadShape
    embedding: Tensor
    fusion: Tensor
    token_norm: Tensor
    state_norm: Tensor
    qkv: Tensor
    output: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor
    norm: Tensor
    head: Tensor
    ids: Tensor | None = None
    folder: Path | None = None


class Eagle3Drafter(Drafter):
    """Drafts with a head. Its cache has the verifier's pages and lengths n.

    Attributes:
        waiting: fused states that the head has not taken in yet.
        output: `[slots + 1, hidden]`, the head's output of the first draft step, for a chain that
            goes on in another run of the program.
    """

    kind = Kind.EAGLE3
    takes_states = True

    def __init__(
        self, head: Head, cache: PagedCache, ops: Ops, state: State, sampler: Sampler
    ) -> None:
        self.head, self.cache, self.ops = head, cache, ops
        self.state, self.sampler = state, sampler
        self.depths = head.shape.depths
        slots, most = len(state.lengths), state.drafts.shape[1] + 1
        hidden = len(head.norm)
        self.waiting = Waiting(
            head.norm.new_zeros(slots, most, hidden),
            state.lengths.new_zeros(slots, most),
            torch.ones_like(state.lengths),
        )
        self.output = head.norm.new_zeros(slots, hidden)

    def programs(self) -> dict[Stage, Program]:
        return {Stage.DRAFT: self.draft}

    def matrices(self) -> list[tuple[Tensor, Use]]:
        head = self.head
        plain, added = (head.fusion, head.qkv, head.head), (head.output, head.down)
        return [
            *((matrix, Use.PLAIN) for matrix in plain),
            *((matrix, Use.ADDED) for matrix in added),
            (head.gate_up, Use.GATED),
        ]

    def shown(self, states: Tensor) -> Tensor:
        return self.ops.linear(states, self.head.fusion)

    def see_prompts(self, prompts: Prompts, states: Tensor, first: Tensor) -> None:
        """Of prompt tokens the cache needs keys and values, and nothing is drafted from them. The
        last of each prompt is taken in by the first draft step, too."""
        slots = prompts.slots
        tokens = F.pad(prompts.following, (0, 1))
        # Padding's "ends" go to a row of their own.
        padding = slots == self.state.padding
        tokens[torch.where(padding, len(tokens) - 1, prompts.rows)] = first
        x = self._look(tokens[:-1], states)
        kv = self.ops.linear(x, self.head.qkv[self.head.shape.layer.query_width :])
        self.ops.append(kv, 0, self.cache, 0, prompts.view)
        self.waiting.states[slots, 0] = states[prompts.rows]
        self.waiting.tokens[slots, 0] = first
        self.waiting.fresh.index_fill_(0, slots, 1)

    def see_round(self, slots: Tensor, states: Tensor, tokens: Tensor, accepted: Tensor) -> None:
        self.ops.keep(self.waiting, self.state, slots, states, tokens, accepted)

    def draft(self, flat: Tensor, key: Key) -> None:
        """Take in up to `states` fresh states of each request, and draft.

        What stands behind the fresh ones is overwritten later. Without states: go on from the
        first draft, which another run of this program has made.
        """
        batch, states, length = key
        slots, numbers = flat.view(2, batch)
        if states:
            qkv, residual = self._take_in(slots, numbers, states)
            if not length:
                return
            tokens = self._step(slots, 0, qkv, residual)
        else:
            self.state.drafted[slots] = numbers.clamp_min(0)  # padding's is -1
            tokens, residual = self.state.drafts[slots, 0], self.output[slots]
        for step in range(1, length):
            x = self._look(tokens, residual)
            residual = self._residual(x, residual)
            tokens = self._step(slots, step, self.ops.linear(x, self.head.qkv), residual)
        if length == 1:
            self.output[slots] = residual

    def _take_in(self, slots: Tensor, numbers: Tensor, states: int) -> tuple[Tensor, Tensor]:
        """Append fresh states to the cache. Returns the last one's projections and residual."""
        waiting = self.waiting
        blocks, last = self.ops.waiting(waiting, self.state, slots, numbers, states)
        fused = waiting.states[slots, :states].flatten(0, 1)
        x = self._look(waiting.tokens[slots, :states].flatten(), fused)
        qkv = self.ops.linear(x, self.head.qkv)
        self.ops.append(qkv, self.head.shape.layer.heads, self.cache, 0, Ragged(blocks))
        return qkv[last], self._residual(x[last], fused[last])

    def _look(self, tokens: Tensor, states: Tensor) -> Tensor:
        """What the layer reads: `[rows, 2 x hidden]`."""
        head = self.head
        epsilon = head.shape.layer.norm_epsilon
        return self.ops.beside(
            tokens, head.embedding, head.token_norm, states, head.state_norm, epsilon
        )

    def _residual(self, x: Tensor, states: Tensor) -> Tensor:
        """What the layer adds to; a tensor that may be overwritten."""
        return x[:, states.shape[1] :].clone() if self.head.shape.norm_before_residual else states

    def _step(self, slots: Tensor, step: int, qkv: Tensor, residual: Tensor) -> Tensor:
        """Draft number `step` from its projections. `residual` becomes the layer's output."""
        head, ops = self.head, self.ops
        layer = head.shape.layer
        epsilon, view = layer.norm_epsilon, Uniform(slots, 1, step - 2)
        x = ops.added(ops.attend(qkv, layer.heads, self.cache, 0, view), head.output)
        x = ops.norm(residual, x, head.mlp_norm, epsilon)
        x = ops.added(ops.gated(x, head.gate_up), head.down)
        x = ops.norm(residual, x, head.norm, epsilon)
        scores = ops.linear(x, head.head)
        tokens = self.sampler.propose(scores, self.state, slots, step, head.ids)
        self.state.drafts[slots, step] = tokens
        return tokens
