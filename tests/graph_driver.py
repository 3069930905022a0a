"""Small models, and loops that drive a graph engine without lanes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import fields, replace

import torch

from pdvsim.core import GRAPH, DraftTokens, Request, Stage, Stream, settle
from pdvsim.models import ModelShape
from realengine.device import CpuDevice
from realengine.graph import GraphConfig, GraphEngine
from realengine.graph.eagle3 import Head
from realengine.graph.model import Layer, Weights
from realengine.graph.ngram import Ngram
from realengine.graph.ops import TorchOps
from realengine.graph.plan import Sizes
from realengine.graph.weights import random_weights
from realengine.prompts import Prompts

CPU = torch.device("cpu")
SHAPE = ModelShape("test", 2, 32, 4, 2, 48, 64, 128)
PADDED = Sizes((3, 6, 9), (16, 64), ((16, 3, 3), (40, 6, 3), (40, 6, 0)))
ROUND = GRAPH.speculate + GRAPH.check


class ShortBlocks(TorchOps):
    """Cuts prompts into blocks as short as the GPU kernels' would be for these models."""

    block_tokens = 7


def verifier_weights(shape: ModelShape = SHAPE, sharpness: float = 1.0) -> Weights:
    """Random weights; `sharpness` scales the logits."""
    weights = random_weights(shape, CPU, torch.float32)
    return replace(weights, head=weights.head * sharpness)


def similar_draft(weights: Weights, noise: float) -> Weights:
    """A draft that agrees with `weights` often (small `noise`) or hardly ever."""
    generator = torch.Generator().manual_seed(1)

    def shaken(x: torch.Tensor | None) -> torch.Tensor | None:
        return None if x is None else x + noise * 0.02 * torch.randn(x.shape, generator=generator)

    layers = tuple(
        Layer(*(shaken(getattr(layer, field.name)) for field in fields(Layer)))
        for layer in weights.layers
    )
    return replace(weights, layers=layers, head=shaken(weights.head))


def engine(
    config: GraphConfig,
    verifier: Weights,
    draft: Weights | Head | Ngram | None,
    prompts: Prompts | None = None,
    sizes: Sizes | None = None,
) -> GraphEngine:
    """`sizes`: pads batches and prompts, as for CUDA graphs."""
    served = GraphEngine(config, verifier, draft, CpuDevice(), ShortBlocks(), prompts)
    served._runner.sizes = sizes or Sizes()
    return served


def run(
    engine: GraphEngine,
    stages: Sequence[Stage],
    batch: Sequence[Request],
    draft_tokens: DraftTokens | None = None,
) -> None:
    """Launch `stages` in a chain for `batch` and settle the last."""
    tickets = []
    for stage in stages:
        tickets.append(engine.launch(stage, batch, Stream.MAIN, tickets[-1:], draft_tokens))
    tickets[-1].wait()
    accepted = engine.settle(tickets[-1])
    drafted = engine.draft_tokens if draft_tokens is None else draft_tokens
    settle(GRAPH, tickets[-1].stage, batch, drafted, 0.0, accepted)


def serve(engine: GraphEngine, requests: Sequence[Request], plain: bool = False) -> None:
    """Serve `requests` together, without waiting lines."""
    run(engine, GRAPH.plain_prefill if plain else engine.executor.prefill, requests)
    while alive := [request for request in requests if not request.finished]:
        run(engine, (Stage.DECODE,) if plain else ROUND, alive)
    for request in requests:
        engine.release(request)


def serve_at_random(
    engine: GraphEngine, requests: Sequence[Request], rng: random.Random, preempt: bool = True
) -> None:
    """Serve `requests` in an arbitrary order of arrivals, batches, pre-emptions, cancellations:
    whatever an architecture could do."""
    waiting, active = list(requests), list[Request]()
    while waiting or active:
        action = rng.random()
        arriving = rng.sample(waiting, rng.randint(1, min(3, len(waiting)))) if waiting else []
        if arriving and engine.can_admit(*arriving) and (action < 0.3 or not active):
            waiting = [request for request in waiting if request not in arriving]
            run(engine, engine.executor.prefill, arriving)
            active += arriving
        elif preempt and active and action < 0.4:
            request = active.pop(rng.randrange(len(active)))
            engine.release(request)
            waiting.append(request)
        elif active:
            run(engine, ROUND, rng.sample(active, rng.randint(1, len(active))))
        for request in [request for request in active if request.finished]:
            engine.release(request)
            active.remove(request)
