"""Opens an engine: device, weights, executor."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pdvsim.core import EAGER, Executor, check_drafter
from pdvsim.kv_cache import KvCache
from pdvsim.models import FoundModel, Pair
from realengine.checkpoint import check_context, runnable_draft
from realengine.device import open_device, torch_device
from realengine.eager import EagerEngine
from realengine.engine import Engine
from realengine.models import LoadedPair, load_pair
from realengine.prompts import Prompts, prompts_for
from realengine.tokenizer import Tokenized


@dataclass(frozen=True, slots=True)
class Demand:
    """What a run asks of its engine.

    Attributes:
        draft_tokens: drafted tokens per round; an eager engine drafts any number up to these.
        requests: in service at once.
        context_tokens: longest prompt plus output of one request.
        cache_tokens: size of a paged KV cache; None takes what the above need, or what fits.
        seed: of random weights and made-up prompts.
        temperature: of sampling by the graph executor; 0 is greedy.
        draft_lengths: other numbers of drafts that rounds of the graph executor may have.
    """

    draft_tokens: int
    requests: int
    context_tokens: int
    cache_tokens: int | None = None
    seed: int = 0
    temperature: float = 0.0
    draft_lengths: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """An engine and what it stands on.

    Attributes:
        prompts: of requests that bring none.
    """

    engine: Engine
    pair: Pair
    device: torch.device
    prompts: Prompts
    loaded: LoadedPair | None = None

    @property
    def kv_cache(self) -> KvCache | None:
        """Of an engine that has pages."""
        return getattr(self.engine, "kv_cache", None)

    def sibling(self) -> Engine:
        """A second eager engine over the same weights, sharing no request with the first."""
        assert self.loaded is not None
        return _over(self.loaded, self.prompts, str(self.device), self.engine.draft_tokens)


def open_engine(
    reference: str,
    executor: Executor,
    device_name: str,
    demand: Demand,
    given: Tokenized | None = None,
) -> Opened:
    """Build or load the pair on the device and put the executor's engine over it.

    Args:
        reference: of a pair; see `pdvsim.models`. Shapes without a checkpoint get random weights.
        given: prompts of requests that bring none.

    Raises:
        InputError: unknown pair, damaged checkpoint, or a context that it does not have.
        CapacityError: no such device, or not enough memory.
    """
    draft, verifier = runnable_draft(reference)
    pair, device = Pair(draft.shape, verifier.shape), torch_device(device_name)
    check_drafter(executor, pair.drafter)
    check_context(pair.decoders, demand.context_tokens)
    if executor is EAGER:
        assert isinstance(draft, FoundModel)
        cache_tokens = demand.requests * (demand.context_tokens + demand.draft_tokens)
        loaded = load_pair(draft, verifier, device, cache_tokens, demand.seed)
        prompts = prompts_for(verifier, loaded.vocabulary, demand.seed, given)
        eager = _over(loaded, prompts, device_name, demand.draft_tokens)
        return Opened(eager, pair, device, prompts, loaded)
    from realengine.graph import GraphConfig
    from realengine.graph.build import engine_of

    config = GraphConfig(
        draft_tokens=demand.draft_tokens,
        max_requests=demand.requests,
        max_context_tokens=demand.context_tokens,
        cache_tokens=demand.cache_tokens,
        temperature=demand.temperature,
        seed=demand.seed,
        draft_lengths=demand.draft_lengths,
    )
    engine = engine_of(draft, verifier, config, device_name, given=given)
    return Opened(engine, pair, device, engine.prompts)


def _over(loaded: LoadedPair, prompts: Prompts, device_name: str, draft_tokens: int) -> EagerEngine:
    device = open_device(device_name)
    return EagerEngine(loaded.draft, loaded.verifier, device, prompts, draft_tokens)
