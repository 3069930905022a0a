"""Drafts from a request's own text: what followed where its newest tokens stood before.

The longest suffix of up to `longest` and at least `shortest` tokens that occurred before is looked
for; what followed its first occurrence is proposed. Texts and search stay on the device, so that
nothing waits for the host. A request without a match drafts nothing in that round; one whose
occurrence is near its end drafts as many tokens as followed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pdvsim.core import Drafter as Kind
from pdvsim.core import Stage
from realengine.graph.drafting import Drafter, Key, Program, Prompts
from realengine.graph.state import State


@dataclass(frozen=True, slots=True)
class Ngram:
    """How long a suffix must have occurred before, in tokens."""

    longest: int = 4
    shortest: int = 2


class NgramDrafter(Drafter):
    """Looks up what it drafts.

    Attributes:
        text: `[slots + 1, tokens]` int64. Tokens of plain decode steps are missing in it.
    """

    kind = Kind.NGRAM

    def __init__(self, ngram: Ngram, state: State, context_tokens: int) -> None:
        self.ngram, self.state = ngram, state
        self.text = state.lengths.new_zeros(len(state.lengths), context_tokens + 1)

    def programs(self) -> dict[Stage, Program]:
        return {Stage.DRAFT: self.draft}

    def see_prompts(self, prompts: Prompts, states: Tensor, first: Tensor) -> None:
        blocks = prompts.view.blocks
        begin, rows, slots, positions = blocks.unbind(1)
        ends = rows.cumsum(0)
        row = torch.arange(len(prompts.tokens), device=ends.device)
        behind = row - begin[0]  # rounds may stand before the first prompt
        block = torch.searchsorted(ends, behind, right=True).clamp_max(len(ends) - 1)
        inside = (behind >= 0) & (behind < ends[-1])
        slot = torch.where(inside, slots[block], self.state.padding)
        place = torch.where(inside, positions[block] + row - begin[block], 0)
        self.text[slot, place] = prompts.tokens
        self.text[prompts.slots, prompts.lengths] = first

    def see_round(self, slots: Tensor, states: Tensor, tokens: Tensor, accepted: Tensor) -> None:
        steps = torch.arange(tokens.shape[1], device=slots.device)
        places = (self.state.lengths[slots] - 1 - accepted)[:, None] + steps
        self.text[slots[:, None], places.clamp(0, self.text.shape[1] - 1)] = tokens

    def draft(self, flat: Tensor, key: Key) -> None:
        """Search all texts at once. What stands behind a request's drafts is none."""
        batch, length = key
        slots, wanted = flat.view(2, batch)
        state = self.state
        text, tokens = self.text[slots], state.lengths[slots]
        room = text.shape[1]
        places = torch.arange(room, device=slots.device)
        # Of a suffix that ends at each place: how much of it is the text's own.
        same = places < (tokens - 1)[:, None]
        matched = torch.zeros_like(text)
        for back in range(self.ngram.longest):
            newest = text.gather(1, (tokens - 1 - back).clamp_min(0)[:, None])
            same = same & (F.pad(text, (back, 0), value=-1)[:, :room] == newest)
            same = same & (tokens > back)[:, None]
            matched += same
        # The longest; of several the first, behind which most is known.
        matched = torch.where(matched < self.ngram.shortest, 0, matched)
        place = (matched * room - places).argmax(1)
        found = matched.gather(1, place[:, None])[:, 0] > 0
        followed = torch.minimum(wanted.clamp_min(0), tokens - 1 - place)
        state.drafted[slots] = torch.where(found, followed, 0)
        if length:
            behind = place[:, None] + 1 + places[:length]
            drafts = text.gather(1, behind.clamp_max(room - 1))
            state.drafts[slots, :length] = drafts
            if size := state.draft_probabilities.shape[-1]:
                certain = F.one_hot(drafts, size).to(state.draft_probabilities.dtype)
                state.draft_probabilities[slots, :length] = certain
