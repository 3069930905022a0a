"""What drafters weigh and cost, beside the models of `pdvsim.models`: an EAGLE-3 head by its
dimensions. `pdvsim.core.Drafter` names the kinds.

A draft model is a `ModelShape` like any other. Looking up n-grams, and drafting nothing, has no
weights, and nothing to be counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeAlias

from pdvsim.core import Drafter
from pdvsim.errors import InputError
from pdvsim.model_config import shape_of_config
from pdvsim.model_shape import BYTES_PER_PARAMETER, ModelShape

DRAFT_VOCABULARY = 32_000  # of most published heads
HEAD_ARCHITECTURE = "LlamaForCausalLMEagle3"


@dataclass(frozen=True, slots=True)
class HeadShape:
    """An EAGLE-3 head: one decoder layer over a token's embedding and a state of the verifier.

    Attributes:
        layer: a model of one layer with the head's dimensions and the verifier's vocabulary.
        vocabulary: tokens that the head can propose.
        target_hidden: width of the verifier's states.
        depths: layers of the verifier behind which the head is shown its states.
        norm_before_residual: the normed state, and not the state itself, is what the layer adds to.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    layer: ModelShape
    vocabulary: int
    target_hidden: int
    depths: tuple[int, ...]
    norm_before_residual: bool = False

    @property
    def name(self) -> str:
        return self.layer.name

    @property
    def fusion_parameters(self) -> int:
        """Of the matrix that brings the verifier's states of a token to one: used once for a token
        that the verifier has seen."""
        return len(self.depths) * self.target_hidden * self.layer.hidden

    @property
    def step_parameters(self) -> int:
        """Of what every drafted token goes through: the layer, whose projections take twice the
        width, two more norms, and the head."""
        one = self.layer
        wider = one.hidden * (one.query_width + 2 * one.kv_width)
        return one.layer_parameters + wider + 2 * one.hidden + self.vocabulary * one.hidden

    @property
    def prompt_parameters(self) -> int:
        """Of what a prompt's token goes through, which the head's cache needs keys and values of:
        the fusion, two norms, and the projections to keys and values."""
        one = self.layer
        return self.fusion_parameters + 2 * one.hidden + 2 * one.hidden * 2 * one.kv_width

    @property
    def parameters(self) -> int:
        """Without an embedding table: it has the verifier's, or reads a row of its own a token."""
        return self.fusion_parameters + self.step_parameters

    @property
    def weight_bytes(self) -> int:
        return self.parameters * BYTES_PER_PARAMETER

    @property
    def kv_bytes_per_token(self) -> int:
        return self.layer.kv_bytes_per_token

    @property
    def flops_per_token(self) -> int:
        """FLOPs of one drafted token without attention."""
        return 2 * self.step_parameters

    def floor_s(
        self,
        query_tokens: int,
        context_tokens: int,
        copy_bytes_per_s: float,
        matmul_flops_per_s: float,
    ) -> float:
        """Least time of one draft step; as `ModelShape.floor_s`."""
        moved = self.step_parameters * BYTES_PER_PARAMETER
        moved += context_tokens * self.kv_bytes_per_token
        return max(
            moved / copy_bytes_per_s, query_tokens * self.flops_per_token / matmul_flops_per_s
        )


@dataclass(frozen=True, slots=True)
class NoModel:
    """What drafts without weights: a look-up of n-grams, or nothing at all."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    kind: Literal["ngram", "none"]

    @property
    def name(self) -> str:
        return self.kind

    @property
    def shape(self) -> NoModel:
        """Itself: there is no checkpoint apart from it."""
        return self

    weight_bytes: ClassVar[int] = 0
    kv_bytes_per_token: ClassVar[int] = 0
    flops_per_token: ClassVar[int] = 0

    def floor_s(
        self,
        query_tokens: int,
        context_tokens: int,
        copy_bytes_per_s: float,
        matmul_flops_per_s: float,
    ) -> float:
        """As `ModelShape.floor_s`: a look-up counts for nothing."""
        return 0.0


# What drafts, as far as time and memory go.
Draft: TypeAlias = ModelShape | HeadShape | NoModel


def drafter_of(draft: Draft) -> Drafter:
    """What kind of drafter `draft` is."""
    if isinstance(draft, NoModel):
        return Drafter(draft.kind)
    return Drafter.EAGLE3 if isinstance(draft, HeadShape) else Drafter.MODEL


def decoder_of(draft: Draft) -> ModelShape | None:
    """The decoder whose context bounds what `draft` can follow: of a head its layer."""
    if isinstance(draft, NoModel):
        return None
    return draft.layer if isinstance(draft, HeadShape) else draft


def pass_bytes(draft: Draft) -> int:
    """Weights that one draft step reads."""
    if isinstance(draft, HeadShape):
        return draft.step_parameters * BYTES_PER_PARAMETER
    return draft.weight_bytes


def prompt_work(draft: Draft) -> tuple[int, int]:
    """FLOPs of a prompt token without attention, and bytes of the weights it goes through."""
    if isinstance(draft, HeadShape):
        return 2 * draft.prompt_parameters, draft.prompt_parameters * BYTES_PER_PARAMETER
    return draft.flops_per_token, draft.weight_bytes


def difference(one: Draft, other: Draft) -> str:
    """What makes `other` take another time than `one`; empty if nothing does."""
    if isinstance(one, ModelShape) and isinstance(other, ModelShape):
        return one.difference(other)
    if isinstance(one, HeadShape) and isinstance(other, HeadShape):
        apart = [one.layer.difference(other.layer)]
        for name in ("vocabulary", "target_hidden", "norm_before_residual"):
            mine, theirs = getattr(one, name), getattr(other, name)
            apart.append("" if mine == theirs else f"head's {name} {mine} against {theirs}")
        return ", ".join(filter(None, apart))
    kinds = drafter_of(one), drafter_of(other)
    return "" if kinds[0] is kinds[1] else f"{kinds[0]} against {kinds[1]}"


def head_for(verifier: ModelShape, vocabulary: int = DRAFT_VOCABULARY) -> HeadShape:
    """The head that one would train for `verifier`: a layer of the verifier's own dimensions."""
    layer = replace(verifier, name=str(Drafter.EAGLE3), layers=1, family="llama", qk_norm=False)
    layer = replace(layer, qkv_bias=False, output_bias=False, mlp_bias=False, sliding_window=None)
    vocabulary = min(vocabulary, verifier.vocabulary)
    return HeadShape(layer, vocabulary, verifier.hidden, usual_depths(verifier.layers))


def usual_depths(layers: int) -> tuple[int, ...]:
    """Where heads are shown the states of a verifier of so many layers, unless they say it."""
    return tuple(min(max(depth, 0), layers) for depth in (2, layers // 2, layers - 3))


def is_head(config: object) -> bool:
    """Whether a parsed `config.json` is that of an EAGLE-3 head."""
    return isinstance(config, dict) and config.get("architectures") == [HEAD_ARCHITECTURE]


def head_of_config(
    config: Mapping[str, Any], verifier: ModelShape, name: str, where: str
) -> HeadShape:
    """The head that a parsed `config.json` describes.

    Depths may be named at the top, as numbers of layers, or in `eagle_config`, as the number of
    the layer whose output is meant, counted from 0.

    Raises:
        InputError: it is no head for `verifier`, or does what cannot be run.
    """
    layer = shape_of_config({**config, "architectures": ["LlamaForCausalLM"]}, name, where)
    if layer.layers != 1:
        raise InputError(f"{where}: num_hidden_layers is {layer.layers}; a head has 1")
    if layer.qkv_bias or layer.mlp_bias:
        raise InputError(f"{where}: heads with biases are not supported")
    if layer.vocabulary != verifier.vocabulary:
        raise InputError(
            f"{where}: vocab_size is {layer.vocabulary:,}; verifier {verifier.name} has "
            f"{verifier.vocabulary:,} tokens"
        )
    nested = config.get("eagle_config") or {}
    if not isinstance(nested, dict):
        raise InputError(f"{where}: eagle_config is {nested!r}; it must be an object")
    for key in ("fc_norm", "norm_output"):
        if config.get(key) or nested.get(key):
            raise InputError(f"{where}: {key} is set, which is not supported")
    if nested.get("use_aux_hidden_state", True) is not True:
        raise InputError(f"{where}: use_aux_hidden_state is off; only heads over three depths run")
    if (width := config.get("target_hidden_size") or layer.hidden) != verifier.hidden:
        raise InputError(
            f"{where}: the head takes states {width} wide; those of {verifier.name} are "
            f"{verifier.hidden}"
        )
    vocabulary = config.get("draft_vocab_size") or layer.vocabulary
    if not isinstance(vocabulary, int) or not 1 <= vocabulary <= layer.vocabulary:
        raise InputError(
            f"{where}: draft_vocab_size is {vocabulary!r}; it must be a whole number from 1 to "
            f"vocab_size, {layer.vocabulary}"
        )
    before = config.get("norm_before_residual") or nested.get("norm_before_residual") or False
    depths = _depths(config, nested, verifier, where)
    return HeadShape(layer, vocabulary, verifier.hidden, depths, bool(before))


def _depths(
    config: Mapping[str, Any], nested: Mapping[str, Any], verifier: ModelShape, where: str
) -> tuple[int, ...]:
    key = "eagle_aux_hidden_state_layer_ids"
    named, behind = config.get(key), 0
    if named is None:
        named, behind = nested.get(key), 1
    if named is None:
        return usual_depths(verifier.layers)
    most = verifier.layers - behind
    listed = named if isinstance(named, list) else []
    if len(listed) != 3 or not all(type(one) is int and 0 <= one <= most for one in listed):
        raise InputError(
            f"{where}: {key} is {named!r}; it must name three of the {verifier.layers} layers of "
            f"{verifier.name}"
        )
    return tuple(one + behind for one in listed)
