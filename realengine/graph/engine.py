"""The `graph` engine: admits requests to pages, launches batched stages, hands tokens back."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy
import torch

from pdvsim.core import GRAPH, PREFILLS, DraftTokens, Request, Stage, Stream
from pdvsim.core import Drafter as Kind
from pdvsim.errors import InputError
from realengine.checkpoint import check_context
from realengine.device import CpuDevice, CudaDevice, Device, Execution, enough_memory, free_bytes
from realengine.engine import RequestError, Ticket
from realengine.graph.admission import Admission, Held
from realengine.graph.drafting import Drafter, ModelDrafter
from realengine.graph.eagle3 import Eagle3Drafter, Head
from realengine.graph.memory import MemoryDemand
from realengine.graph.model import Weights, matrices
from realengine.graph.ngram import Ngram, NgramDrafter
from realengine.graph.ops import Ops, TorchOps
from realengine.graph.paged import PagePool, paged_cache
from realengine.graph.plan import (
    Piece,
    Values,
    Work,
    admit_work,
    cuda_sizes,
    draft_runs,
    draft_shapes,
    empty_mixed_work,
    empty_prefill_work,
    mixed_work,
    prefill_work,
    round_work,
)
from realengine.graph.runner import DirectRunner, GraphRunner, Runner
from realengine.graph.sampling import Greedy, Sampler, Tempered
from realengine.graph.stages import Stages
from realengine.graph.state import new_state
from realengine.prompts import Prompts

LONGEST = 16  # drafts of a round


@dataclass(frozen=True, slots=True)
class GraphConfig:
    """How a graph engine is sized, and how it chooses tokens.

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
    page_tokens: int = 16
    cache_tokens: int | None = None
    chunk_tokens: int = 8192
    graph_bytes: int = 4 << 30
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
        draft: Weights | Head | Ngram | None,
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
        shapes = [verifier.shape]
        if isinstance(draft, Head):
            shapes.append(draft.shape.layer)
        elif isinstance(draft, Weights):
            shapes.append(draft.shape)
        self.config = config
        self.draft_tokens = config.draft_tokens
        own = [len(draft.head)] if isinstance(draft, Weights) else []
        self.vocabulary = min([len(verifier.head), *own])
        self.prompts = prompts or Prompts(self.vocabulary, config.seed)
        longest = min(shape.longest_context_tokens for shape in shapes)
        self.max_context_tokens = config.max_context_tokens or longest
        check_context(shapes, self.max_context_tokens)
        dtype = verifier.embedding.dtype
        context_tokens = self.max_context_tokens + config.longest
        text_bytes = 0
        if isinstance(draft, Ngram):
            text_bytes = draft.text_bytes(config.max_requests, context_tokens)
        demand = MemoryDemand(
            models=shapes,
            requests=config.max_requests,
            context_tokens=context_tokens,
            cache_tokens=config.cache_tokens,
            page_tokens=config.page_tokens,
            chunk_tokens=config.chunk_tokens,
            round_tokens=config.longest + 1,
            graph_bytes=config.graph_bytes if device.device.type == "cuda" else 0,
            states=len(draft.shape.depths) if isinstance(draft, Head) else 0,
            tempered=config.temperature > 0,
            element_bytes=dtype.itemsize,
            text_bytes=text_bytes,
        )
        pages = demand.pages(free_bytes(device.device))
        self._pool = PagePool(pages, config.page_tokens, config.max_requests)
        self._admission = Admission(
            self._pool,
            self.max_context_tokens,
            config.longest,
            self.vocabulary,
            demand.page_bytes // config.page_tokens,
        )
        self._locks = {stage: threading.Lock() for stage in Stage}

        # One page more than a request can hold, for padding's few tokens.
        table_width = self._pool.pages_for(demand.context_tokens) + 1
        self._state = new_state(
            config.max_requests,
            config.longest,
            table_width,
            self.vocabulary if config.temperature > 0 else 0,
            device.device,
        )
        caches = [
            paged_cache(
                shape,
                pages,
                config.page_tokens,
                self._state.page_table,
                self._state.lengths,
                dtype,
            )
            for shape in shapes
        ]
        ops = ops or _ops_for(device.device)
        self._block_tokens = ops.block_tokens
        sampler: Sampler = Tempered(config.temperature) if config.temperature else Greedy()
        self._drafter = Drafter()
        if isinstance(draft, Head):
            self._drafter = Eagle3Drafter(draft, caches[1], ops, self._state, sampler)
        elif isinstance(draft, Ngram):
            self._drafter = NgramDrafter(draft, self._state, demand.context_tokens)
        elif draft is not None:
            self._drafter = ModelDrafter(draft, caches[1], ops, self._state, sampler)
        with enough_memory(device.device, "timing matrix products"):
            ops.tune([*matrices(verifier), *self._drafter.matrices()])
        self.executor = GRAPH.with_drafter(self._drafter.kind)
        stages = Stages(verifier, caches[0], self._drafter, ops, self._state, sampler)
        self._stages = tuple(stages.programs())
        self.device = device
        self._runner = self._over(device, stages)

    def _over(self, device: Device, stages: Stages) -> Runner:
        programs = stages.programs()
        if isinstance(device, CpuDevice):
            return DirectRunner(device, stages.admit, programs)
        assert isinstance(device, CudaDevice)
        drafts = 0 if self._drafter.kind is Kind.NONE else self.draft_tokens
        sizes = cuda_sizes(self.config.max_requests, drafts)
        runner = GraphRunner(device, stages.admit, programs, sizes, self.config.graph_bytes)
        padding, lengths = self.config.max_requests, self.config.lengths
        prompts = [
            empty_prefill_work(size, self._block_tokens, padding)
            for size in reversed(sizes.prefill_tokens)
        ]
        # The largest first: smaller graphs then fit into the memory it used.
        batches = tuple(reversed(sizes.batches))
        with enough_memory(device.device, "CUDA graphs"):
            for stage in programs:
                if stage in PREFILLS:
                    runner.capture(stage, prompts)
                elif stage is Stage.DECODE:
                    runner.capture(stage, [round_work([], [], b, padding) for b in batches])
            if self._drafter.programs():
                for length in lengths:
                    checks = [round_work([], [], b, padding, length) for b in batches]
                    runner.capture(Stage.VERIFY, checks)
                for shape in draft_shapes(self._drafter, lengths):
                    steps = [round_work([], [], b, padding, *shape) for b in batches]
                    runner.capture(Stage.DRAFT, steps)
            mixed = [empty_mixed_work(s, self._block_tokens, padding) for s in sizes.mixed]
            runner.capture(Stage.MIXED, mixed[::-1])
        return runner

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
        self._admission.release(request)

    @property
    def draft_lengths(self) -> tuple[int, ...]:
        return self.config.lengths

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """What a round's batch is padded to; empty where it runs at its exact size."""
        return self._runner.sizes.batches

    @property
    def pages(self) -> int:
        """Pages that requests can hold."""
        return self._pool.pages - 1

    @property
    def free_pages(self) -> int:
        return self._admission.free_pages

    def _admit(self, batch: Sequence[Request]) -> Work | None:
        """Reserve for the new ones of `batch`; the device work that enters them."""
        admitted = self._admission.admit(batch)
        if not admitted:
            return None
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
        lengths = self._lengths(batch, draft_tokens)
        if stage is Stage.MIXED:
            if self._drafter.kind is Kind.NONE:
                lengths = [0] * len(batch)
            self._check_mixed(batch, lengths)
        admits = stage in PREFILLS or stage is Stage.MIXED
        prologue = self._admit(batch) if admits else None
        held = self._admission.held(batch)
        drafts = [length for request, length in zip(batch, lengths, strict=True) if request in held]
        program = stage
        if stage is Stage.MIXED and all(request.chunk_tokens for request in held):
            program = Stage.PREFILL_VERIFIER
        work = self._work(program, held, drafts)
        earlier = [ticket.execution for ticket in after if isinstance(ticket, GraphTicket)]
        with self._locks[program]:
            execution = self._runner.run(program, prologue, work, stream, earlier)
        for request, each in held.items():
            each.latest = execution
            if stage in PREFILLS or (stage is Stage.MIXED and request.chunk_tokens):
                each.states = 1
            elif stage is Stage.VERIFY or stage is Stage.MIXED:
                each.states = max(drafts) + 1
        return GraphTicket(stage, batch, execution, list(held), work)

    def _lengths(self, batch: Sequence[Request], drafts: DraftTokens | None) -> list[int]:
        """Each request's number of drafts."""
        given = self.draft_tokens if drafts is None else drafts
        lengths = [given] * len(batch) if isinstance(given, int) else list(given)
        if len(lengths) != len(batch):
            raise InputError(f"{len(lengths)} numbers of drafts for {len(batch)} requests")
        for length in lengths:
            if not 0 <= length <= self.config.longest:
                raise InputError(
                    f"a round of {length} drafts was asked for; this engine drafts up to "
                    f"{self.config.longest}"
                )
        return lengths

    def _work(
        self, stage: Stage, held: Mapping[Request, Held], drafts: Sequence[int]
    ) -> list[Work]:
        padding, sizes = self.config.max_requests, self._runner.sizes
        slots = [each.holding.slot for each in held.values()]
        if stage in PREFILLS:
            pieces = self._pieces(held)
            chunk, block = self.config.chunk_tokens, self._block_tokens
            return list(prefill_work(pieces, chunk, block, padding, sizes))
        if not slots:
            return []
        if stage is Stage.MIXED:
            return [self._mixed_work(held, drafts)]
        size, longest = sizes.batch(len(slots)), max(drafts)
        if stage is Stage.DECODE:
            return [round_work(slots, [], size, padding)]
        if stage is Stage.VERIFY:
            forced = self._forced(list(held), drafts)
            return [round_work(slots, forced, size, padding, longest)]
        states = max(each.states for each in held.values())
        shapes = draft_runs(self._drafter, self.config.lengths, states, longest)
        return [round_work(slots, drafts, size, padding, *shape) for shape in shapes]

    def _pieces(self, held: Mapping[Request, Held]) -> list[Piece]:
        """What is prefilled: whole prompts, or the chunks that requests say; one that goes on
        later comes last."""
        pieces = []
        for request, each in held.items():
            prompt, chunk = self._prompt(request), request.chunk_tokens
            begin, end = request.prefilled_tokens, request.prefilled_tokens + chunk
            if not chunk:
                begin, end = 0, len(prompt)
            pieces.append(Piece(each.holding.slot, prompt, begin, end))
        return sorted(pieces, key=lambda piece: piece.end < len(piece.tokens))

    def _check_mixed(self, batch: Sequence[Request], lengths: Sequence[int]) -> None:
        """Refuse, before anyone is admitted, what cannot be launched."""
        rounds = [
            (request, length)
            for request, length in zip(batch, lengths, strict=True)
            if not (request.chunk_tokens or request.finished)
        ]
        self._forced([request for request, _ in rounds], [length for _, length in rounds])
        behind = [r for r in batch if r.chunk_tokens and not _ends(r)]
        if len(behind) > 1:
            raise InputError(
                f"{len(behind)} prompts would end behind this pass; only one may be cut by it"
            )
        new = sum(length + 1 for _, length in rounds)
        new += sum(request.chunk_tokens for request in batch)
        if new > self.config.chunk_tokens:
            raise InputError(
                f"a mixed pass of {new} tokens was asked for; this engine takes "
                f"{self.config.chunk_tokens} in one pass"
            )

    def _mixed_work(self, held: Mapping[Request, Held], drafts: Sequence[int]) -> Work:
        prompts = {request: each for request, each in held.items() if request.chunk_tokens}
        rounds = [request for request in held if not request.chunk_tokens]
        lengths = dict(zip(held, drafts, strict=True))
        longest = max([lengths[request] for request in rounds], default=0)
        return mixed_work(
            self._pieces(prompts),
            [held[request].holding.slot for request in rounds],
            self._forced(rounds, [lengths[request] for request in rounds]),
            longest,
            self._block_tokens,
            self.config.max_requests,
            self._runner.sizes,
        )

    def _prompt(self, request: Request) -> Sequence[int]:
        """What to prefill: after a pre-emption also the tokens there were."""
        return [*self.prompts.of(request), *request.tokens]

    def _forced(self, served: Sequence[Request], drafts: Sequence[int]) -> list[int]:
        """Injected accepted drafts of the coming round, -1 where tokens are compared."""
        forced, longest = [], self.config.longest
        if self._drafter.kind is Kind.NONE:
            return [-1] * len(served)
        for request, length in zip(served, drafts, strict=True):
            outcomes, done = request.outcomes, request.rounds
            if not outcomes:
                forced.append(-1)
            elif done < len(outcomes) and 0 <= outcomes[done] <= longest:
                forced.append(min(outcomes[done], length))
            else:
                raise RequestError(
                    request, f"has no outcome from 0 to {longest} for its round {done + 1}"
                )
        return forced

    def settle(self, ticket: Ticket) -> Sequence[int] | None:
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
            begun = [request for request in served if _ends(request)]
        rows, first = rows[: len(checked)], rows[len(checked) :]
        for request, (token, *_) in zip(begun, first, strict=True):
            _append(request, [token])
        if stage in (Stage.DECODE, Stage.PREFILL_VERIFIER):
            return None
        accepted = dict.fromkeys(ticket.batch, 0)
        for request, (kept, *tokens) in zip(checked, rows, strict=True):
            accepted[request] = kept
            _append(request, tokens[: kept + 1])
        if all(request.outcomes for request in ticket.batch):
            return None
        return list(accepted.values())


def _ends(request: Request) -> bool:
    """Whether its prompt ends in the mixed pass that it is in."""
    chunk = request.chunk_tokens
    return chunk > 0 and request.prefilled_tokens + chunk == request.prompt_tokens


def _append(request: Request, tokens: Sequence[int]) -> None:
    room = request.output_tokens - len(request.tokens)
    request.tokens.extend(tokens[: max(0, room)])


def _request_key(seed: int, request_id: int) -> int:
    """A random int64 for a request of a run."""
    words = numpy.random.SeedSequence((seed, request_id)).generate_state(1, numpy.uint64)
    return int(words.view(numpy.int64)[0])


def _ops_for(device: torch.device) -> Ops:
    if device.type != "cuda":
        return TorchOps()
    from realengine.graph.triton_ops import TritonOps

    return TritonOps(torch.cuda.get_device_properties(device).multi_processor_count)
