"""What proposes tokens: the interface that the stages and the engine know, and its simplest kinds.

A drafter has device programs of its own, and is shown what the verifier's programs know: prompts
when they have been prefilled, and rounds when they have been checked. What it keeps of that stays
on the device. A round of length 0 drafts nothing but still brings the drafter's cache up to date.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from pdvsim.core import Drafter as Kind
from pdvsim.core import Stage
from realengine.graph.model import Ends, Weights, forward, logits, matrices
from realengine.graph.ops import Ops, Ragged, Uniform, Use
from realengine.graph.paged import PagedCache
from realengine.graph.sampling import Sampler
from realengine.graph.state import State

Key: TypeAlias = tuple[int, ...]
Program: TypeAlias = Callable[[Tensor, Key], Tensor | None]


@dataclass(frozen=True, slots=True)
class Prompts:
    """The input of a prefill: prompts, or chunks of prompts.

    Attributes:
        tokens: `[tokens]`.
        following: `[tokens]`, the token behind each; wrong where a prompt ends, whose next token is
            not known yet.
        view: where they stand.
        rows, slots, lengths: of each prompt that ends here: its last row, its slot, its length.
    """

    tokens: Tensor
    following: Tensor
    view: Ragged
    rows: Tensor
    slots: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, flat: Tensor, key: Key) -> Prompts:
        """`flat`: token ids and the one behind the last, blocks of four (see `Ragged`), then rows,
        slots and lengths. `key`: (tokens, blocks, prompts that end)."""
        tokens, blocks, ends = flat.split((key[0] + 1, 4 * key[1], 3 * key[2]))
        return cls(tokens[:-1], tokens[1:], Ragged(blocks.view(-1, 4)), *ends.view(3, -1).unbind())


class Drafter:
    """Proposes tokens. This one proposes none: for an engine that only decodes.

    Attributes:
        depths: of the verifier's states that it is shown: those behind so many layers.
        takes_states: whether a draft stage must be told how many of them it has to take in.
    """

    kind = Kind.NONE
    depths: tuple[int, ...] = ()
    takes_states = False

    def programs(self) -> dict[Stage, Program]:
        """Its stages. A draft stage's key is (batch, drafts), or if it takes states (batch, states,
        drafts); its input slots, then each request's own number of drafts."""
        return {}

    def matrices(self) -> list[tuple[Tensor, Use]]:
        """As `realengine.graph.model.matrices`, of its own weights."""
        return []

    def shown(self, states: Tensor) -> Tensor:
        """What it keeps of the verifier's states `[rows, depths x hidden]`."""
        return states

    def see_prompts(self, prompts: Prompts, states: Tensor, first: Tensor) -> None:
        """Prompts have been prefilled, and those that end here continue with `first`.

        Args:
            states: of all tokens, as `shown` has them.
        """

    def see_round(self, slots: Tensor, states: Tensor, tokens: Tensor, accepted: Tensor) -> None:
        """A round has been checked.

        Args:
            states: `[batch x (g + 1), .]` as `shown` has them, of the newest token before the
                round and of its g drafts.
            tokens: `[batch, g + 1]`, the token behind each of them.
            accepted: `[batch]`, one less than how many of these are committed.
        """


class ModelDrafter(Drafter):
    """A smaller model with a cache of its own. Token n - 2 may be missing in it."""

    kind = Kind.MODEL

    def __init__(
        self, model: Weights, cache: PagedCache, ops: Ops, state: State, sampler: Sampler
    ) -> None:
        self.model, self.cache, self.ops = model, cache, ops
        self.state, self.sampler = state, sampler

    def programs(self) -> dict[Stage, Program]:
        return {Stage.PREFILL_DRAFT: self.prefill, Stage.DRAFT: self.draft}

    def matrices(self) -> list[tuple[Tensor, Use]]:
        return matrices(self.model)

    def prefill(self, flat: Tensor, key: Key) -> None:
        """Fill the cache with prompt tokens."""
        prompts = Prompts.of(flat, key)
        none = Ends(prompts.rows[:0], None)
        forward(self.model, self.ops, self.cache, prompts.tokens, prompts.view, ends=none)

    def draft(self, flat: Tensor, key: Key) -> None:
        """The whole draft loop.

        The first step always feeds the last two tokens: after a round that kept every draft, the
        last of them has not been through the draft model. One more row costs next to nothing
        and spares the stage a ragged batch.
        """
        batch, length = key
        slots, lengths = flat.view(2, batch)
        self.state.drafted[slots] = lengths.clamp_min(0)  # padding's is -1
        tokens, view = self.state.last[slots].flatten(), Uniform(slots, 2, -2)
        for step in range(max(1, length)):
            hidden = forward(self.model, self.ops, self.cache, tokens, view)
            if step < length:
                scores = logits(self.model, self.ops, hidden.view(batch, view.query, -1)[:, -1])
                tokens = self.sampler.propose(scores, self.state, slots, step)
                self.state.drafts[slots, step] = tokens
                view = Uniform(slots, 1, step)
