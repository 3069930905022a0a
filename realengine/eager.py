"""The eager executor: one request after the other, Hugging Face forward passes, own KV caches.

This is how the published systems run. A round for one request is one draft forward less than it
drafts (the first draft comes from kept logits), one verifier forward over the drafts,
and one forward of each model over the tokens that the round yields, which brings both caches and
the kept last logits up to date. Between stages both caches hold exactly the prompt and the tokens
produced so far. A round without drafts needs no forward before those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from pdvsim.core import EAGER, Checked, DraftTokens, Request, Stage, Stream
from realengine.device import Device, Execution
from realengine.engine import RequestError, Ticket
from realengine.prompts import Prompts


class _Side:
    """One model's view of one request.

    Attributes:
        keyword: what the model calls its cache, which transformers has renamed.
        logits: of the last token, shape (1, 1, vocabulary).
        stream: where the last stage that touched the cache ran.
    """

    __slots__ = ("cache", "keyword", "logits", "model", "stream", "vocabulary")

    def __init__(
        self, model: PreTrainedModel, vocabulary: int, prompt: Tensor, stream: Stream
    ) -> None:
        self.model = model
        self.vocabulary = vocabulary
        self.cache: Any = DynamicCache()
        names = signature(type(model).forward).parameters
        self.keyword = "cache" if "cache" in names else "past_key_values"
        self.stream = stream
        self.advance(prompt)

    def forward(self, tokens: Tensor, keep_logits: int) -> Tensor:
        """Append `tokens`, shape (1, n), to the cache; logits of the last `keep_logits`."""
        output = self.model(
            input_ids=tokens,
            use_cache=True,
            logits_to_keep=keep_logits,
            **{self.keyword: self.cache},
        )
        logits: Tensor = output.logits
        return logits[..., : self.vocabulary]

    def advance(self, tokens: Tensor) -> None:
        """Append `tokens` and keep the logits of the last one."""
        self.logits = self.forward(tokens, 1)

    def forget(self, tokens: int) -> None:
        """Take the newest `tokens` out of the cache."""
        if tokens > 0:
            self.cache.crop(-tokens)

    def move_to(self, stream: Stream) -> Any:
        """Work goes on on `stream`. Returns what must outlive that work: the allocator would hand
        memory that belongs to another stream back to that stream while `stream` still reads it."""
        if stream is self.stream:
            return None
        self.stream = stream
        return [(layer.keys, layer.values) for layer in self.cache.layers], self.logits


class _State:
    """What the engine holds for one request between its stages."""

    __slots__ = ("accepted", "draft", "drafts", "predicted", "tokens", "verifier")

    draft: _Side
    verifier: _Side
    drafts: list[int]  # of this round
    predicted: Tensor  # what the verifier says in place of each draft; shape (1, drafts or 1)
    accepted: int
    tokens: list[int]  # that this round yields


@dataclass(slots=True, eq=False)
class EagerTicket:
    """A launched stage."""

    stage: Stage
    batch: Sequence[Request]
    execution: Execution

    def wait(self) -> None:
        self.execution.wait()
        self.execution.result = None  # what had to outlive the work

    @property
    def served(self) -> Sequence[Request]:
        return self.batch

    def device_span_s(self) -> tuple[float, float]:
        return self.execution.span_s()


class EagerEngine:
    """Greedy speculative decoding of one request at a time. See `realengine.engine.Engine`."""

    def __init__(
        self,
        draft: PreTrainedModel,
        verifier: PreTrainedModel,
        device: Device,
        prompts: Prompts,
        draft_tokens: int = 4,
    ) -> None:
        """
        Args:
            prompts: of requests that bring none; its vocabulary is what both models share.
        """
        self.executor = EAGER
        self.draft_tokens = draft_tokens
        self._prompts = prompts
        self._draft = draft
        self._verifier = verifier
        self._device = device
        self._states: dict[int, _State] = {}
        self._stages: dict[Stage, Callable[[Request, Stream], Any]] = {
            Stage.PREFILL_DRAFT: self._prefill_draft,
            Stage.PREFILL_VERIFIER: self._prefill_verifier,
            Stage.VERIFY: self._verify,
            Stage.COMMIT_DRAFT: self._commit_draft,
            Stage.COMMIT_VERIFIER: self._commit_verifier,
            Stage.DECODE: self._decode,
        }
        self.start()

    @property
    def draft_lengths(self) -> tuple[int, ...]:
        return tuple(range(self.draft_tokens + 1))

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        return ()

    def start(self) -> None:
        self._device.align()

    def launch(
        self,
        stage: Stage,
        batch: Sequence[Request],
        stream: Stream,
        after: Sequence[Ticket],
        draft_tokens: DraftTokens | None = None,
    ) -> Ticket:
        """Run the forward passes of `stage` for the one request in `batch`.

        Raises:
            CapacityError: out of device memory.
        """
        (request,) = batch
        if stage is Stage.DRAFT:
            lengths = self.draft_tokens if draft_tokens is None else draft_tokens
            length = lengths if isinstance(lengths, int) else lengths[0]
            work: Callable[[Request, Stream], Any] = partial(self._propose, length=length)
        else:
            work = self._stages[stage]

        def launched() -> Any:
            with torch.inference_mode():
                return work(request, stream)

        earlier = [ticket.execution for ticket in after if isinstance(ticket, EagerTicket)]
        execution = self._device.run(f"stage {stage}", stream, earlier, launched)
        return EagerTicket(stage, batch, execution)

    def settle(self, ticket: Ticket) -> Sequence[Checked] | None:
        (request,) = ticket.batch
        stage, state = ticket.stage, self._states[request.id]
        if stage is Stage.VERIFY:
            self._compare(request, state)
        elif stage is Stage.DECODE:
            request.tokens.append(int(state.predicted.item()))
        elif stage is Stage.COMMIT_VERIFIER:
            request.tokens.extend(state.tokens)
            return None if request.outcomes else (Checked(state.accepted, len(state.drafts)),)
        return None

    def check(self, request: Request) -> None:
        """Raise `RequestError` if `request` can never be served."""
        configs = [model.config for model in (self._draft, self._verifier)]
        most = min(config.max_position_embeddings for config in configs)
        if request.prompt_tokens + request.output_tokens > most:
            raise RequestError(
                request,
                f"needs {request.prompt_tokens} prompt + {request.output_tokens} output tokens; "
                f"the models reach {most}",
            )

    def can_admit(self, *requests: Request) -> bool:
        """Caches grow token by token; memory was checked for the whole run when it began."""
        return True

    def release(self, request: Request) -> None:
        self._states.pop(request.id, None)

    # Stages

    def _prefill_draft(self, request: Request, stream: Stream) -> None:
        self._state(request).draft = self._side(self._draft, request, stream)

    def _prefill_verifier(self, request: Request, stream: Stream) -> None:
        self._state(request).verifier = self._side(self._verifier, request, stream)

    def _propose(self, request: Request, stream: Stream, length: int) -> Any:
        """Draft `length` tokens; the verify stage checks what is here."""
        state = self._states[request.id]
        side = state.draft
        keep = side.move_to(stream)
        state.drafts, token = [], side.logits.argmax(-1)
        while len(state.drafts) < length:
            if state.drafts:
                token = side.forward(token, 1).argmax(-1)
            state.drafts.append(int(token.item()))
        side.forget(length - 1)
        return keep

    def _verify(self, request: Request, stream: Stream) -> Any:
        state = self._states[request.id]
        side = state.verifier
        keep = side.move_to(stream)
        state.predicted, count = side.logits.argmax(-1), len(state.drafts)
        if count:
            logits = side.forward(self._tensor(state.drafts), count)
            state.predicted = torch.cat((state.predicted, logits[:, :-1].argmax(-1)), 1)
            side.forget(count)
        return keep

    def _compare(self, request: Request, state: _State) -> None:
        """Decide how many drafts are kept and what the round yields."""
        drafts, predicted = state.drafts, state.predicted[0].tolist()
        if request.outcomes:
            accepted = min(request.outcomes[request.rounds], len(drafts))
        else:
            agree = (a == b for a, b in zip(drafts, predicted, strict=False))
            accepted = next((i for i, same in enumerate(agree) if not same), len(drafts))
        state.accepted = accepted
        state.tokens = drafts[:accepted] + predicted[accepted : accepted + 1]

    def _commit_draft(self, request: Request, stream: Stream) -> Any:
        state = self._states[request.id]
        keep = state.draft.move_to(stream)
        state.draft.advance(self._tensor(state.tokens))
        return keep

    def _commit_verifier(self, request: Request, stream: Stream) -> Any:
        state = self._states[request.id]
        keep = state.verifier.move_to(stream)
        state.verifier.advance(self._tensor(state.tokens))
        return keep

    def _decode(self, request: Request, stream: Stream) -> Any:
        state = self._states[request.id]
        keep = state.verifier.move_to(stream)
        state.predicted = state.verifier.logits.argmax(-1)
        state.verifier.advance(state.predicted)
        return keep

    # Requests

    def _state(self, request: Request) -> _State:
        """Fresh for a request's first stage. A request is in one lane at a time, and its two
        prefills follow each other."""
        state = self._states.get(request.id)
        if state is None:
            state = self._states[request.id] = _State()
        return state

    def _side(self, model: PreTrainedModel, request: Request, stream: Stream) -> _Side:
        return _Side(model, self._prompts.vocabulary, self._prompt(request), stream)

    def _prompt(self, request: Request) -> Tensor:
        return self._tensor(self._prompts.of(request))

    def _tensor(self, tokens: Sequence[int]) -> Tensor:
        return torch.tensor([list(tokens)], device=self._device.device)
