"""What the real world asks of an engine. `eager` and `graph` engines implement it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pdvsim.core import Checked, DraftTokens, Executor, Request, Stage, Stream
from pdvsim.errors import InputError


class RequestError(InputError):
    """Why an engine cannot go on with one request, or never could serve it."""

    def __init__(self, request: Request, why: str) -> None:
        super().__init__(f"request {request.id} {why}")
        self.request = request


class Ticket(Protocol):
    """A launched stage.

    Attributes:
        served: those of `batch` that the work is for: without the cancelled ones.
    """

    stage: Stage
    batch: Sequence[Request]

    @property
    def served(self) -> Sequence[Request]: ...

    def wait(self) -> None:
        """Block this thread until the device has finished."""
        ...

    def device_span_s(self) -> tuple[float, float] | None:
        """Start and end of the device work in host-clock seconds, once ended, if measured."""
        ...


class Engine(Protocol):
    """Runs stages. Thread-safe as far as lane programs need: a stage's model lock is held in the
    synchronous executor; otherwise different stages may be launched by different threads."""

    executor: Executor
    draft_tokens: int

    @property
    def draft_lengths(self) -> tuple[int, ...]:
        """The numbers of drafts that its rounds are made for, `draft_tokens` among them."""
        ...

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """What a round's batch is padded to; empty where it runs at its exact size."""
        ...

    def start(self) -> None:
        """A run begins: finish all earlier work and align the device's clock with the host's,
        `time.perf_counter`."""
        ...

    def launch(
        self,
        stage: Stage,
        batch: Sequence[Request],
        stream: Stream,
        after: Sequence[Ticket],
        draft_tokens: DraftTokens | None = None,
    ) -> Ticket:
        """Put the work of `stage` for `batch` on `stream`, behind the tickets `after`.

        Args:
            draft_tokens: of the round; None stands for the engine's own `draft_tokens`.

        Raises:
            RequestError: one of `batch` is at fault, and nothing was launched.
        """
        ...

    def settle(self, ticket: Ticket) -> Sequence[Checked] | None:
        """Called once, after the ticket is done. Returns what was found for each request where real
        tokens were compared at this stage, else None (the requests' `outcomes` decide). Appends
        output tokens to `request.tokens` where there are any."""
        ...

    def check(self, request: Request) -> None:
        """Raise `RequestError` if `request` can never be served."""
        ...

    def can_admit(self, *requests: Request) -> bool:
        """Whether each of `requests` holds its memory already, or all of them could now."""
        ...

    def release(self, request: Request) -> None:
        """Free what `request` holds (KV cache pages)."""
        ...
