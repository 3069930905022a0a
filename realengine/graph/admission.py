"""Who is in: reserves slots and pages for requests, and takes them back when work has ended."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from pdvsim.core import Request
from pdvsim.errors import InputError
from realengine.device import Execution
from realengine.engine import RequestError
from realengine.graph.paged import Holding, PagePool


@dataclass(slots=True, eq=False)
class Held:
    """What a request holds, and the last work that was launched for it.

    Attributes:
        states: of the verifier that may wait for the drafter, at most.
    """

    holding: Holding
    latest: Execution | None = None
    states: int = 1

    @property
    def idle(self) -> bool:
        return self.latest is None or self.latest.done()


class Admission:
    """Thread-safe bookkeeping of held requests."""

    def __init__(self, pool: PagePool, vocabulary: int) -> None:
        self._pool = pool
        self._cache = pool.cache
        self._vocabulary = vocabulary
        self._held: dict[Request, Held] = {}
        self._leaving: list[Held] = []
        self._lock = threading.Lock()

    def check(self, request: Request) -> None:
        """Refuse a request that can never be served.

        Raises:
            RequestError: empty prompt, tokens outside the vocabulary, or longer than the cache.
        """
        prompt = request.prompt
        if request.prompt_tokens < 1 or (prompt and len(prompt) != request.prompt_tokens):
            raise RequestError(
                request,
                f"has {len(prompt)} prompt tokens and says {request.prompt_tokens}; a prompt holds "
                "at least one",
            )
        if request.output_tokens < 1:
            raise RequestError(request, f"asks for {request.output_tokens} output tokens")
        if prompt and not 0 <= min(prompt) <= max(prompt) < self._vocabulary:
            raise RequestError(request, f"has tokens outside the vocabulary of {self._vocabulary}")
        refusal = self._cache.refusal(request.prompt_tokens, request.output_tokens)
        if refusal is not None:
            raise RequestError(request, refusal)

    def fits(self, batch: Sequence[Request]) -> bool:
        """Whether the requests of `batch` hold pages already, or all of them could now."""
        with self._lock:
            self._sweep()
            return self._pool.fits(self._tokens([r for r in batch if r not in self._held]))

    def admit(self, batch: Sequence[Request]) -> list[tuple[Request, Holding]]:
        """Reserve for those of `batch` that hold nothing yet, or for none. Returns these.

        Raises:
            RequestError: one of them can never be served.
            OutOfPages: they do not fit now.
        """
        with self._lock:
            new = [r for r in batch if r not in self._held and not r.cancelled]
            for request in new:
                self.check(request)
            self._sweep()
            holdings = self._pool.take(self._tokens(new))
            admitted = list(zip(new, holdings, strict=True))
            self._held.update((request, Held(holding)) for request, holding in admitted)
            return admitted

    def held(self, batch: Sequence[Request]) -> dict[Request, Held]:
        """What the requests of `batch` hold. Finished ones, so cancelled ones too, are left out:
        they may have been released, and have no room for another round.

        Raises:
            InputError: an unfinished one holds nothing.
        """
        with self._lock:
            held = self._held
            try:
                return {request: held[request] for request in batch if not request.finished}
            except KeyError as error:
                (request,) = error.args
                raise InputError(f"request {request.id} is launched before its prefill") from None

    def release(self, request: Request) -> None:
        """Free what `request` holds, once the device is done with it. Twice is harmless."""
        with self._lock:
            held = self._held.pop(request, None)
            if held is not None:
                self._leaving.append(held)
            self._sweep()

    @property
    def free_pages(self) -> int:
        with self._lock:
            self._sweep()
            return self._pool.free_pages

    def _tokens(self, requests: Sequence[Request]) -> list[int]:
        return [self._cache.reserved_tokens(request) for request in requests]

    def _sweep(self) -> None:
        """Give back what released requests held, where their last work has ended."""
        idle = [held for held in self._leaving if held.idle]
        for held in idle:
            self._pool.give_back(held.holding)
            self._leaving.remove(held)
