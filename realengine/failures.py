"""Requests that the engine could not go on with: they leave, and the others go on."""

from __future__ import annotations

from collections.abc import Sequence

from pdvsim.core import DraftTokens, Request
from pdvsim.errors import InvariantError
from realengine.engine import RequestError

# What no request is at fault for: our own bugs, and the end of the host's memory.
FATAL = (AssertionError, InvariantError, MemoryError)


class Failures:
    """Why requests failed, by their ids. Not thread-safe: the world guards it."""

    def __init__(self) -> None:
        self.errors: dict[int, Exception] = {}

    def __contains__(self, request: Request) -> bool:
        return request.id in self.errors

    def __len__(self) -> int:
        return len(self.errors)

    @property
    def first(self) -> Exception:
        return next(iter(self.errors.values()))

    def give_up(self, batch: Sequence[Request], error: Exception) -> None:
        """Note the request that `error` names, or else all of `batch`. They leave as finished ones
        do: their lane completes them."""
        self.give_up_all([error.request] if isinstance(error, RequestError) else batch, error)

    def give_up_all(self, batch: Sequence[Request], error: Exception) -> None:
        """The same of every request in `batch`."""
        for request in batch:
            self.errors[request.id] = error
            request.cancelled = True

    def going_on(
        self, batch: Sequence[Request], drafts: DraftTokens
    ) -> tuple[Sequence[Request], DraftTokens]:
        """Those of `batch` that did not fail, and their drafts."""
        if not self.errors or not any(request.cancelled for request in batch):
            return batch, drafts
        kept = [i for i, request in enumerate(batch) if not request.cancelled]
        if not isinstance(drafts, int):
            drafts = [drafts[i] for i in kept]
        return [batch[i] for i in kept], drafts
