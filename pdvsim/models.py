"""Models by name: shapes that ship, checkpoints on disk, and pairs of them.

A *reference* says which model is meant:
    NAME              a shape that ships (`data/models/`), in any case
    DIRECTORY         a Hugging Face checkpoint; its shape bears the directory's name
    NAME=DIRECTORY    the same under a name of one's own
    NAME=FILE         the shape of a `config.json`, without weights
A pair is written `DRAFT:VERIFIER`. In place of a draft model may stand
    eagle3            an EAGLE-3 head of the verifier's own dimensions, with random weights
    DIRECTORY         the checkpoint of a head, in the public layout; or NAME=DIRECTORY or
                      NAME=FILE, as above
    ngram             a look-up in the request's own text, without a model
    none              nothing: the engine only decodes.
`toy` is the trained pair that ships with the engine, and `toy-eagle3` its verifier with a trained
head.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from pdvsim.core import Drafter
from pdvsim.drafters import (
    Draft,
    HeadShape,
    NoModel,
    decoder_of,
    difference,
    drafter_of,
    head_for,
    head_of_config,
    is_head,
)
from pdvsim.errors import InputError
from pdvsim.json_file import read_json
from pdvsim.model_config import shape_of_config
from pdvsim.model_shape import BYTES_PER_PARAMETER, ModelShape, Rope

__all__ = [
    "BYTES_PER_PARAMETER",
    "TOY",
    "FoundDraft",
    "FoundHead",
    "FoundModel",
    "ModelShape",
    "NoModel",
    "Pair",
    "Rope",
    "named_by_hub",
    "pair",
    "resolve",
    "resolve_pair",
    "shape",
    "shapes",
]

SHIPPED = Path(__file__).parent / "data" / "models"
SHIPPED_HEADS = SHIPPED.parent / "heads"
TOY, TOY_HEAD = "toy", "toy-eagle3"
_TOY_PAIRS = {TOY: "toy-draft:toy-verifier", TOY_HEAD: f"{TOY_HEAD}:toy-verifier"}


@dataclass(frozen=True, slots=True)
class Pair:
    """What drafts, and the verifier that checks it."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    draft: Draft
    verifier: ModelShape

    @property
    def drafter(self) -> Drafter:
        return drafter_of(self.draft)

    @property
    def decoders(self) -> tuple[ModelShape, ...]:
        """Those whose contexts bound the requests; the verifier is the last."""
        first = decoder_of(self.draft)
        return (self.verifier,) if first is None else (first, self.verifier)

    @property
    def name(self) -> str:
        return f"{self.draft.name}:{self.verifier.name}"

    @property
    def weight_bytes(self) -> int:
        return self.draft.weight_bytes + self.verifier.weight_bytes

    def difference(self, other: Pair) -> str:
        """What makes `other` take another time than this pair; empty if nothing does."""
        sides = (
            ("draft", difference(self.draft, other.draft)),
            ("verifier", self.verifier.difference(other.verifier)),
        )
        return "; ".join(f"{side}: {text}" for side, text in sides if text)


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model as it was referred to.

    Attributes:
        folder: the checkpoint that its weights are in; None for a shape alone.
    """

    shape: ModelShape
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class FoundHead:
    """A head as it was referred to; without a folder its weights are random."""

    shape: HeadShape
    folder: Path | None = None


FoundDraft: TypeAlias = FoundModel | FoundHead | NoModel


@cache
def shape_names() -> tuple[str, ...]:
    """Names of the shapes that ship, in alphabetical order."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.json")))


@cache
def shape(name: str) -> ModelShape:
    """The shape that ships under `name`, in any case.

    Raises:
        InputError: there is none; the message lists those there are.
    """
    known = name.lower()
    if known not in shape_names():
        near = get_close_matches(known, shape_names(), 5, 0.5)
        names = ", ".join([*near, "..."] if near else shape_names())
        raise InputError(
            f"unknown model {name!r}; it is no directory, no NAME=PATH/config.json, and none of "
            f"those that ship ({names})"
        )
    return _read(SHIPPED / f"{known}.json", known)


def shapes() -> dict[str, ModelShape]:
    """All shapes that ship, by name."""
    return {name: shape(name) for name in shape_names()}


# Words of a model's name that say how it was trained on, not which shape it has.
_TRAINING = frozenset({"instruct", "chat", "hf", "it", "base", "meta", "pt"})


def named_by_hub(identifier: str) -> ModelShape | None:
    """The shape that ships for a name on the Hugging Face hub; None if it is not sure to be one.

    `meta-llama/Llama-3.1-8B-Instruct` is `llama-3.1-8b`. A word that is not known (FP8, AWQ, a
    fine-tune) may stand for other weights, so such a name is nobody's.
    """
    words = identifier.rstrip("/").rpartition("/")[2].lower().replace("_", "-").split("-")
    plain = [word for word in words if word not in _TRAINING]
    undated = [word for word in plain if not re.fullmatch(r"v\d+(\.\d+)*|\d{4}", word)]
    for name in ("-".join(plain), "-".join(undated)):
        if name in shape_names():
            return shape(name)
    return None


def resolve(reference: str) -> FoundModel:
    """The model that `reference` means; see the module.

    Raises:
        InputError: no such name or path, or a `config.json` that cannot be used.
    """
    if reference.lower() in shape_names():
        return FoundModel(shape(reference))
    if _is_dir(reference):
        return _checkpoint(Path(reference), Path(reference).resolve().name)
    name, equals, text = reference.partition("=")
    if not equals:
        if _is_file(reference):
            raise InputError(f"{reference} is a file; a shape needs a name: NAME={reference}")
        if len(Path(reference).parts) > 1 or reference.startswith("."):
            raise InputError(f"no model at {reference}: there is no such directory")
        return FoundModel(shape(reference))
    if not re.fullmatch(r"[\w.+-]+", name):
        raise InputError(
            f"a model cannot be called {name!r}; letters, digits and . _ + - make a name"
        )
    if name.lower() in shape_names():
        raise InputError(f"{name} is the name of a shape that ships; call yours something else")
    path = Path(text)
    return _checkpoint(path, name) if _is_dir(text) else FoundModel(_read(path, name))


def resolve_pair(reference: str) -> tuple[FoundDraft, FoundModel]:
    """Draft and verifier of `DRAFT:VERIFIER`, `toy` or `toy-eagle3`.

    Raises:
        InputError: not two references, or one that cannot be resolved.
    """
    text = _TOY_PAIRS.get(reference.lower(), reference)
    draft, colon, verifier = text.partition(":")
    if not colon or not draft or not verifier:
        raise InputError(
            "a pair is written DRAFT:VERIFIER, for example tinyllama-1.1b:llama-2-7b or "
            f"eagle3:llama-2-7b, or toy; got {reference!r}"
        )
    checked = resolve(verifier)
    return _draft(draft, checked.shape), checked


def _draft(reference: str, verifier: ModelShape) -> FoundDraft:
    """What drafts for `verifier`; see the module."""
    known = reference.lower()
    if known == Drafter.NGRAM or known == Drafter.NONE:
        return NoModel("ngram" if known == Drafter.NGRAM else "none")
    if known == Drafter.EAGLE3:
        return FoundHead(head_for(verifier))
    if known == TOY_HEAD:
        path = SHIPPED_HEADS / f"{TOY_HEAD}.json"
        config = read_json(path, "a head's config.json")
        return FoundHead(head_of_config(config, verifier, TOY_HEAD, str(path)))
    if known in shape_names():
        return resolve(reference)
    name, _, text = reference.rpartition("=")
    folder = Path(text) if _is_dir(text) else None
    path = Path(text) if folder is None else folder / "config.json"
    if (name or folder) and _is_file(str(path)):
        config = read_json(path, "a model's config.json")
        if is_head(config):
            own = name or path.parent.resolve().name
            return FoundHead(head_of_config(config, verifier, own, str(path)), folder)
    return resolve(reference)


def pair(reference: str) -> Pair:
    """The shapes of `DRAFT:VERIFIER`, `toy` or `toy-eagle3`.

    Raises:
        InputError: not two references, or one that cannot be resolved.
    """
    draft, verifier = resolve_pair(reference)
    return Pair(draft.shape, verifier.shape)


def _is_dir(text: str) -> bool:
    """Whether `text`, which may be anything, is the path of a directory."""
    try:
        return Path(text).is_dir()
    except (OSError, ValueError):  # too long, or with a NUL in it
        return False


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def _checkpoint(folder: Path, name: str) -> FoundModel:
    return FoundModel(_read(folder / "config.json", name), folder)


def _read(path: Path, name: str) -> ModelShape:
    return shape_of_config(read_json(path, "a model's config.json"), name, str(path))
