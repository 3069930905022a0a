"""Opens an engine: device, weights, executor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pdvsim.core import EAGER, Executor
from realengine.device import open_device
from realengine.eager import EagerEngine
from realengine.engine import Engine
from realengine.models import LoadedPair, load_pair


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """An engine and what it stands on."""

    engine: Engine
    loaded: LoadedPair
    device: torch.device
    _open: Callable[[], Engine]

    def sibling(self) -> Engine:
        """A second engine over the same weights, sharing no request with the first."""
        return self._open()


def open_engine(
    pair_name: str,
    executor: Executor,
    device_name: str,
    draft_tokens: int,
    cache_tokens: int,
    seed: int,
) -> Opened:
    """Build or load the pair on the device and put the executor's engine over it.

    Args:
        cache_tokens: KV cache tokens of all requests in flight together.

    Raises:
        InputError: unknown pair or damaged checkpoint.
        CapacityError: no such device, or not enough memory.
    """
    device = open_device(device_name)
    loaded = load_pair(pair_name, device.device, cache_tokens, seed)
    assert executor is EAGER

    def build() -> Engine:
        return EagerEngine(loaded.draft, loaded.verifier, device, draft_tokens, seed)

    return Opened(build(), loaded, device.device, build)
