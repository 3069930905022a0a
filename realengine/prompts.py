"""What requests without a prompt of their own are given, alike in both engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy

from pdvsim.core import Request
from pdvsim.models import FoundModel
from realengine import toy
from realengine.engine import RequestError
from realengine.tokenizer import Tokenized

STRIDE = 7919  # between the passages of consecutive requests; prime, so that all differ


@dataclass(frozen=True, slots=True)
class Prompts:
    """Those of a file in turn if there is one, else passages of `text` if there is any, else random
    tokens below `vocabulary`.

    Attributes:
        seed: of random tokens.
    """

    vocabulary: int
    seed: int = 0
    text: Sequence[int] = field(default=(), repr=False)
    given: Tokenized | None = None

    @property
    def kind(self) -> str:
        """For output."""
        if self.given is not None:
            return f"prompts of {Path(self.given.file.path).name}"
        return "passages of the toy pair's text" if self.text else "random tokens"

    def of(self, request: Request) -> list[int]:
        """The prompt of `request`: its own, or one that depends on its id alone."""
        if request.prompt:
            return list(request.prompt)
        if self.given is not None:
            tokens = list(self.given.tokens[request.id % len(self.given.tokens)])
            if len(tokens) != request.prompt_tokens:
                raise RequestError(
                    request,
                    f"has a prompt of {len(tokens)} tokens and says {request.prompt_tokens}",
                )
            return tokens
        if not self.text:
            rng = numpy.random.default_rng((self.seed, request.id))
            drawn: list[int] = rng.integers(self.vocabulary, size=request.prompt_tokens).tolist()
            return drawn
        start, length = request.id * STRIDE, len(self.text)
        return [self.text[(start + i) % length] for i in range(request.prompt_tokens)]


def prompts_for(
    verifier: FoundModel, vocabulary: int, seed: int, given: Tokenized | None = None
) -> Prompts:
    """Those `given`; else passages of its training text for the toy pair, random tokens for every
    other.

    Raises:
        InputError: tokens that not all models know.
    """
    if given is not None:
        given.check_vocabulary(vocabulary)
        return Prompts(vocabulary, seed, given=given)
    own = toy.VERIFIER.resolve()
    trained = verifier.folder is not None and verifier.folder.resolve() == own
    return Prompts(vocabulary, seed, toy.corpus() if trained else ())
