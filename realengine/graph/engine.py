"""The `graph` engine: admits requests to pages, launches batched stages, hands tokens back."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy
import torch

from pdvsim.core import GRAPH, PREFILLS, Checked, DraftTokens, Request, Stage, Stream
from pdvsim.errors import InputError
from realengine.checkpoint import check_context
from realengine.device import Device, Execution, enough_memory, free_bytes
from realengine.engine import Ticket
from realengine.graph.admission import Admission, Held
from realengine.graph.capture import runner_of
from realengine.graph.config import GraphConfig
from realengine.graph.drafters import Draft, cached_shapes, drafter_of
from realengine.graph.inputs import Inputs, ends
from realengine.graph.memory import demand_of
from realengine.graph.model import Weights, matrices
from realengine.graph.ops import Ops, TorchOps
from realengine.graph.paged import PagePool, paged_cache
from realengine.graph.plan import Sizes, Values, Work, admit_work
from realengine.graph.sampling import Greedy, Sampler, Tempered
from realengine.graph.stages import Stages
from realengine.graph.state import new_state
from realengine.prompts import Prompts

_FINISHED, _OUTCOMES = attrgetter("finished"), attrgetter("outcomes")

# What a lane usually launches for a batch behind a stage.
_FOLLOWS = {Stage.VERIFY: Stage.DRAFT, Stage.DECODE: Stage.DECODE}


@dataclass(frozen=True, slots=True)
class _Ready:
    """What a launch runs on, so far as it is known before.

    Attributes:
        asked: numbers of drafts, as the launch says them.
        held, drafts: of those of `batch` that have not finished.
        program: that runs it.
    """

    stage: Stage
    batch: Sequence[Request]
    asked: DraftTokens | None
    held: Mapping[Request, Held]
    drafts: Sequence[int]
    program: Stage
    work: Iterable[Work]

    def fits(self, stage: Stage, batch: Sequence[Request], asked: DraftTokens | None) -> bool:
        """Whether that is the launch it was made for, and nobody has finished meanwhile."""
        same = self.stage is stage and self.asked == asked and self.batch == batch
        return same and not any(map(_FINISHED, batch))


@dataclass(slots=True, eq=False)
class GraphTicket:
    """A launched stage. `served` says which requests of the batch have a row in the results."""

    stage: Stage
    batch: Sequence[Request]
    execution: Execution
    served: Sequence[Request]
    work: Sequence[Work]

    def wait(self) -> None:
        self.execution.wait()

    def device_span_s(self) -> tuple[float, float]:
        return self.execution.span_s()

    def results(self) -> Values:
        """The result rows of `served`, `[requests, .]`."""
        parts = zip(self.work, self.execution.result, strict=True)
        kept = [item.counted(part) for item, part in parts]
        return kept[0] if len(kept) == 1 else numpy.concatenate(kept)


class GraphEngine:
    """Implements `realengine.engine.Engine` for the executor `pdvsim.core.GRAPH`.

    A request is admitted by its first prefill stage: it then reserves a slot and pages for all
    the tokens it can come to. `launch` raises `OutOfPages` when there is no room, having changed
    nothing; `can_admit` asks first. A request that was released may be prefilled again: its prompt
    then is the old one and the tokens it had, so pre-empting loses time only.
    """

    def __init__(
        self,
        config: GraphConfig,
        verifier: Weights,
        draft: Draft,
        device: Device,
        ops: Ops | None = None,
        prompts: Prompts | None = None,
    ) -> None:
        """
        Args:
            draft: what drafts; None for an engine that only decodes.
            ops: the kernels to run on; chosen by `device` if not given.
            prompts: of requests that bring none; random tokens of the verifier's if not given.

        Raises:
            InputError: a context that the models do not have.
            CapacityError: the KV cache does not fit.
        """
        shapes = [verifier.shape, *cached_shapes(draft)]
        self.config, self.device = config, device
        self.draft_tokens = config.draft_tokens
        own = [len(draft.head)] if isinstance(draft, Weights) else []
        self.vocabulary = min([len(verifier.head), *own])
        self.prompts = prompts or Prompts(self.vocabulary, config.seed)
        longest = min(shape.longest_context_tokens for shape in shapes)
        self.max_context_tokens = config.max_context_tokens or longest
        check_context(shapes, self.max_context_tokens)
        demand = demand_of(config, verifier, draft, self.max_context_tokens, device.device)
        self.kv_cache = demand.cache(free_bytes(device.device))
        pool = PagePool(self.kv_cache, config.max_requests)
        self._admission = Admission(pool, self.vocabulary)
        self._locks = {stage: threading.Lock() for stage in Stage}
        self._ready: _Ready | None = None
        self._state = new_state(
            config.max_requests,
            config.longest,
            # One page more than a request can hold, for padding's few tokens.
            self.kv_cache.pages_for(demand.context_tokens) + 1,
            self.vocabulary if config.temperature > 0 else 0,
            device.device,
        )
        table, lengths = self._state.page_table, self._state.lengths
        pages, dtype = self.kv_cache.pages + 1, verifier.embedding.dtype  # padding has one
        own_cache, *caches = [
            paged_cache(shape, pages, config.page_tokens, table, lengths, dtype) for shape in shapes
        ]
        ops = ops or _ops_for(device.device)
        sampler: Sampler = Tempered(config.temperature) if config.temperature else Greedy(ops)
        self._drafter = drafter_of(draft, caches, demand.context_tokens, ops, self._state, sampler)
        with enough_memory(device.device, "timing matrix products"):
            ops.tune([*matrices(verifier), *self._drafter.matrices()])
        self.executor = GRAPH.with_drafter(self._drafter.kind)
        stages = Stages(verifier, own_cache, self._drafter, ops, self._state, sampler)
        self._stages = tuple(stages.programs())
        self._runner = runner_of(device, stages, config)
        self._inputs = Inputs(config, self.prompts, self._drafter, ops.block_tokens)

    @property
    def about_graphs(self) -> str:
        """One line on the memory and time that CUDA graphs took; empty on the CPU."""
        return self._runner.about

    def check(self, request: Request) -> None:
        """Raise `RequestError` if `request` can never be served."""
        self._admission.check(request)

    def can_admit(self, *requests: Request) -> bool:
        """Whether `requests` hold pages already, or all of them could now."""
        return self._admission.fits(requests)

    def release(self, request: Request) -> None:
        """Free what `request` holds, once the device is done with it. Twice is harmless."""
        self._ready = None
        self._admission.release(request)

    @property
    def draft_lengths(self) -> tuple[int, ...]:
        return self.config.lengths

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """What a round's batch is padded to; empty where it runs at its exact size."""
        return self._runner.sizes.batches

    @property
    def sizes(self) -> Sizes:
        """What all launches are padded to."""
        return self._runner.sizes

    @property
    def pages(self) -> int:
        """Pages that requests can hold."""
        return self.kv_cache.pages

    @property
    def free_pages(self) -> int:
        return self._admission.free_pages

    def _admit(self, batch: Sequence[Request]) -> Work | None:
        """Reserve for the new ones of `batch`; the device work that enters them."""
        admitted = self._admission.admit(batch)
        if not admitted:
            return None
        keys = [0] * len(admitted)  # the device waits for these, and greedy rounds draw nothing
        if self.config.temperature:
            keys = [_request_key(self.config.seed, request.id) for request, _ in admitted]
        pages = [holding.pages for _, holding in admitted]
        slots = [holding.slot for _, holding in admitted]
        return admit_work(slots, keys, pages, self._state.page_table.shape[1])

    # Stages

    def start(self) -> None:
        self.device.align()

    def launch(
        self,
        stage: Stage,
        batch: Sequence[Request],
        stream: Stream,
        after: Sequence[Ticket],
        draft_tokens: DraftTokens | None = None,
    ) -> GraphTicket:
        if stage not in self._stages:
            raise InputError(f"this engine does not run {stage}: it has {', '.join(self._stages)}")
        ready, self._ready = self._ready, None
        prologue = None
        if ready is None or not ready.fits(stage, batch, draft_tokens):
            lengths = self._inputs.lengths(stage, batch, draft_tokens)
            if stage in PREFILLS or stage is Stage.MIXED:
                prologue = self._admit(batch)
            ready = self._ready_for(stage, batch, draft_tokens, lengths)
        held, drafts, program = ready.held, ready.drafts, ready.program
        work: list[Work] = []
        made = _kept(work, ready.work)
        earlier = [ticket.execution for ticket in after if isinstance(ticket, GraphTicket)]
        try:
            with self._locks[program]:
                execution = self._runner.run(program, prologue, made, stream, earlier)
        except Exception:  # for want of memory, or since a request cannot be served
            self.device.align()  # waits: what began of it must not write to another's pages
            raise
        prefills, settles = stage in PREFILLS, stage is Stage.VERIFY or stage is Stage.MIXED
        states = max(drafts, default=0) + 1
        for request, each in held.items():
            each.latest = execution
            if prefills or request.chunk_tokens:
                each.states = 1
            elif settles:
                each.states = states
        # The device is busy now; when it has ended it will wait for what comes next.
        follows = _FOLLOWS.get(stage)
        if follows in self._stages and len(held) == len(batch):
            self._ready = self._ready_for(follows, list(batch), draft_tokens, drafts)
        return GraphTicket(stage, batch, execution, list(held), work)

    def _ready_for(
        self,
        stage: Stage,
        batch: Sequence[Request],
        asked: DraftTokens | None,
        lengths: Sequence[int],
    ) -> _Ready:
        """What a launch of `stage` runs on."""
        held = self._admission.held(batch)
        if len(held) < len(batch):
            pairs = zip(batch, lengths, strict=True)
            lengths = [length for request, length in pairs if request in held]
        program = stage
        if stage is Stage.MIXED and all(request.chunk_tokens for request in held):
            program = Stage.PREFILL_VERIFIER
        work = self._inputs.work(program, held, lengths, self._runner.sizes)
        return _Ready(stage, batch, asked, held, lengths, program, work)

    def settle(self, ticket: Ticket) -> Sequence[Checked] | None:
        """Append the ticket's tokens to its requests; see `Engine.settle`."""
        assert isinstance(ticket, GraphTicket)
        stage, served = ticket.stage, ticket.served
        if stage not in (Stage.VERIFY, Stage.DECODE, Stage.PREFILL_VERIFIER, Stage.MIXED):
            return None
        rows = ticket.results().tolist() if served else []
        # A mixed pass has rows of rounds, then first tokens; others have one or the other.
        checked = served if stage is Stage.VERIFY else []
        begun = [] if stage is Stage.VERIFY else served
        if stage is Stage.MIXED:
            checked = [request for request in served if not request.chunk_tokens]
            begun = [request for request in served if ends(request)]
        rows, first = rows[: len(checked)], rows[len(checked) :]
        for request, row in zip(begun, first, strict=True):
            _append(request, row, 0, 1)
        for request, row in zip(checked, rows, strict=True):
            _append(request, row, 2, 3 + row[0])
        if stage is Stage.DECODE or stage is Stage.PREFILL_VERIFIER:
            return None
        if all(map(_OUTCOMES, ticket.batch)):
            return None
        found = dict.fromkeys(ticket.batch, Checked(0, 0))
        for request, (kept, drafted, *_) in zip(checked, rows, strict=True):
            # An injected outcome may keep more than a look-up found.
            found[request] = Checked(kept, max(kept, drafted))
        return list(found.values())


def _kept(items: list[Work], made: Iterable[Work]) -> Iterator[Work]:
    """`made`, each put into `items` before it is used."""
    for item in made:
        items.append(item)
        yield item


def _append(request: Request, row: Sequence[int], begin: int, end: int) -> None:
    """The tokens `row[begin:end]`, as many as the output still takes."""
    tokens = request.tokens
    room = request.output_tokens - len(tokens)
    tokens += row[begin : min(end, begin + room)]


def _request_key(seed: int, request_id: int) -> int:
    """A random int64 for a request of a run."""
    words = numpy.random.SeedSequence((seed, request_id)).generate_state(1, numpy.uint64)
    return int(words.view(numpy.int64)[0])


def _ops_for(device: torch.device) -> Ops:
    if device.type != "cuda":
        return TorchOps()
    from realengine.graph.triton_ops import TritonOps

    about = torch.cuda.get_device_properties(device)
    return TritonOps(about.multi_processor_count, early=about.major >= 9)
