"""The KV cache of the batched engine: how large it is, and which requests fit.

A page holds `page_tokens` tokens of all models: draft and verifier always agree on a request's
length, so one page number serves every cache. A request reserves all it can ever need when it is
admitted, so a running request never runs out; whoever does not fit waits.

Both worlds ask here: the engine with the memory that is free on its device, the simulation with
that of the GPU that was calibrated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pdvsim.core import Request
from pdvsim.errors import CapacityError
from pdvsim.models import BYTES_PER_PARAMETER, ModelShape

PAGE_TOKENS = 16
CHUNK_TOKENS = 8192  # prompt tokens of one pass, at most
GRAPH_BYTES = 4 << 30
SEARCH_ROWS = 7  # of int64, in a look-up of n-grams: texts, and what a search makes of them


@dataclass(frozen=True, slots=True)
class KvCache:
    """A paged cache, and the rule of admission to it.

    Attributes:
        pages: that requests can hold.
        token_bytes: of a token in the caches of all models.
        overrun_tokens: what a request's last round may write past the end of its output.
        longest_tokens: prompt and output that the models take.
    """

    pages: int
    page_tokens: int
    token_bytes: int
    overrun_tokens: int
    longest_tokens: int

    def reserved_tokens(self, request: Request) -> int:
        """What a request reserves from its admission to its end."""
        return request.prompt_tokens + request.output_tokens + self.overrun_tokens

    def pages_for(self, tokens: int) -> int:
        """Pages that hold so many tokens of one request."""
        return -(-tokens // self.page_tokens)

    def fits(self, token_counts: Iterable[int], free_pages: int) -> bool:
        """Whether requests that reserve these many tokens fit into `free_pages` together."""
        return sum(map(self.pages_for, token_counts)) <= free_pages

    def refusal(self, prompt_tokens: int, output_tokens: int) -> str | None:
        """Why a request can never be served, as half a sentence; None if it can."""
        total = prompt_tokens + output_tokens
        most = min(self.longest_tokens, self.pages * self.page_tokens - self.overrun_tokens)
        if total <= most:
            return None
        needed, room = (tokens * self.token_bytes / 2**20 for tokens in (total, most))
        return (
            f"needs {prompt_tokens} prompt + {output_tokens} output tokens, "
            f"{needed:,.1f} MiB of KV cache; the cache takes {most}, {room:,.1f} MiB"
        )


@dataclass(frozen=True, slots=True)
class MemoryDemand:
    """What an engine asks of memory beside its weights.

    Attributes:
        context_tokens: longest prompt and output, and what a last round may write past its end.
        graph_bytes: kept free for CUDA graphs, with kernels and cuBLAS workspaces.
        states: of the verifier that a drafter is shown for each token.
        cache_tokens: wanted; None takes what `requests x context_tokens` needs, or what fits.
        element_bytes: of weights, activations and cache.
        keeps_texts: the drafter looks drafts up in the requests' texts.
    """

    models: Sequence[ModelShape]
    requests: int
    context_tokens: int
    cache_tokens: int | None
    page_tokens: int
    chunk_tokens: int
    round_tokens: int
    graph_bytes: int
    states: int
    tempered: bool
    element_bytes: int
    keeps_texts: bool = False

    @property
    def page_bytes(self) -> int:
        per_token = sum(shape.kv_bytes_per_token for shape in self.models)
        return self.page_tokens * per_token * self.element_bytes // BYTES_PER_PARAMETER

    @property
    def text_bytes(self) -> int:
        """Of the requests' texts, and of a search in them."""
        texts = (self.requests + 1) * (self.context_tokens + 1)
        return self.keeps_texts * SEARCH_ROWS * 8 * texts

    @property
    def workspace_bytes(self) -> int:
        """Activations of the widest prefill chunk and of one round of every request, and logits."""
        rows = self.chunk_tokens + self.requests * self.round_tokens
        row = max(
            3 * s.hidden + 2 * s.query_width + 2 * s.kv_width + 3 * s.intermediate
            for s in self.models
        )
        if self.states:
            row += (self.states + 3) * self.models[0].hidden  # and fused, beside an embedding
        vocabulary = max(shape.vocabulary for shape in self.models)
        # Tempered rounds hold float32 probabilities of target, proposal, residual and cumulative.
        logit_bytes = self.element_bytes + (4 * 4 if self.tempered else 0)
        logits = self.requests * (self.round_tokens + 1) * vocabulary * logit_bytes
        return rows * row * self.element_bytes + logits + self.text_bytes

    def cache(self, free_bytes: int, whole: bool = False) -> KvCache:
        """The cache that is made of what is free behind the weights.

        Args:
            whole: all that fits, also beyond what `requests` can use.

        Raises:
            CapacityError: what was asked for, or one page per request, does not fit.
        """
        overrun = self.round_tokens - 1
        return KvCache(
            max(self.pages(free_bytes), whole * self._fitting(free_bytes)) - 1,
            self.page_tokens,
            self.page_bytes // self.page_tokens,
            overrun,
            self.context_tokens - overrun,
        )

    def pages(self, free_bytes: int) -> int:
        """Pages to allocate, with one for padding rows.

        Raises:
            CapacityError: what was asked for, or one page per request, does not fit.
        """
        fitting = self._fitting(free_bytes)
        if self.cache_tokens is not None:
            wanted = -(-self.cache_tokens // self.page_tokens) + 1
            least = max(wanted, self.requests + 1)
        else:
            wanted = self.requests * -(-self.context_tokens // self.page_tokens) + 1
            least = self.requests + 1
        if fitting < least:
            raise CapacityError(
                f"the KV cache needs {least} pages of {self.page_tokens} tokens, "
                f"{least * self.page_bytes / 1e9:.2f} GB; "
                f"{max(0, self._available(free_bytes)) / 1e9:.2f} GB are "
                f"left beside weights and {self.workspace_bytes / 1e9:.2f} GB of workspace"
            )
        return max(min(wanted, fitting), least)

    def _available(self, free_bytes: int) -> int:
        return free_bytes - self.workspace_bytes - self.graph_bytes

    def _fitting(self, free_bytes: int) -> int:
        return max(0, self._available(free_bytes) // self.page_bytes)


class Pages:
    """Pages that requests hold in a run. Not thread-safe.

    Args:
        longest: of all requests; asked for often, room is mostly clear from it.
    """

    def __init__(self, cache: KvCache, longest: Request) -> None:
        self._cache = cache
        self._most = self._pages(longest)
        self.free = cache.pages

    def room(self, requests: Sequence[Request]) -> bool:
        """Whether `requests`, which hold nothing, fit together."""
        if len(requests) * self._most <= self.free:
            return True
        return self._cache.fits(map(self._cache.reserved_tokens, requests), self.free)

    def take(self, requests: Iterable[Request]) -> None:
        """Reserve for all of them; they fit."""
        self.free -= sum(map(self._pages, requests))
        assert self.free >= 0

    def give_back(self, request: Request) -> None:
        """Free what a request held."""
        self.free += self._pages(request)

    def _pages(self, request: Request) -> int:
        return self._cache.pages_for(self._cache.reserved_tokens(request))
