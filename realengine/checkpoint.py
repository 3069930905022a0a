"""Checkpoints on disk, and what both engines ask of models before they load any: `config.json`,
safetensors in one file or in shards, one vocabulary for a pair, a context that is within reach.

Whatever is wrong is said in one sentence before a weight is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from pdvsim.errors import InputError
from pdvsim.json_file import read_json
from pdvsim.model_config import shape_of_config
from pdvsim.models import (
    TOY_HEAD,
    FoundDraft,
    FoundHead,
    FoundModel,
    ModelShape,
    resolve,
    resolve_pair,
)
from realengine import toy

MOST_PADDING = 1024  # tokens that a vocabulary is padded by at most
_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_DTYPES = ("F16", "BF16", "F32", "F64")
_WHOLE = ("I64", "I32")
# Rotary tables are computed, and tied heads are stored at times.
_IGNORED = ("rotary_emb.inv_freq", "lm_head.weight")


def runnable(reference: str) -> FoundModel:
    """The model that `reference` means (see `pdvsim.models`), with its checkpoint if it has one.

    Raises:
        InputError: no such model, or a config that the engines cannot run.
    """
    return _with_weights(resolve(reference))


def runnable_pair(reference: str) -> tuple[FoundModel, FoundModel]:
    """Draft model and verifier of a pair of models.

    Raises:
        InputError: as `runnable`, or not a pair of models.
    """
    draft, verifier = runnable_draft(reference)
    if not isinstance(draft, FoundModel):
        raise InputError(f"{reference}: {draft.shape.name} is no model")
    return draft, verifier


def runnable_draft(reference: str) -> tuple[FoundDraft, FoundModel]:
    """What drafts, and the verifier.

    Raises:
        InputError: as `runnable`, or not a pair.
    """
    draft, verifier = resolve_pair(reference)
    if isinstance(draft, FoundHead):
        own = toy.HEAD if draft.shape.name == TOY_HEAD else None
        return replace(draft, folder=draft.folder or own), _with_weights(verifier)
    if isinstance(draft, FoundModel):
        draft = _with_weights(draft)
    return draft, _with_weights(verifier)


def _with_weights(found: FoundModel) -> FoundModel:
    """The toy models' weights are this package's."""
    folder = found.folder or toy.CHECKPOINTS.get(found.shape.name)
    if folder is not None:
        _check_config(folder, found.shape)
    return replace(found, folder=folder)


def _check_config(folder: Path, shape: ModelShape) -> None:
    """Hold our reading of a `config.json` against transformers' own."""
    from transformers import AutoConfig, logging

    logging.set_verbosity_error()
    where = folder / "config.json"
    content = read_json(where, "a model's config.json")
    try:
        config = AutoConfig.for_model(**content).to_dict()
    except Exception as error:  # its validators raise many kinds
        why = " ".join(str(error).split())
        raise InputError(f"{where}: transformers cannot read it ({why})") from None
    described = shape_of_config(config, shape.name, str(where))
    if described != shape:
        raise InputError(
            f"{where}: transformers reads it as {described}, pdvsim as {shape}; write out the keys "
            "that it leaves to defaults"
        )


def check_context(shapes: Iterable[ModelShape], tokens: int) -> None:
    """Refuse contexts of `tokens` tokens, prompt and output, that one of the models cannot have.

    Raises:
        InputError: naming the model and its limit.
    """
    for shape in shapes:
        if tokens > shape.max_context_tokens:
            raise InputError(
                f"a context of {tokens:,} tokens was asked for; {shape.name} reaches "
                f"{shape.max_context_tokens:,}"
            )
        if shape.sliding_window is not None and tokens > shape.sliding_window:
            raise InputError(
                f"a context of {tokens:,} tokens was asked for, but {shape.name} attends to the "
                f"last {shape.sliding_window:,} only (sliding_window); attention over a window is "
                "not supported, so contexts must fit into it"
            )


def shared_vocabulary(draft: FoundModel, verifier: FoundModel) -> int:
    """Tokens that both models know, which is what they may produce.

    Sizes may differ by padding, as those of one family in several sizes do, if the tokenizers
    agree (or there are none, as with random weights).

    Raises:
        InputError: the models are no pair.
    """
    sizes = draft.shape.vocabulary, verifier.shape.vocabulary
    shared = min(sizes)
    names = draft.shape.name, verifier.shape.name
    tokenizers = [_tokenizer(each) for each in (draft, verifier)]
    known = [tokenizer for tokenizer in tokenizers if tokenizer is not None]
    if len(known) == 2 and known[0].pieces != known[1].pieces:
        raise InputError(f"the tokenizers of {names[0]} and {names[1]} number tokens differently")
    if sizes[0] == sizes[1]:
        return shared
    refusal = (
        f"a pair must share its vocabulary; draft {names[0]} has {sizes[0]:,} tokens and verifier "
        f"{names[1]} {sizes[1]:,}"
    )
    if max(sizes) - shared > MOST_PADDING:
        raise InputError(refusal)
    trained = draft.folder is not None or verifier.folder is not None
    if trained and len(known) < 2:
        raise InputError(f"{refusal}; without their tokenizer.json that need not be padding")
    if any(tokenizer.size > shared for tokenizer in known):
        raise InputError(f"{refusal}, and the tokenizer uses more than {shared:,} of them")
    return shared


@dataclass(frozen=True, slots=True)
class _Tokenizer:
    pieces: Any
    size: int


def _tokenizer(model: FoundModel) -> _Tokenizer | None:
    """What `tokenizer.json` says of token numbers, if the checkpoint has one."""
    file = None if model.folder is None else model.folder / "tokenizer.json"
    if file is None or not file.is_file():
        return None
    content = read_json(file, "a tokenizer.json")
    try:
        pieces = content["model"]["vocab"]
        ids = pieces.values() if isinstance(pieces, dict) else range(len(pieces))
        added = [int(each["id"]) for each in content.get("added_tokens", [])]
        return _Tokenizer(pieces, 1 + max([*map(int, ids), *added], default=-1))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(f"{file}: not a tokenizer.json as the tokenizers library writes") from None


def tensors_of(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Names and sizes of a model's tensors in a checkpoint."""
    hidden, wide = shape.hidden, shape.intermediate
    query, kv = shape.query_width, shape.kv_width
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    for name, rows, columns, bias in (
        ("self_attn.q_proj", query, hidden, shape.qkv_bias),
        ("self_attn.k_proj", kv, hidden, shape.qkv_bias),
        ("self_attn.v_proj", kv, hidden, shape.qkv_bias),
        ("self_attn.o_proj", hidden, query, shape.output_bias),
        ("mlp.gate_proj", wide, hidden, shape.mlp_bias),
        ("mlp.up_proj", wide, hidden, shape.mlp_bias),
        ("mlp.down_proj", hidden, wide, shape.mlp_bias),
    ):
        layer[f"{name}.weight"] = rows, columns
        if bias:
            layer[f"{name}.bias"] = (rows,)
    if shape.qk_norm:
        layer |= {f"self_attn.{n}_norm.weight": (shape.head_size,) for n in ("q", "k")}
    whole: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (shape.vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }
    if not shape.tied_embeddings:
        whole["lm_head.weight"] = shape.vocabulary, hidden
    return whole | {
        f"model.layers.{i}.{name}": size
        for i in range(shape.layers)
        for name, size in layer.items()
    }


def model_checkpoint(folder: Path, shape: ModelShape) -> Checkpoint:
    """The checkpoint of a model of `shape`; see `Checkpoint`."""
    return Checkpoint(folder, tensors_of(shape), f"{shape.family} model", ignored=_IGNORED)


class Checkpoint:
    """The tensors in a folder, held against those wanted when it is opened. A context manager."""

    def __init__(
        self,
        folder: Path,
        wanted: Mapping[str, tuple[int, ...]],
        what: str,
        optional: Mapping[str, tuple[int, ...]] | None = None,
        ignored: tuple[str, ...] = (),
    ) -> None:
        """
        Args:
            wanted, optional: sizes by name.
            what: is meant to be in the folder, for errors.
            ignored: ends of other names that may stand there.

        Raises:
            InputError: a file is missing or damaged, or its tensors are not those wanted.
        """
        self.folder = folder
        self._wanted, self._optional = wanted, optional or {}
        self._what, self._ignored = what, ignored
        self._stack = ExitStack()
        self._handles: dict[Path, Any] = {}
        self._files = self._find()
        try:
            self._check()
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def holds(self, name: str) -> bool:
        """Whether the optional tensor `name` is there."""
        return name in self._files

    def tensor(self, name: str) -> Tensor:
        """One tensor, on the CPU, in the type it was stored in."""
        try:
            found: Tensor = self._handle(self._files[name]).get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{self._files[name]} does not hold {name!r}: {error}") from None
        return found

    def _find(self) -> dict[str, Path]:
        """Which file holds which tensor."""
        folder = self.folder
        if not folder.is_dir():
            raise InputError(f"{folder} is not a directory")
        index, single = folder / _INDEX, folder / _SINGLE
        if index.is_file():
            content = read_json(index, "an index of safetensors")
            places = content.get("weight_map") if isinstance(content, dict) else None
            if not isinstance(places, dict) or not all(
                isinstance(name, str) and Path(name).name == name for name in places.values()
            ):
                raise InputError(f"{index} has no weight_map from tensors to files beside it")
            missing = sorted({f for f in places.values() if not (folder / f).is_file()})
            if missing:
                raise InputError(f"checkpoint {folder} lacks {', '.join(missing)}")
            return {name: folder / file for name, file in places.items()}
        if not single.is_file():
            raise InputError(f"{folder} holds neither {_SINGLE} nor {_INDEX}")
        return dict.fromkeys(self._handle(single).keys(), single)

    def _handle(self, file: Path) -> Any:
        if file not in self._handles:
            try:
                opened = safe_open(file, framework="pt")
            except (SafetensorError, OSError) as error:
                raise InputError(f"{file} cannot be read: {error}") from None
            self._handles[file] = self._stack.enter_context(opened)
        return self._handles[file]

    def _check(self) -> None:
        there = {name: size for name, size in self._optional.items() if name in self._files}
        for name, size in {**self._wanted, **there}.items():
            file = self._files.get(name)
            if file is None:
                raise InputError(f"checkpoint {self.folder} has no tensor {name!r}")
            try:
                found = self._handle(file).get_slice(name)
            except SafetensorError as error:
                raise InputError(f"{file} does not hold {name!r}: {error}") from None
            if tuple(found.get_shape()) != size:
                raise InputError(
                    f"{name!r} in {file} is {tuple(found.get_shape())}; config.json says {size}"
                )
            types = _DTYPES if name.endswith((".weight", ".bias")) else _WHOLE
            if found.get_dtype() not in types:
                raise InputError(
                    f"{name!r} in {file} is stored as {found.get_dtype()}; only plain weights of "
                    f"{', '.join(types)} are supported"
                )
        more = [
            name
            for name in self._files
            if name not in self._wanted and name not in there and not name.endswith(self._ignored)
        ]
        if more:
            raise InputError(
                f"checkpoint {self.folder} holds {len(more)} tensors that a {self._what} "
                f"of its config.json has no use for, {sorted(more)[0]!r} first"
            )
