"""Model shapes by name, and the arithmetic that follows from them: bytes, FLOPs, floors."""

from __future__ import annotations

from dataclasses import dataclass

from pdvsim.errors import InputError

BYTES_PER_PARAMETER = 2  # bf16


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A Llama-family decoder, by its dimensions."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    max_context_tokens: int = 4096
    tied_embeddings: bool = False

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads

    @property
    def layer_parameters(self) -> int:
        kv_width = self.kv_heads * self.head_size
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * kv_width
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def parameters(self) -> int:
        embeddings = self.vocabulary * self.hidden * (1 if self.tied_embeddings else 2)
        return self.layers * self.layer_parameters + embeddings + self.hidden

    @property
    def weight_bytes(self) -> int:
        return self.parameters * BYTES_PER_PARAMETER

    @property
    def kv_bytes_per_token(self) -> int:
        return 2 * self.layers * self.kv_heads * self.head_size * BYTES_PER_PARAMETER

    @property
    def flops_per_token(self) -> int:
        """Matrix-product FLOPs of one token without attention: 2 per weight that is multiplied."""
        embedding = 0 if self.tied_embeddings else self.vocabulary * self.hidden
        return 2 * (self.parameters - embedding)

    def floor_s(
        self,
        query_tokens: int,
        context_tokens: int,
        copy_bytes_per_s: float,
        matmul_flops_per_s: float,
    ) -> float:
        """Least time of one forward pass: max(bytes / copy rate, FLOPs / matmul rate).

        Args:
            query_tokens: new tokens of all requests together.
            context_tokens: cached tokens of all requests together, each read once.
        """
        embedding_bytes = 0 if self.tied_embeddings else self.vocabulary * self.hidden * 2
        moved = self.weight_bytes - embedding_bytes + context_tokens * self.kv_bytes_per_token
        return max(
            moved / copy_bytes_per_s, query_tokens * self.flops_per_token / matmul_flops_per_s
        )


SHAPES = {
    shape.name: shape
    for shape in (
        ModelShape("tiny", 2, 64, 4, 2, 128, 256, 2048),
        ModelShape("tinyllama-1.1b", 22, 2048, 32, 4, 5632, 32000, 2048),
        ModelShape("llama-2-7b", 32, 4096, 32, 32, 11008, 32000, 4096),
        ModelShape("codellama-34b", 48, 8192, 64, 8, 22016, 32000, 16384),
    )
}


@dataclass(frozen=True, slots=True)
class Pair:
    """A draft model and the verifier that checks it."""

    draft: ModelShape
    verifier: ModelShape

    @property
    def name(self) -> str:
        return f"{self.draft.name}:{self.verifier.name}"

    @property
    def weight_bytes(self) -> int:
        return self.draft.weight_bytes + self.verifier.weight_bytes


def shape(name: str) -> ModelShape:
    """The shape called `name`.

    Raises:
        InputError: there is none; the message lists those there are.
    """
    try:
        return SHAPES[name]
    except KeyError:
        known = ", ".join(SHAPES)
        raise InputError(f"unknown model {name!r}; known are {known}") from None


def pair(name: str) -> Pair:
    """Parse `DRAFT:VERIFIER`.

    Raises:
        InputError: not two names, or an unknown one.
    """
    draft, colon, verifier = name.partition(":")
    if not colon or not draft or not verifier:
        raise InputError(
            f"a pair is written DRAFT:VERIFIER, for example tinyllama-1.1b:llama-2-7b; got {name!r}"
        )
    return Pair(shape(draft), shape(verifier))
