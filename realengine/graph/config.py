"""How a graph engine is sized, and how it chooses tokens."""

from __future__ import annotations

from dataclasses import dataclass

from pdvsim.errors import InputError
from pdvsim.kv_cache import CHUNK_TOKENS, GRAPH_BYTES, PAGE_TOKENS

LONGEST = 16  # drafts of a round


@dataclass(frozen=True, slots=True)
class GraphConfig:
    """What a graph engine is asked for.

    Attributes:
        draft_tokens: g, drafted tokens of a round whose launch says nothing else, 0 to 16.
        max_requests: requests that hold pages at once.
        max_context_tokens: longest prompt plus output; None takes what both models allow.
        cache_tokens: size of the KV cache; None takes what `max_requests` requests of
            `max_context_tokens` need, or as much of that as fits.
        chunk_tokens: most prompt tokens in one forward pass.
        graph_bytes: device memory that CUDA graphs may take. What does not fit is launched kernel
            by kernel, the lengths beside `draft_tokens` first.
        temperature: 0 is greedy.
        seed: of the requests' random keys; a request's tokens depend on it and the request's id.
        draft_lengths: other numbers of drafts that rounds may have.
    """

    draft_tokens: int = 4
    max_requests: int = 64
    max_context_tokens: int | None = None
    page_tokens: int = PAGE_TOKENS
    cache_tokens: int | None = None
    chunk_tokens: int = CHUNK_TOKENS
    graph_bytes: int = GRAPH_BYTES
    temperature: float = 0.0
    seed: int = 0
    draft_lengths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, low, high in (
            ("draft_tokens", 0, LONGEST),
            ("max_requests", 1, 4096),
            ("page_tokens", 1, 1024),
            ("chunk_tokens", 1, 1 << 20),
            ("temperature", 0, 100),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} is {value}; it must be between {low} and {high}")
        if not all(0 <= length <= LONGEST for length in self.draft_lengths):
            raise InputError(
                f"draft_lengths are {list(self.draft_lengths)}; all must be between 0 and {LONGEST}"
            )

    @property
    def lengths(self) -> tuple[int, ...]:
        """All numbers of drafts that a round may have, the usual one first."""
        return (self.draft_tokens, *sorted({*self.draft_lengths} - {self.draft_tokens}))

    @property
    def longest(self) -> int:
        return max(self.lengths)
