"""Models by name: shapes that ship, checkpoints on disk, and pairs of them.

A *reference* says which model is meant:
    NAME              a shape that ships (`data/models/`), in any case
    DIRECTORY         a Hugging Face checkpoint; its shape bears the directory's name
    NAME=DIRECTORY    the same under a name of one's own
    NAME=FILE         the shape of a `config.json`, without weights
A pair is written `DRAFT:VERIFIER`; `toy` is the trained pair that ships with the engine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from pdvsim.errors import InputError
from pdvsim.json_file import read_json
from pdvsim.model_config import shape_of_config
from pdvsim.model_shape import BYTES_PER_PARAMETER, ModelShape, Rope

__all__ = [
    "BYTES_PER_PARAMETER",
    "TOY",
    "FoundModel",
    "ModelShape",
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
TOY = "toy"
_TOY_PAIR = "toy-draft:toy-verifier"


@dataclass(frozen=True, slots=True)
class Pair:
    """A draft model and the verifier that checks it."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    draft: ModelShape
    verifier: ModelShape

    @property
    def name(self) -> str:
        return f"{self.draft.name}:{self.verifier.name}"

    @property
    def weight_bytes(self) -> int:
        return self.draft.weight_bytes + self.verifier.weight_bytes

    def difference(self, other: Pair) -> str:
        """What makes `other` take another time than this pair; empty if nothing does."""
        sides = (
            ("draft", self.draft.difference(other.draft)),
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


def resolve_pair(reference: str) -> tuple[FoundModel, FoundModel]:
    """Draft and verifier of `DRAFT:VERIFIER` or `toy`.

    Raises:
        InputError: not two references, or one that cannot be resolved.
    """
    text = _TOY_PAIR if reference.lower() == TOY else reference
    draft, colon, verifier = text.partition(":")
    if not colon or not draft or not verifier:
        raise InputError(
            "a pair is written DRAFT:VERIFIER, for example tinyllama-1.1b:llama-2-7b, or toy; "
            f"got {reference!r}"
        )
    return resolve(draft), resolve(verifier)


def pair(reference: str) -> Pair:
    """The shapes of `DRAFT:VERIFIER` or `toy`.

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
