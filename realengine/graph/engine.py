"""The `graph` engine: admits requests to pages, launches batched stages, hands tokens back."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch

from pdvsim.core import GRAPH, PREFILLS, DraftTokens, Request, Stage, Stream
from pdvsim.errors import InputError
from realengine.checkpoint import check_context
from realengine.device import CpuDevice, CudaDevice, Device, Execution, enough_memory, free_bytes
from realengine.engine import Ticket
from realengine.graph.admission import Admission
from realengine.graph.memory import Demand
from realengine.graph.model import Weights
from realengine.graph.ops import Ops, TorchOps
from realengine.graph.paged import PagePool, paged_cache
from realengine.graph.plan import (
    Values,
    Work,
    admit_work,
    cuda_sizes,
    empty_prefill_work,
    prefill_work,
    round_work,
)
from realengine.graph.runner import DirectRunner, GraphRunner, Runner
from realengine.graph.sampling import Greedy, Sampler, Tempered
from realengine.graph.stages import Stages
from realengine.graph.state import new_state
from realengine.prompts import Prompts


@dataclass(frozen=True, slots=True)
class GraphConfig:
    """How a graph engine is sized, and how it chooses tokens.

    Attributes:
        draft_tokens: g, drafted tokens per round, 1 to 16.
        max_requests: requests that hold pages at once.
        max_context_tokens: longest prompt plus output; None takes what both models allow.
        cache_tokens: size of the KV cache; None takes what `max_requests` requests of
            `max_context_tokens` need, or as much of that as fits.
        chunk_tokens: most prompt tokens in one forward pass.
        temperature: 0 is greedy.
        seed: of the requests' random keys; a request's tokens depend on it and the request's id.
    """

    draft_tokens: int = 4
    max_requests: int = 64
    max_context_tokens: int | None = None
    page_tokens: int = 16
    cache_tokens: int | None = None
    chunk_tokens: int = 8192
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("draft_tokens", 1, 16),
            ("max_requests", 1, 4096),
            ("page_tokens", 1, 1024),
            ("chunk_tokens", 1, 1 << 20),
            ("temperature", 0, 100),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} is {value}; it must be between {low} and {high}")


@dataclass(slots=True, eq=False)
class GraphTicket:
    """A launched stage. `served` says which requests of the batch have a row in the results."""

    stage: Stage
    batch: Sequence[Request]
    execution: Execution
    served: Sequence[Request]
    rows: Sequence[int]

    def done(self) -> bool:
        return self.execution.done()

    def wait(self) -> None:
        self.execution.wait()

    def device_span_s(self) -> tuple[float, float]:
        return self.execution.span_s()

    def results(self) -> Values:
        """The result rows of `served`, `[requests, .]`."""
        parts = self.execution.result
        kept = [part[:rows] for part, rows in zip(parts, self.rows, strict=True)]
        return kept[0] if len(kept) == 1 else numpy.concatenate(kept)


class GraphEngine:
    """Implements `realengine.engine.Engine` for the executor `pdvsim.core.GRAPH`.

    A request is admitted by its first prefill stage: it then reserves a slot and pages for all
    the tokens it can come to. `launch` raises `OutOfPages` when there is no room, having changed
    nothing; `can_admit` asks first. A request that was released may be prefilled again: its prompt
    then is the old one and the tokens it had, so pre-empting loses time only.
    """

    executor = GRAPH

    def __init__(
        self,
        config: GraphConfig,
        verifier: Weights,
        draft: Weights | None,
        device: Device,
        ops: Ops | None = None,
        prompts: Prompts | None = None,
    ) -> None:
        """
        Args:
            draft: None for an engine that only decodes.
            ops: the kernels to run on; chosen by `device` if not given.
            prompts: of requests that bring none; random tokens of the verifier's if not given.

        Raises:
            InputError: a context that the models do not have.
            CapacityError: the KV cache does not fit.
        """
        models = [verifier] if draft is None else [verifier, draft]
        self.config = config
        self.draft_tokens = config.draft_tokens
        self.vocabulary = min(len(model.head) for model in models)
        self.prompts = prompts or Prompts(self.vocabulary, config.seed)
        longest = min(model.shape.longest_context_tokens for model in models)
        self.max_context_tokens = config.max_context_tokens or longest
        check_context([model.shape for model in models], self.max_context_tokens)
        dtype = verifier.embedding.dtype
        demand = Demand(
            models=[model.shape for model in models],
            requests=config.max_requests,
            context_tokens=self.max_context_tokens + config.draft_tokens,
            cache_tokens=config.cache_tokens,
            page_tokens=config.page_tokens,
            chunk_tokens=config.chunk_tokens,
            round_tokens=config.draft_tokens + 1,
            tempered=config.temperature > 0,
            element_bytes=dtype.itemsize,
        )
        on_gpu = device.device.type == "cuda"
        pages = demand.pages(free_bytes(device.device), on_gpu)
        self._pool = PagePool(pages, config.page_tokens, config.max_requests)
        self._admission = Admission(
            self._pool, self.max_context_tokens, config.draft_tokens, self.vocabulary
        )
        self._locks = {stage: threading.Lock() for stage in Stage}

        # One page more than a request can hold, for padding's few tokens.
        table_width = self._pool.pages_for(demand.context_tokens) + 1
        self._state = new_state(
            config.max_requests,
            config.draft_tokens,
            table_width,
            self.vocabulary if config.temperature > 0 else 0,
            device.device,
        )
        caches = [
            paged_cache(
                model.shape,
                pages,
                config.page_tokens,
                self._state.page_table,
                self._state.lengths,
                dtype,
            )
            for model in models
        ]
        ops = ops or _ops_for(device.device, models)
        self._block_tokens = ops.block_tokens
        sampler: Sampler = Tempered(config.temperature) if config.temperature else Greedy()
        stages = Stages(
            verifier,
            caches[0],
            draft,
            caches[1] if draft is not None else None,
            ops,
            self._state,
            sampler,
            config.draft_tokens,
        )
        self._stages = tuple(stages.programs())
        self.device = device
        self._runner = self._over(device, stages)

    def _over(self, device: Device, stages: Stages) -> Runner:
        programs = stages.programs()
        if isinstance(device, CpuDevice):
            return DirectRunner(device, stages.admit, programs)
        assert isinstance(device, CudaDevice)
        sizes = cuda_sizes(self.config.max_requests)
        runner = GraphRunner(device, stages.admit, programs, sizes)
        padding = self.config.max_requests
        # The largest first: smaller graphs then fit into the memory it used.
        rounds = [round_work([], [], size, padding) for size in reversed(sizes.batches)]
        prompts = [
            empty_prefill_work(size, self._block_tokens, padding)
            for size in reversed(sizes.prefill_tokens)
        ]
        with enough_memory(device.device, "CUDA graphs"):
            for stage in programs:
                runner.capture(stage, prompts if stage in PREFILLS else rounds)
        return runner

    def check(self, request: Request) -> None:
        """Raise `InputError` if `request` can never be served."""
        self._admission.check(request)

    def can_admit(self, *requests: Request) -> bool:
        """Whether `requests` hold pages already, or all of them could now."""
        return self._admission.fits(requests)

    def release(self, request: Request) -> None:
        """Free what `request` holds, once the device is done with it. Twice is harmless."""
        self._admission.release(request)

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
        if draft_tokens not in (None, self.draft_tokens):
            raise InputError(f"this engine drafts {self.draft_tokens} tokens a round")
        if stage not in self._stages:
            raise InputError(f"this engine does not run {stage}: it has {', '.join(self._stages)}")
        prologue = self._admit(batch) if stage in PREFILLS else None
        held = self._admission.held(batch)
        served, slots = list(held), [each.holding.slot for each in held.values()]
        work = self._work(stage, served, slots)
        earlier = [ticket.execution for ticket in after if isinstance(ticket, GraphTicket)]
        with self._locks[stage]:
            execution = self._runner.run(stage, prologue, work, stream, earlier)
        for each in held.values():
            each.latest = execution
        return GraphTicket(stage, batch, execution, served, [item.rows for item in work])

    def _work(self, stage: Stage, served: Sequence[Request], slots: Sequence[int]) -> list[Work]:
        padding, sizes = self.config.max_requests, self._runner.sizes
        if stage in PREFILLS:
            prompts = [
                (slot, self._prompt(request)) for slot, request in zip(slots, served, strict=True)
            ]
            chunk, block = self.config.chunk_tokens, self._block_tokens
            return list(prefill_work(prompts, chunk, block, padding, sizes))
        forced = self._forced(served) if stage is Stage.VERIFY else []
        size = sizes.batch(len(slots))
        return [round_work(slots, forced, size, padding)] if slots else []

    def _prompt(self, request: Request) -> Sequence[int]:
        """What to prefill: after a pre-emption also the tokens there were."""
        return [*self.prompts.of(request), *request.tokens]

    def _forced(self, served: Sequence[Request]) -> list[int]:
        """Injected accepted drafts of the coming round, -1 where tokens are compared."""
        forced = []
        for request in served:
            outcomes, done = request.outcomes, request.rounds
            if not outcomes:
                forced.append(-1)
            elif done < len(outcomes) and 0 <= outcomes[done] <= self.draft_tokens:
                forced.append(outcomes[done])
            else:
                raise InputError(
                    f"request {request.id} has no outcome from 0 to {self.draft_tokens} "
                    f"for its round {done + 1}"
                )
        return forced

    def settle(self, ticket: Ticket) -> Sequence[int] | None:
        """Append the ticket's tokens to its requests; see `Engine.settle`."""
        assert isinstance(ticket, GraphTicket)
        if ticket.stage not in (Stage.VERIFY, Stage.DECODE, Stage.PREFILL_VERIFIER):
            return None
        rows = ticket.results().tolist() if ticket.served else []
        if ticket.stage is not Stage.VERIFY:
            for request, (token,) in zip(ticket.served, rows, strict=True):
                _append(request, [token])
            return None
        accepted = dict.fromkeys(ticket.batch, 0)
        for request, (kept, *tokens) in zip(ticket.served, rows, strict=True):
            accepted[request] = kept
            _append(request, tokens[: kept + 1])
        if all(request.outcomes for request in ticket.batch):
            return None
        return list(accepted.values())


def _append(request: Request, tokens: Sequence[int]) -> None:
    room = request.output_tokens - len(request.tokens)
    request.tokens.extend(tokens[: max(0, room)])


def _request_key(seed: int, request_id: int) -> int:
    """A random int64 for a request of a run."""
    words = numpy.random.SeedSequence((seed, request_id)).generate_state(1, numpy.uint64)
    return int(words.view(numpy.int64)[0])


def _ops_for(device: torch.device, models: Sequence[Weights]) -> Ops:
    if device.type != "cuda":
        return TorchOps()
    from realengine.graph.triton_ops import TritonOps, check_head_size

    for model in models:
        check_head_size(model.shape.head_size)
    return TritonOps(torch.cuda.get_device_properties(device).multi_processor_count)
