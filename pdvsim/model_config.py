"""Shapes from Hugging Face `config.json` files.

What such a file says beyond what `ModelShape` can hold is refused by name: a model that is read
wrongly would be run, or predicted, wrongly. Defaults of absent keys are those of transformers'
configuration classes, which a test holds this module against.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pdvsim.errors import InputError
from pdvsim.model_shape import ModelShape, Rope


@dataclass(frozen=True, slots=True)
class Family:
    """What a `model_type` implies.

    Attributes:
        architecture: the only entry of `architectures` that is understood.
        attention_bias: it has the key of this name, which gives all four projections biases.
        mlp_bias: it has the key of this name.
        qkv_bias, qk_norm: always; see `ModelShape`.
        defaults: of keys whose default differs from family to family.
    """

    architecture: str
    attention_bias: bool = False
    mlp_bias: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    defaults: Mapping[str, int] = field(default_factory=dict)


FAMILIES = {
    "llama": Family("LlamaForCausalLM", attention_bias=True, mlp_bias=True),
    "mistral": Family(
        "MistralForCausalLM", defaults={"num_key_value_heads": 8, "sliding_window": 4096}
    ),
    "qwen2": Family("Qwen2ForCausalLM", qkv_bias=True, defaults={"num_key_value_heads": 32}),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        attention_bias=True,
        qk_norm=True,
        defaults={"num_key_value_heads": 32, "head_dim": 128},
    ),
}
_WINDOWED = ("mistral",)  # Qwen's models have windows in some layers, and only if asked for
# Keys that change what a model computes or holds, and the values that leave it as it is.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "quantization_config": (None,),
    "compression_config": (None,),
    "partial_rotary_factor": (None, 1, 1.0),
    "use_sliding_window": (None, False),
    "is_encoder_decoder": (None, False),
    "add_cross_attention": (None, False),
    "auto_map": (None,),
    "rope_interleaved": (None, False),
}


def shape_of_config(config: Any, name: str, where: str) -> ModelShape:
    """The shape that a parsed `config.json` describes.

    Args:
        name: of the shape.
        where: the file, for errors.

    Raises:
        InputError: a key is missing or impossible, or says what no `ModelShape` can.
    """
    if not isinstance(config, dict):
        raise InputError(f"{where} is not a JSON object, as a model's config.json is")
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise InputError(f"{where}: model_type is {kind!r}; known are {', '.join(FAMILIES)}")
    family = FAMILIES[kind]
    _check_neutral(config, kind, where)
    read = _Reader({**family.defaults, **config}, where)
    heads = read.whole("num_attention_heads")
    bias = read.flag("attention_bias")
    window = read.whole("sliding_window", 0) if kind in _WINDOWED else 0
    try:
        return ModelShape(
            name=name,
            layers=read.whole("num_hidden_layers"),
            hidden=read.whole("hidden_size"),
            heads=heads,
            kv_heads=read.whole("num_key_value_heads", heads),
            intermediate=read.whole("intermediate_size"),
            vocabulary=read.whole("vocab_size"),
            max_context_tokens=read.whole("max_position_embeddings"),
            tied_embeddings=read.flag("tie_word_embeddings"),
            head_size=read.whole("head_dim", 0),
            family=kind,
            qkv_bias=family.qkv_bias or bias,
            output_bias=bias,
            mlp_bias=read.flag("mlp_bias"),
            qk_norm=family.qk_norm,
            sliding_window=window or None,
            norm_epsilon=read.number("rms_norm_eps", 1e-6),
            rope=_rope(config, where),
        )
    except InputError as error:
        raise InputError(f"{where}: {error}" if where not in str(error) else str(error)) from None


def _check_neutral(config: Mapping[str, Any], kind: str, where: str) -> None:
    """Refuse what a key says that no shape can hold."""
    family = FAMILIES[kind]
    architectures = config.get("architectures") or [family.architecture]
    if architectures != [family.architecture]:
        raise InputError(
            f"{where}: architectures is {architectures!r}; a {kind} model that can be run is a "
            f"{family.architecture}"
        )
    for key, neutral in _NEUTRAL.items():
        value = config.get(key, neutral[0])
        if value not in neutral:
            raise InputError(
                f"{where}: {key} is {_short(value)}; only models where it is "
                f"{_short(neutral[-1]) if neutral[-1] is not None else 'absent'} are supported"
            )
    for key, known in (("attention_bias", family.attention_bias), ("mlp_bias", family.mlp_bias)):
        if config.get(key) and not known:
            raise InputError(f"{where}: {key} is set, which no {kind} model has")
    layers = config.get("layer_types") or []
    if not isinstance(layers, list):
        raise InputError(f"{where}: layer_types is {_short(layers)}; it must be a list of names")
    if any(layer != "full_attention" for layer in layers):
        raise InputError(
            f"{where}: layer_types has {sorted({str(layer) for layer in layers})}; only models "
            "whose layers are all alike are supported"
        )


def _rope(config: Mapping[str, Any], where: str) -> Rope:
    """Rotary embedding in the new (`rope_parameters`) or the old spelling (`rope_scaling`)."""
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(given, dict):
        raise InputError(f"{where}: rope_parameters is {_short(given)}; it must be an object")
    kind = given.get("rope_type") or given.get("type") or "default"
    if any(isinstance(value, dict) for value in given.values()):
        kind = "one for each kind of layer"
    if kind not in ("default", "llama3"):
        raise InputError(
            f"{where}: rotary embedding of type {_short(kind)} is not supported; only "
            "'default' and 'llama3' are"
        )
    if given.get("partial_rotary_factor", 1) not in (None, 1):
        raise InputError(f"{where}: partial_rotary_factor is set; only whole heads are rotated")
    read = _Reader({"rope_theta": config.get("rope_theta"), **given}, where)
    theta = read.number("rope_theta", 10000.0)
    if kind == "default":
        return Rope(theta)
    reach = _Reader(config, where).whole("max_position_embeddings")
    return Rope(
        theta,
        read.number("factor"),
        read.number("low_freq_factor"),
        read.number("high_freq_factor"),
        read.whole("original_max_position_embeddings", reach),
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Typed look-ups; null stands for an absent key."""

    config: Mapping[str, Any]
    where: str

    def whole(self, key: str, default: int | None = None) -> int:
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise InputError(f"{self.where}: {key} is {_short(value)}; it must be a whole number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(f"{self.where}: {key} is {_short(value)}; it must be a number")
        return float(value)

    def flag(self, key: str) -> bool:
        value = self._value(key, False)
        if not isinstance(value, bool):
            raise InputError(f"{self.where}: {key} is {_short(value)}; it must be true or false")
        return value

    def _value(self, key: str, default: Any) -> Any:
        value = self.config.get(key)
        if value is None:
            value = default
        if value is None:
            raise InputError(f"{self.where} does not say {key}")
        return value


def _short(value: Any) -> str:
    """`value` as a message can hold it; of an object its kind, or its keys."""
    if isinstance(value, dict):
        kind = value.get("quant_method")
        return repr(kind) if isinstance(kind, str) else "an object"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
