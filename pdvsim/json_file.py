"""The one reader of JSON, which comes from people and may be anything.

Every failure is one sentence that says what is wrong and what is needed. What is read fits in
memory (256 MiB of text, 10 million values), nests at most 100 deep, and holds no number that
arithmetic can't: integers have 64 bits, and NaN and infinities are not JSON.
"""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

from pdvsim.errors import InputError

MOST_BYTES = 256 << 20
MOST_VALUES = 10_000_000
MOST_NESTED = 100


def read_json(path: Path, what: str, finite: bool = True) -> Any:
    """The document in the file `path`.

    Args:
        what: the kind of file that is needed, for errors: "a pdvsim profile".
        finite: False admits NaN and Infinity, as some programs write them.

    Raises:
        InputError: not there, or not such a document.
    """
    return parse_json(read_text(path, what), f"{path}", what, finite)


def read_json_lines(path: Path, what: str, finite: bool = True) -> list[Any]:
    """The documents in `path`, one to a line; empty lines are skipped.

    Raises:
        InputError: not there, or a line is not a JSON document.
    """
    return parse_json_lines(read_text(path, what), f"{path}", what, finite)


def read_text(path: Path, what: str) -> str:
    """The text of the file `path`, UTF-8 with or without a byte order mark.

    Raises:
        InputError: not there, larger than `MOST_BYTES`, or not such text.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path}: {reason}; {what} is needed") from None
    if len(content) > MOST_BYTES:
        raise InputError(f"{path}: larger than {MOST_BYTES >> 20} MiB; {what} is smaller")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; {what} is needed, saved as UTF-8") from None


def parse_json(text: str, source: str, what: str, finite: bool = True) -> Any:
    """The document that `text` holds; `source` says where it stood, for errors.

    Raises:
        InputError: it is not such a document.
    """
    if not text or text.isspace():
        raise InputError(f"{source}: empty; {what} is needed")
    if text.count(",") + text.count("[") + text.count("{") > MOST_VALUES:
        raise InputError(f"{source}: more than {MOST_VALUES:,} values; {what} has fewer")
    constant = float if not finite else _no_constant
    parse_float = float if not finite else _finite
    try:
        document = json.loads(
            text, parse_int=_integer, parse_float=parse_float, parse_constant=constant
        )
        if "\\ud" in text or "\\uD" in text:  # half of a pair of surrogates can't be written again
            json.dumps(document, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise InputError(
            f"{source}: not a whole JSON document ({error.msg}: {where}); {what} is needed"
        ) from None
    except RecursionError:
        raise _too_deep(source, what) from None
    except UnicodeEncodeError:
        raise InputError(f"{source}: holds half of a character; {what} is needed") from None
    except _Number as error:
        raise InputError(f"{source}: {error}; {what} has none") from None
    if _nested_deeper(document, MOST_NESTED):
        raise _too_deep(source, what)
    return document


def parse_json_lines(text: str, source: str, what: str, finite: bool = True) -> list[Any]:
    """The documents that the lines of `text` hold; empty lines are skipped.

    Raises:
        InputError: a line is not a JSON document.
    """
    if text.count("\n") > MOST_VALUES:
        raise InputError(f"{source}: more than {MOST_VALUES:,} lines; {what} has fewer")
    parse = partial(parse_json, what=what, finite=finite)
    return [
        parse(line, f"{source}, line {number}")
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]


class _Number(Exception):
    """A number that is refused."""


def _integer(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= (value := int(text)) < 2**63:
        shown = text if len(text) <= 40 else f"of {len(text):,} digits"
        raise _Number(f"an integer beyond 64 bits ({shown})")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _Number(f"a number beyond 1.8e308 ({text[:40]})")
    return value


def _no_constant(text: str) -> float:
    raise _Number(f"{text}, which is not JSON (null stands for an unknown number)")


def _nested_deeper(document: Any, levels: int) -> bool:
    """Whether lists and objects nest more than `levels` deep."""
    level = [document]
    for _ in range(levels + 1):
        level = [
            child
            for value in level
            if isinstance(value, (list, dict))
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, (list, dict))
        ]
        if not level:
            return False
    return True


def _too_deep(source: str, what: str) -> InputError:
    return InputError(
        f"{source}: lists and objects nest more than {MOST_NESTED} deep; {what} is flatter"
    )
