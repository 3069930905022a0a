"""Runs in which things go wrong: requests are cancelled, fail, find no pages or no memory.

No test framework is needed, so that `benchmarks/engine_faults.py` does the same on a GPU.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pdvsim.architectures import Config, architecture
from pdvsim.core import GRAPH, DraftTokens, Executor, Request, Stage, Stream, settle
from pdvsim.drafters import head_for
from pdvsim.invariants import check
from pdvsim.models import ModelShape
from pdvsim.workload import Workload
from realengine.device import CpuDevice, CudaDevice, Device, Execution
from realengine.engine import Engine, RequestError, Ticket
from realengine.graph import GraphConfig, GraphEngine, OutOfPages
from realengine.graph.head_weights import random_head
from realengine.graph.ngram import Ngram
from realengine.graph.weights import random_weights
from realengine.world import RealWorld

# Heads of 32, which the GPU's kernels need; few tokens, so that n-grams are found.
SHAPE = ModelShape("faults", 2, 128, 4, 2, 256, 32, 256)
CHANGING = str(Path(__file__).parent / "changing.py")
DRAFTERS = ("model", "eagle3", "ngram", "none")
COUNT, IN_FLIGHT, DRAFTS = 20, 5, 4
KINDS = ("request", "pages", "memory", "odd")


@dataclass
class Faults:
    """Which launches and settlements go wrong, and who is cancelled; drawn with a seed.

    Attributes:
        chance: of a fault at a launch, at its end and on the device; of a cancellation.
        seen: how often each kind came to pass.
    """

    seed: int
    chance: float = 0.015

    def __post_init__(self) -> None:
        self.rng, self.lock = random.Random(self.seed), threading.Lock()
        self.seen: Counter[str] = Counter()
        self.on = False

    def strikes(self, what: str) -> str | None:
        """The kind of fault now, if any."""
        with self.lock:
            if not self.on or self.rng.random() >= self.chance:
                return None
            kind = self.rng.choice(KINDS)
            self.seen[f"{what}: {kind}"] += 1
            return kind

    def cancel(self, batch: Sequence[Request]) -> None:
        """As a caller who no longer wants an answer."""
        with self.lock:
            if self.on and self.rng.random() < self.chance:
                self.rng.choice(batch).cancelled = True
                self.seen["cancelled"] += 1

    def fail(self, what: str, batch: Sequence[Request]) -> None:
        kind = self.strikes(what)
        if kind == "request":
            raise RequestError(self.rng.choice(batch), "is at fault")
        if kind == "pages":
            raise OutOfPages("no pages left")
        if kind == "memory":
            raise torch.OutOfMemoryError("no memory left")
        if kind == "odd":
            raise ValueError("odd")


class Failing:
    """An engine under faults, before a launch and at its end."""

    def __init__(self, engine: Any, faults: Faults) -> None:
        self._engine, self._faults = engine, faults
        self.released: Counter[int] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def launch(
        self,
        stage: Stage,
        batch: Sequence[Request],
        stream: Stream,
        after: Sequence[Ticket],
        draft_tokens: DraftTokens | None = None,
    ) -> Any:
        assert batch and len({request.id for request in batch}) == len(batch)
        self._faults.cancel(batch)
        self._faults.fail(f"launch of {stage}", batch)
        return self._engine.launch(stage, batch, stream, after, draft_tokens)

    def settle(self, ticket: Ticket) -> Any:
        found = self._engine.settle(ticket)
        self._faults.fail(f"end of {ticket.stage}", ticket.batch)
        return found

    def release(self, request: Request) -> None:
        self.released[request.id] += 1
        self._engine.release(request)


class Short:
    """Mixed into a device: it runs out of memory before or behind work that it was given.

    Attributes:
        faults: of the run that goes on.
    """

    faults = Faults(0)

    def run(
        self, what: str, stream: Stream, after: Sequence[Execution], work: Callable[[], Any]
    ) -> Execution:
        struck = self.faults.strikes("device")

        def short() -> Any:
            if struck in ("pages", "memory"):
                raise torch.OutOfMemoryError("no memory left")
            result = work()
            if struck is not None:
                raise torch.OutOfMemoryError("no memory left, halfway through")
            return result

        found: Execution = super().run(what, stream, after, short)  # type: ignore[misc]
        return found


class ShortCpu(Short, CpuDevice):
    pass


class ShortCuda(Short, CudaDevice):
    pass


def graph_engine(drafter: str, device: Device, requests: int = 2 * IN_FLIGHT) -> GraphEngine:
    """A small float32 engine; on a GPU with graphs."""
    where = device.device
    verifier = random_weights(SHAPE, where, torch.float32)
    verifier = replace(verifier, head=verifier.head * 8)
    draft: Any = None
    if drafter == "model":
        draft = replace(verifier, norm=verifier.norm * 0.9)
    elif drafter == "eagle3":
        draft = random_head(head_for(SHAPE, SHAPE.vocabulary), verifier, where, torch.float32)
    elif drafter == "ngram":
        draft = Ngram()
    config = GraphConfig(
        DRAFTS, requests, 128, 4, chunk_tokens=64, draft_lengths=tuple(range(DRAFTS))
    )
    return GraphEngine(config, verifier, draft, device)


def plan(seed: int) -> Workload:
    """Requests whose tokens are compared."""
    rng = random.Random(seed)
    prompts = [rng.randint(1, 40) for _ in range(COUNT)]
    outputs = [rng.randint(1, 24) for _ in range(COUNT)]
    return Workload("closed-loop", prompts, outputs, [()] * COUNT, in_flight=IN_FLIGHT)


def run_with_faults(
    engine: Any, executor: Executor, name: str, seed: int, faults: Faults
) -> tuple[RealWorld, Failing]:
    """One run of a closed loop; a run in which every request fails ends as the first of them."""
    parameters = architecture(name).own({"prefill_batch": 2, "workers": 2, "token_budget": 24})
    config = Config(name, executor, 4, DRAFTS, parameters)
    failing: Engine = Failing(engine, faults)  # type: ignore[assignment]
    world = RealWorld(config, plan(seed), failing, stuck_s=20.0)
    faults.on = True
    record = world.run()
    faults.on = False
    check(record)
    return world, failing  # type: ignore[return-value]


def check_ends(world: RealWorld, failing: Failing) -> dict[str, Any]:
    """Every request ended once and was released; those that failed say why. Returns counts."""
    requests = world.source.released_requests
    assert len(requests) == world.lanes.completed == COUNT and not world.lanes.active
    for request in requests:
        failed = request.id in world.failures.errors
        short = request.produced_tokens < request.output_tokens
        assert short == request.cancelled or not short, request
        assert (request.failed_s is not None) == (failed or short), request
        assert (request.completed_s is None) == (request.failed_s is not None), request
        assert failed or len(request.tokens) == request.produced_tokens, request
        assert failing.released[request.id] == 1, request
    failed = len(world.failures)
    cancelled = sum(request.cancelled for request in requests) - failed
    return {"failed": failed, "cancelled": cancelled, "whole": COUNT - failed - cancelled}


def alone(plain: GraphEngine, seed: int) -> list[list[int]]:
    """What the verifier itself says to each request of a plan."""
    outputs = []
    for served in plan(seed).requests():
        stages: Sequence[Stage] = GRAPH.plain_prefill
        while not served.finished:
            for stage in stages:
                ticket = plain.launch(stage, [served], Stream.MAIN, [])
                ticket.wait()
                settle(plain.executor, stage, [served], 0, 0.0, plain.settle(ticket))
            stages = [Stage.DECODE]
        plain.release(served)
        outputs.append(served.tokens)
    return outputs


def alike(requests: Sequence[Request], outputs: Sequence[Sequence[int]]) -> int:
    """How many requests have the tokens of `outputs`, or, of those cut short, begin with them."""
    return sum(
        request.tokens == list(output)[: len(request.tokens)]
        for request, output in zip(requests, outputs, strict=True)
    )
