"""What the GPU of a profile holds beside an engine's weights, and what never fits into it.

The engine asks its device how much is free; here that is the size of the card, less what the driver
and the context of a process take (measured: `results/graph/h100_memory.json`), less the weights of
the verifier and of what drafts: an engine holds both, whatever runs on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pdvsim.core import Drafter, Executor
from pdvsim.drafters import HeadShape, decoder_of
from pdvsim.errors import CapacityError
from pdvsim.kv_cache import CHUNK_TOKENS, GRAPH_BYTES, PAGE_TOKENS, KvCache, MemoryDemand
from pdvsim.models import BYTES_PER_PARAMETER, Pair

if TYPE_CHECKING:
    from pdvsim.workload import Workload

CONTEXT_BYTES = 1_322_000_000  # 1.15 GB before weights are loaded, and 0.17 GB with them


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """A GPU with a pair of models on it.

    Attributes:
        gpu: its name.
        total_bytes: all of it.
    """

    gpu: str
    total_bytes: int
    pair: Pair
    executor: Executor

    @property
    def free_bytes(self) -> int:
        """What is left beside the weights; below 0 where they do not fit."""
        return self.total_bytes - CONTEXT_BYTES - self.pair.weight_bytes

    def cache(self, requests: int, draft_tokens: int, context_tokens: int) -> KvCache | None:
        """The KV cache of an engine for so many requests; None for an executor whose caches grow
        with their requests.

        Args:
            draft_tokens: of the longest round.
            context_tokens: of the longest request, prompt and output.

        Raises:
            CapacityError: the weights, or that cache, do not fit.
        """
        if self.free_bytes <= 0:
            raise CapacityError(
                f"the weights of {self.pair.name} take {self.pair.weight_bytes:,} bytes; "
                f"{self.gpu} has {self.total_bytes:,}"
            )
        if not self.executor.batched:
            self._check_growing(requests, draft_tokens + context_tokens)
            return None
        draft = self.pair.draft
        decoder = decoder_of(draft)
        return MemoryDemand(
            models=[self.pair.verifier, *([] if decoder is None else [decoder])],
            requests=requests,
            context_tokens=context_tokens + draft_tokens,
            cache_tokens=None,
            page_tokens=PAGE_TOKENS,
            chunk_tokens=CHUNK_TOKENS,
            round_tokens=draft_tokens + 1,
            graph_bytes=GRAPH_BYTES,
            states=len(draft.depths) if isinstance(draft, HeadShape) else 0,
            tempered=False,
            element_bytes=BYTES_PER_PARAMETER,
            keeps_texts=self.executor.drafter is Drafter.NGRAM,
        ).cache(self.free_bytes, whole=True)

    def _check_growing(self, requests: int, tokens: int) -> None:
        """Refuse what an engine without pages refuses before it begins."""
        each = self.pair.draft.kv_bytes_per_token + self.pair.verifier.kv_bytes_per_token
        needed = requests * tokens * each
        if needed > self.free_bytes:
            raise CapacityError(
                f"{requests:,} requests of {tokens:,} tokens need {needed:,} bytes of KV cache; "
                f"{self.free_bytes:,} of {self.gpu} are left beside the weights"
            )

    def check(
        self, requests: int, draft_tokens: int, prompt_tokens: int, output_tokens: int
    ) -> KvCache | None:
        """`cache` for an engine that has to serve a request of these lengths.

        Raises:
            CapacityError: it can't, or could not even begin.
        """
        cache = self.cache(requests, draft_tokens, prompt_tokens + output_tokens)
        refusal = None if cache is None else cache.refusal(prompt_tokens, output_tokens)
        if refusal is not None:
            raise CapacityError(f"a request {refusal}, on {self.gpu} beside the weights")
        return cache

    def for_run(self, workload: Workload, requests: int, draft_tokens: int) -> KvCache | None:
        """The cache that limits a run; None where all of its requests fit.

        Args:
            requests: C.

        Raises:
            CapacityError: one of them never fits, or the weights don't.
        """
        lengths = zip(workload.prompt_tokens, workload.output_tokens, strict=True)
        prompt, output = max(lengths, key=sum)
        cache = self.check(requests, draft_tokens, prompt, output)
        if cache is None:
            return None
        together = workload.in_flight or len(workload)
        pages = together * cache.pages_for(prompt + output + cache.overrun_tokens)
        return cache if pages > cache.pages else None
