"""What requests without a prompt of their own are given, alike in both engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy

from pdvsim.core import Request
from pdvsim.models import FoundModel
from realengine import toy

STRIDE = 7919  # between the passages of consecutive requests; prime, so that all differ


@dataclass(frozen=True, slots=True)
class Prompts:
    """Passages of `text` if there is any, else random tokens below `vocabulary`.

    Attributes:
        seed: of random tokens.
    """

    vocabulary: int
    seed: int = 0
    text: Sequence[int] = field(default=(), repr=False)

    @property
    def kind(self) -> str:
        """For output."""
        return "passages of the toy pair's text" if self.text else "random tokens"

    def of(self, request: Request) -> list[int]:
        """The prompt of `request`: its own, or one that depends on its id alone."""
        if request.prompt:
            return list(request.prompt)
        if not self.text:
            rng = numpy.random.default_rng((self.seed, request.id))
            drawn: list[int] = rng.integers(self.vocabulary, size=request.prompt_tokens).tolist()
            return drawn
        start, length = request.id * STRIDE, len(self.text)
        return [self.text[(start + i) % length] for i in range(request.prompt_tokens)]


def prompts_for(verifier: FoundModel, vocabulary: int, seed: int) -> Prompts:
    """Passages of its training text for the toy pair, random tokens for every other."""
    own = toy.VERIFIER.resolve()
    trained = verifier.folder is not None and verifier.folder.resolve() == own
    return Prompts(vocabulary, seed, toy.corpus() if trained else ())
