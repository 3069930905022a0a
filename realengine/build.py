"""Opens an engine: device, weights, executor."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pdvsim.core import EAGER, Executor
from pdvsim.errors import InputError
from pdvsim.models import Pair
from realengine import toy
from realengine.device import open_device
from realengine.eager import EagerEngine
from realengine.engine import Engine
from realengine.models import LoadedPair, describe, load_pair


@dataclass(frozen=True, slots=True)
class Demand:
    """What a run asks of its engine.

    Attributes:
        draft_tokens: drafted tokens per round.
        requests: in service at once.
        context_tokens: longest prompt plus output of one request.
        cache_tokens: size of a paged KV cache; None takes what the above need, or what fits.
        seed: of random weights and made-up prompts.
    """

    draft_tokens: int
    requests: int
    context_tokens: int
    cache_tokens: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """An engine and what it stands on."""

    engine: Engine
    pair_name: str
    device: torch.device
    loaded: LoadedPair | None = None

    def sibling(self) -> Engine:
        """A second eager engine over the same weights, sharing no request with the first."""
        assert self.loaded is not None
        return _eager(self.loaded, str(self.device), self.engine.draft_tokens, seed=0)


def describe_pair(pair_name: str) -> Pair:
    """The shapes behind a pair's name: shape names, checkpoint directories, or `toy`.

    Raises:
        InputError: no such pair.
    """
    names = f"{toy.DRAFT}:{toy.VERIFIER}" if pair_name == "toy" else pair_name
    draft, colon, verifier = names.partition(":")
    if not colon or not draft or not verifier:
        raise InputError(
            "a pair is written DRAFT:VERIFIER, for example tinyllama-1.1b:llama-2-7b, or toy; "
            f"got {pair_name!r}"
        )
    return Pair(describe(draft), describe(verifier))


def open_engine(pair_name: str, executor: Executor, device_name: str, demand: Demand) -> Opened:
    """Build or load the pair on the device and put the executor's engine over it.

    Args:
        pair_name: `DRAFT:VERIFIER` of shape names or checkpoint directories, or `toy`.

    Raises:
        InputError: unknown pair or damaged checkpoint.
        CapacityError: no such device, or not enough memory.
    """
    if executor is EAGER:
        return _open_eager(pair_name, device_name, demand)
    from realengine.graph import GraphConfig, build_engine

    config = GraphConfig(
        draft_tokens=demand.draft_tokens,
        max_requests=demand.requests,
        max_context_tokens=demand.context_tokens,
        cache_tokens=demand.cache_tokens,
        seed=demand.seed,
    )
    engine = build_engine(pair_name, config, device_name)
    return Opened(engine, pair_name, torch.device(device_name))


def _open_eager(pair_name: str, device_name: str, demand: Demand) -> Opened:
    device = open_device(device_name)
    names = f"{toy.DRAFT}:{toy.VERIFIER}" if pair_name == "toy" else pair_name
    cache_tokens = demand.requests * (demand.context_tokens + demand.draft_tokens)
    loaded = load_pair(names, device.device, cache_tokens, demand.seed)
    engine = EagerEngine(loaded.draft, loaded.verifier, device, demand.draft_tokens, demand.seed)
    return Opened(engine, pair_name, device.device, loaded)


def _eager(loaded: LoadedPair, device_name: str, draft_tokens: int, seed: int) -> EagerEngine:
    device = open_device(device_name)
    device.align()
    return EagerEngine(loaded.draft, loaded.verifier, device, draft_tokens, seed)
