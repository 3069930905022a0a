"""The dimensions of a decoder, and the arithmetic that follows: bytes, FLOPs, floors."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from pdvsim.errors import InputError

BYTES_PER_PARAMETER = 2  # bf16
MOST = 10_000_000  # no dimension of a decoder is larger
# What decides how long a stage takes and how much memory it needs.
_DIMENSIONS = (
    *("layers", "hidden", "heads", "kv_heads", "head_size", "intermediate", "vocabulary"),
    *("tied_embeddings", "qkv_bias", "output_bias", "mlp_bias", "qk_norm"),
)


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding.

    Attributes:
        theta: the base of the frequencies.
        factor: Llama 3's scaling: frequencies of wavelengths above `original_context_tokens` /
            `low_frequency_factor` are divided by it, those below `original_context_tokens` /
            `high_frequency_factor` are kept, those between are interpolated. 1 is no scaling.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    theta: float = 10000.0
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context_tokens: int = 8192

    def __post_init__(self) -> None:
        for name in ("theta", "factor", "low_frequency_factor", "high_frequency_factor"):
            value = getattr(self, name)
            if not 0.0 < value <= 1e12:
                raise InputError(f"rotary embedding: {name} is {value}; it must be above 0")
        if not 1 <= self.original_context_tokens <= MOST:
            raise InputError(
                f"rotary embedding: original_context_tokens is {self.original_context_tokens}; it "
                f"must be between 1 and {MOST:,}"
            )
        if not self.low_frequency_factor < self.high_frequency_factor:
            raise InputError(
                f"rotary embedding: low_frequency_factor {self.low_frequency_factor} must be "
                f"below high_frequency_factor {self.high_frequency_factor}"
            )


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder of the Llama kind (RMS norm, rotary embedding, gated SiLU), by its dimensions.

    Attributes:
        head_size: of queries, keys and values; 0 stands for `hidden` / `heads`.
        tied_embeddings: the head is the embedding table.
        family: its `model_type` in a config.json: llama, mistral, qwen2, qwen3.
        qkv_bias, output_bias: the attention's projections add biases.
        mlp_bias: gate, up and down projections add biases.
        qk_norm: every query and key head goes through an RMS norm of its own.
        sliding_window: tokens that attention looks back at; None for all.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    max_context_tokens: int = 4096
    tied_embeddings: bool = False
    head_size: int = 0
    family: str = "llama"
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None
    norm_epsilon: float = 1e-5
    rope: Rope = Rope()

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and field.name != "head_size" and not 1 <= value <= MOST:
                raise InputError(
                    f"model {self.name}: {field.name} is {value}; it must be between 1 and {MOST:,}"
                )
        if self.head_size == 0 and self.hidden % self.heads == 0:
            object.__setattr__(self, "head_size", self.hidden // self.heads)
        if not 2 <= self.head_size <= MOST or self.head_size % 2:
            raise InputError(
                f"model {self.name}: {self.heads} heads of a hidden size of {self.hidden} have a "
                f"size of {self.head_size or self.hidden / self.heads:g}; it must be even"
            )
        if self.heads % self.kv_heads:
            raise InputError(
                f"model {self.name}: {self.heads} query heads cannot share "
                f"{self.kv_heads} key heads"
            )
        if not 0.0 < self.norm_epsilon < 0.1:
            raise InputError(
                f"model {self.name}: the norms' epsilon is {self.norm_epsilon:g}; it must be above "
                "0 and below 0.1"
            )
        if self.sliding_window is not None and self.sliding_window < 1:
            raise InputError(
                f"model {self.name}: the sliding window is {self.sliding_window} tokens; it must "
                "be at least 1"
            )

    @property
    def longest_context_tokens(self) -> int:
        """What a request can come to where attention sees all of it."""
        return min(self.max_context_tokens, self.sliding_window or self.max_context_tokens)

    @property
    def query_width(self) -> int:
        return self.heads * self.head_size

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_size

    @property
    def layer_parameters(self) -> int:
        qkv_width = self.query_width + 2 * self.kv_width
        matrices = self.hidden * (qkv_width + self.query_width + 3 * self.intermediate)
        biases = (
            self.qkv_bias * qkv_width
            + self.output_bias * self.hidden
            + self.mlp_bias * (2 * self.intermediate + self.hidden)
        )
        return matrices + biases + 2 * self.hidden + self.qk_norm * 2 * self.head_size

    @property
    def parameters(self) -> int:
        embeddings = self.vocabulary * self.hidden * (1 if self.tied_embeddings else 2)
        return self.layers * self.layer_parameters + embeddings + self.hidden

    @property
    def weight_bytes(self) -> int:
        return self.parameters * BYTES_PER_PARAMETER

    @property
    def kv_bytes_per_token(self) -> int:
        return 2 * self.layers * self.kv_width * BYTES_PER_PARAMETER

    @property
    def flops_per_token(self) -> int:
        """FLOPs of one token without attention: 2 per weight that it meets."""
        embedding = 0 if self.tied_embeddings else self.vocabulary * self.hidden
        return 2 * (self.parameters - embedding)

    def difference(self, other: ModelShape) -> str:
        """What makes `other` take another time than this shape; empty if nothing does."""
        return ", ".join(
            f"{name} {getattr(self, name)} against {getattr(other, name)}"
            for name in _DIMENSIONS
            if getattr(self, name) != getattr(other, name)
        )

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
            context_tokens: cached tokens of all requests together, each read once; of a request
                whose context is longer than the sliding window, the window's.
        """
        embedding_bytes = 0 if self.tied_embeddings else self.vocabulary * self.hidden * 2
        moved = self.weight_bytes - embedding_bytes + context_tokens * self.kv_bytes_per_token
        return max(
            moved / copy_bytes_per_s, query_tokens * self.flops_per_token / matmul_flops_per_s
        )
