"""Values of a cell's fields that are more than a number or a word.

Both hash, compare by what they hold, and are plain objects in JSON.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from pdvsim.errors import InputError

MOST_TOKENS = 1_000_000  # of a prompt

Spread: TypeAlias = float | str  # of lengths round their mean, as `spread_shape` reads it
_WIDEST = {"uniform": 0.99, "lognormal": 3.0}

Auto: TypeAlias = Literal["auto"]
AUTO: Final[Auto] = "auto"  # a parameter that the architecture's own rule decides

Value: TypeAlias = bool | int | float | Auto


class Values(Mapping[str, Value]):
    """A mapping of parameters that can be hashed; a plain object in JSON."""

    __slots__ = ("_items",)

    def __init__(self, values: Mapping[str, Value] | None = None) -> None:
        self._items = dict(sorted((values or {}).items()))

    def __getitem__(self, name: str) -> Value:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(tuple(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(
            cls,
            handler(dict[str, Value]),
            serialization=core_schema.plain_serializer_function_ser_schema(dict),
        )


def spread_shape(option: str, spread: Spread) -> tuple[str, float]:
    """What a spread is, and how wide.

    `0.5`, or `uniform:0.5`: evenly within +- half of the mean. `lognormal:0.8`: log-normal of the
    same mean, whose logarithm has the standard deviation 0.8.

    Raises:
        InputError: it is no spread, or too wide.
    """
    shape, colon, width = str(spread).rpartition(":")
    shape = shape.strip() if colon else "uniform"
    try:
        found, most = float(width), _WIDEST[shape]
    except (ValueError, KeyError):
        raise InputError(
            f"{option} is {spread!r}; write a share of the mean, as in 0.5, or lognormal:0.8"
        ) from None
    if not 0.0 <= found <= most:
        log = "" if shape == "uniform" else "lognormal:"
        raise InputError(f"{option} is {spread}; it must be between {log}0 and {log}{most:g}")
    return shape, found


def plain_spread(option: str, spread: Spread) -> Spread:
    """The one way to write a spread: `0.5`, `lognormal:0.8`."""
    shape, width = spread_shape(option, spread)
    return width if shape == "uniform" else f"{shape}:{width:g}"


@dataclass(frozen=True, slots=True)
class TraceFile:
    """A file of requests to replay.

    Attributes:
        sha256: of its content, so that another content under the same name is noticed; None in
            documents that are too old to know it.
        columns: which column holds what, where the format is not a known one:
            `arrival_s=COLUMN,prompt_tokens=COLUMN,output_tokens=COLUMN`.
    """

    path: str
    sha256: str | None = None
    columns: str | None = None

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    @classmethod
    def of(cls, path: Path, columns: str | None = None) -> TraceFile:
        """The trace as it stands in `path` now.

        Raises:
            InputError: it cannot be read.
        """
        return cls(str(path), digest_of(path, "trace"), columns)

    def check(self) -> None:
        """Refuse to run what is no longer the same.

        Raises:
            InputError: the file is gone, or holds something else than it did.
        """
        if self.sha256 not in (None, digest_of(Path(self.path), "trace")):
            raise InputError(f"the trace {self.path} has changed since the cell was specified")


@dataclass(frozen=True, slots=True)
class AcceptanceFile:
    """A file of measured acceptance (`pdvsim.acceptance_file`) to replay.

    Attributes:
        sha256: of its content.
    """

    path: str
    sha256: str

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    @classmethod
    def of(cls, path: Path) -> AcceptanceFile:
        """The file as it stands in `path` now.

        Raises:
            InputError: it cannot be read.
        """
        return cls(str(path), digest_of(path, "file of acceptance"))

    def check(self) -> None:
        """Refuse to replay what is no longer the same.

        Raises:
            InputError: the file is gone, or holds something else than it did.
        """
        if digest_of(Path(self.path), "file of acceptance") != self.sha256:
            raise InputError(f"the acceptance in {self.path} has changed since the cell was made")


@dataclass(frozen=True, slots=True)
class PromptFile:
    """A file of prompts (`pdvsim.prompt_file`), which requests take in turn.

    Attributes:
        sha256: of its content.
        tokens: of each prompt, in the order of the file, as the verifier's tokenizer counts them;
            None where nobody has counted yet, as `pdvsim bench` does.
    """

    path: str
    sha256: str
    tokens: tuple[int, ...] | None = None

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def __post_init__(self) -> None:
        if self.tokens is None:
            return
        object.__setattr__(self, "tokens", tuple(self.tokens))
        if not self.tokens or not all(1 <= tokens <= MOST_TOKENS for tokens in self.tokens):
            raise InputError(f"prompts of {self.path} have from 1 to {MOST_TOKENS:,} tokens each")

    @classmethod
    def of(cls, path: Path) -> PromptFile:
        """The file as it stands in `path` now.

        Raises:
            InputError: it cannot be read.
        """
        return cls(str(path), digest_of(path, "file of prompts"))

    def check(self) -> None:
        """Refuse to run what is no longer the same.

        Raises:
            InputError: the file is gone, or holds something else than it did.
        """
        if digest_of(Path(self.path), "file of prompts") != self.sha256:
            raise InputError(f"the prompts in {self.path} have changed since the cell was made")

    @property
    def mean_tokens(self) -> int:
        """Mean length, rounded; of counted prompts."""
        assert self.tokens is not None
        return max(1, round(sum(self.tokens) / len(self.tokens)))

    @property
    def said(self) -> str:
        """A sentence for notes; of counted prompts."""
        assert self.tokens is not None
        return (
            f"Prompts: the {len(self.tokens)} of {Path(self.path).name} in turn, "
            f"{min(self.tokens)} to {max(self.tokens)} tokens, {self.mean_tokens} on average."
        )


def digest_of(path: Path, what: str) -> str:
    """The SHA-256 of a file that is read again later.

    Args:
        what: it is meant to be, for errors: "trace".

    Raises:
        InputError: it cannot be read, or not twice.
    """
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            raise InputError(
                f"cannot read the {what} {path}: a pipe or device can be read once only; write it "
                "to a file first"
            )
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read the {what} {path}: {reason}") from None
