"""What the device remembers of each admitted request, in rows by slot."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a drafter that sees the verifier's states has not taken in yet, in rows by slot.

    Attributes:
        states: `[slots + 1, g + 1, width]`.
        tokens: `[slots + 1, g + 1]` int64, the tokens behind them.
        fresh: int64, how many of them are committed; the last of them is that of token n - 2.
    """

    states: Tensor
    tokens: Tensor
    fresh: Tensor


@dataclass(frozen=True, slots=True)
class State:
    """Tables of `slots + 1` rows; the last row is that of padding.

    Attributes:
        lengths: int64, committed tokens n. Token n - 1 is not in the verifier's cache yet.
        last: `[., 2]` int64, tokens n - 2 and n - 1.
        drafts: `[., g]` int64, the drafted tokens that wait for the verifier; g is the longest
            round's.
        drafted: int64, how many of them there are.
        draft_probabilities: `[., g, V]` float32, what they were drawn from; empty when greedy.
        keys: int64, the requests' random keys.
        page_table: `[., pages per request]` int32.
    """

    lengths: Tensor
    last: Tensor
    drafts: Tensor
    drafted: Tensor
    draft_probabilities: Tensor
    keys: Tensor
    page_table: Tensor

    @property
    def padding(self) -> int:
        """The slot of padding."""
        return len(self.lengths) - 1


def new_state(
    slots: int, draft_tokens: int, table_width: int, vocabulary: int, device: torch.device
) -> State:
    """Empty tables. Padding's request has two tokens, so that every stage can run on it.

    Args:
        draft_tokens: of the longest round.
        vocabulary: size of the kept draft distributions; 0 if none are needed.
    """
    rows = slots + 1

    def zeros(*size: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.zeros(size, dtype=dtype, device=device)

    lengths = zeros(rows)
    lengths[slots] = 2
    return State(
        lengths,
        zeros(rows, 2),
        zeros(rows, draft_tokens),
        zeros(rows),
        zeros(rows, draft_tokens, vocabulary, dtype=torch.float32),
        zeros(rows),
        zeros(rows, table_width, dtype=torch.int32),
    )
