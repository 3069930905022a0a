"""The verbs a lane program may yield, and what lane programs share.

An architecture is a set of *lane programs*: plain generators, one per host thread, that yield
verbs and are sent back their results. Two interpreters run them: `pdvsim.des.world` in virtual
time and `realengine.world` with real threads, locks and CUDA streams.
"""

from __future__ import annotations

import heapq
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from pdvsim.cell_values import AUTO
from pdvsim.core import DraftTokens, Model, Request, Stage, Stream, unfinished
from pdvsim.errors import InputError

if TYPE_CHECKING:
    from pdvsim.architectures.config import Config

# Mechanisms of several architectures that can be switched off.
ADMISSION_LIMIT, BATCH_END = "admission limit", "batch-end completion"
POLLING = "polling and waking"

PREFILL_TOKENS = 2048  # prompt tokens of one prefill where its number of prompts is left open
PREFILL_BATCH = (  # what the parameter `prefill_batch` means
    f"prompts prefilled in one stage; auto: those waiting that {PREFILL_TOKENS:,} tokens hold, at "
    "least one, and one where a launch takes one request"
)


class Queue(Protocol):
    """A named waiting line of requests. Its world guards it; programs only look at its length."""

    name: str

    def __len__(self) -> int: ...
    def push(self, requests: Iterable[Request]) -> None: ...
    def take(self, limit: int) -> list[Request]: ...
    def peek(self) -> Request: ...


class FifoQueue(deque[Request]):
    """First in, first out."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    push = deque.extend

    def take(self, limit: int) -> list[Request]:
        if limit < len(self):
            return [self.popleft() for _ in range(limit)]
        batch = list(self)
        self.clear()
        return batch

    def peek(self) -> Request:
        return self[0]


class PriorityQueue:
    """Oldest request first, by arrival and then by id."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._heap: list[tuple[float, int, Request]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, requests: Iterable[Request]) -> None:
        for request in requests:
            heapq.heappush(self._heap, (request.arrival_s, request.id, request))

    def take(self, limit: int) -> list[Request]:
        heap = self._heap
        return [heapq.heappop(heap)[2] for _ in range(min(limit, len(heap)))]

    def peek(self) -> Request:
        return self._heap[0][2]


Streams: TypeAlias = Mapping[Model, Stream]

# The verbs are not frozen: that would make them twice as dear, and a simulation makes many.


@dataclass(slots=True, eq=False)
class Take:
    """Take up to `limit` requests without waiting. Sent back: a list, possibly empty.

    Of those that wait for their prefill, the prompts have up to `prompt_tokens` together, unless
    the first alone has more.
    """

    queue: Queue
    limit: int
    prompt_tokens: int = sys.maxsize


@dataclass(slots=True, eq=False)
class Put:
    """Append `requests` to `queue` and notify waiting lanes."""

    queue: Queue
    requests: Sequence[Request]


@dataclass(slots=True, eq=False)
class Acquire:
    """Take a model's lock; blocks the thread until it is free."""

    lock: Model


@dataclass(slots=True, eq=False)
class Release:
    """Give a model's lock back. As with `threading.Lock`, a waiter has to wake up first and
    may find that the releasing thread has taken it again."""

    lock: Model


@dataclass(slots=True, eq=False)
class Launch:
    """Launch `stage` for `batch` on `stream` behind the events `after`. Sent back: an event.

    `draft_tokens` says how many tokens the round drafts; None stands for the configuration's.
    """

    stage: Stage
    batch: Sequence[Request]
    stream: Stream
    after: tuple[Any, ...] = ()
    draft_tokens: DraftTokens | None = None


@dataclass(slots=True, eq=False)
class Wait:
    """Block the thread until `event` has happened; the batch then holds its new tokens."""

    event: Any


@dataclass(slots=True, eq=False)
class Run:
    """Run `stages` in order for `batch`, each on its model's stream, and wait until they are done;
    the batch then holds its new tokens. `plainly` says it in launches and waits.

    A lane sets `again` where it would run just the same again if nothing had happened meanwhile
    but that the batch got tokens: nothing else came, moved or went. Where it would then put the
    batch back into a queue and take it from there for each run, `via` is that queue. A world may
    run again at once as long as that is so, or leave it to the lane.
    """

    stages: Sequence[Stage]
    batch: Sequence[Request]
    streams: Streams
    draft_tokens: int | None = None
    again: bool = False
    via: Queue | None = None


@dataclass(slots=True, eq=False)
class WaitUntil:
    """Sleep on the shared condition variable until `ready()` or `timeout_s` has passed."""

    ready: Callable[[], object]
    timeout_s: float = 0.1


@dataclass(slots=True, eq=False)
class PollUntil:
    """Look at `ready()` every `interval_s` until it is true."""

    ready: Callable[[], object]
    interval_s: float


@dataclass(slots=True, eq=False)
class Complete:
    """The request is done: record it and free what it holds."""

    request: Request


Verb: TypeAlias = (
    Take | Put | Acquire | Release | Launch | Wait | Run | WaitUntil | PollUntil | Complete
)
Program: TypeAlias = Generator[Verb, Any, None]


def no_verb(yielded: object) -> InputError:
    """What a world says of something that it cannot do."""
    return InputError(f"a lane program yields a {type(yielded).__name__}, which is no verb")


class Lanes:
    """What the lane programs of one run share: queues, configuration, requests in service.

    Attributes:
        parameters: an instance of the architecture's own `Parameters`.
        active: requests admitted to service and not yet complete; worlds count it, and those
            completed.
        service_limit: requests that may be in service at once, where that is limited.
        prefill_limit, prefill_tokens: most prompts of one prefill, and their most tokens together.
        room: whether there is memory for these requests besides those in service; a world in which
            the pages of a KV cache can run out puts its word here.
    """

    room: Callable[[Sequence[Request]], bool]

    def __init__(
        self, config: Config, parameters: Any = None, queue_type: Callable[[str], Queue] = FifoQueue
    ) -> None:
        self.config = config
        self.parameters = parameters
        self.switched_off = config.switched_off
        self.executor = config.executor
        self.batch_cap = config.batch_cap
        # What a lane takes per turn when it need not hold a batch together: an executor that
        # runs one request after the other gains nothing from taking more.
        self.turn_limit = config.batch_cap if config.executor.batched else 1
        limited = ADMISSION_LIMIT not in config.switched_off
        self.service_limit = config.batch_cap if limited else sys.maxsize
        self.prefill_limit, self.prefill_tokens = self._of_one_prefill()
        self.prefill = queue_type("prefill")
        self.decode = queue_type("decode")
        self.verify = queue_type("verify")
        self.active = 0
        self.completed = 0
        self.room = _always
        self.round_stages = config.executor.speculate + config.executor.check

    @property
    def admissible(self) -> bool:
        """Whether a request waits for its prefill and there is memory for it."""
        return bool(self.prefill) and self.room((self.prefill.peek(),))

    def _of_one_prefill(self) -> tuple[int, int]:
        """Published systems prefill one prompt at a time, serving engines as many as a token budget
        holds. A launch that takes one request has no use for more."""
        asked = getattr(self.parameters, "prefill_batch", AUTO)
        if asked != AUTO:
            return asked, sys.maxsize
        return (sys.maxsize, PREFILL_TOKENS) if self.executor.batched else (1, sys.maxsize)

    def prompts(self, most: int = sys.maxsize) -> Take:
        """The verb that takes waiting prompts for one prefill, up to `most`."""
        return Take(self.prefill, min(self.prefill_limit, most), self.prefill_tokens)

    def prefills(self, batch: Sequence[Request]) -> Iterable[Sequence[Request]]:
        """Split requests that are in service into what is prefilled at once."""
        part, tokens = list[Request](), 0
        for request in batch:
            tokens += request.prompt_tokens
            if part and (len(part) == self.prefill_limit or tokens > self.prefill_tokens):
                yield part
                part, tokens = [], request.prompt_tokens
            part.append(request)
        if part:
            yield part

    def pop_admissible(self, take: Take) -> list[Request]:
        """What is taken of the requests that wait for their prefill, those that there is memory
        for, in order."""
        waiting, batch, tokens = self.prefill, list[Request](), 0
        while waiting and len(batch) < take.limit:
            first = waiting.peek()
            tokens += first.prompt_tokens
            if (batch and tokens > take.prompt_tokens) or not self.room((*batch, first)):
                break
            batch += waiting.take(1)
        return batch

    def full(self, admits: Callable[[Lanes], bool]) -> bool:
        """Whether it is for want of memory alone that `admits` keeps out who waits."""
        if self.room is _always:
            return False
        roomy = copy(self)
        roomy.room = _always
        return admits(roomy)

    def parts(self, batch: Sequence[Request]) -> Iterable[Sequence[Request]]:
        """Split a turn into what is passed on together."""
        return self.launches(batch) if BATCH_END in self.switched_off else (batch,)

    def launches(self, batch: Sequence[Request]) -> Iterable[Sequence[Request]]:
        """Split `batch` into what one launch can take."""
        if self.executor.batched:
            return (batch,) if batch else ()
        return [(request,) for request in batch]


def _always(requests: Sequence[Request]) -> bool:
    return True


_ACQUIRE = {model: Acquire(model) for model in Model}
_RELEASE = {model: Release(model) for model in Model}


def streams_of(draft: Stream, verifier: Stream) -> Streams:
    """Which stream each model's stages run on."""
    return {Model.DRAFT: draft, Model.VERIFIER: verifier}


PREFILL_STREAM = streams_of(draft=Stream.PREFILL, verifier=Stream.PREFILL)


def plainly(lanes: Lanes, run: Run) -> Program:
    """`run` in launches and waits, once: what both worlds do where they know no shorter way."""
    stages, streams, drafts = run.stages, run.streams, run.draft_tokens
    for group in lanes.launches(run.batch):
        if lanes.executor.synchronous:
            for stage in stages:
                yield _ACQUIRE[stage.model]
                yield Wait((yield Launch(stage, group, streams[stage.model], (), drafts)))
                yield _RELEASE[stage.model]
        else:
            after: tuple[Any, ...] = ()
            for stage in stages:
                after = ((yield Launch(stage, group, streams[stage.model], after, drafts)),)
            if after:
                yield Wait(after[0])


def pass_on(lanes: Lanes, batch: Sequence[Request]) -> Program:
    """Complete what is done in `batch` and queue the rest for decoding."""
    going_on = unfinished(batch)
    if len(going_on) < len(batch):
        yield from complete(batch)
    if going_on:
        yield Put(lanes.decode, going_on)


def complete(batch: Sequence[Request]) -> Program:
    """Complete what is done in `batch`."""
    for request in batch:
        if request.finished:
            yield Complete(request)


def prefill(lanes: Lanes, batch: Sequence[Request], streams: Streams = PREFILL_STREAM) -> Program:
    """Bring `batch` from prompt to ready-to-decode."""
    yield Run(lanes.executor.prefill, batch, streams)


def decode_round(
    lanes: Lanes, batch: Sequence[Request], streams: Streams, draft_tokens: int | None = None
) -> Program:
    """One round for `batch`: draft, verify, and whatever the executor needs to advance.

    `draft_tokens` is the round's own number of drafts, if it is not the configuration's.
    """
    yield Run(lanes.round_stages, batch, streams, draft_tokens)


def decode_rounds(
    lanes: Lanes, batch: Sequence[Request], streams: Streams, via: Queue | None = None
) -> Program:
    """Rounds for `batch`: one, or more where nothing but the batch's tokens would have changed
    before the next. A lane that would look at anything else asks for each `decode_round`.

    `via` is the queue that the batch passes between two rounds, if the lane does not keep it.
    """
    yield Run(lanes.round_stages, batch, streams, again=True, via=via)
