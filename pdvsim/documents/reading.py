"""Reads a document: of this version, of the one before, or of the time before they were typed.

A key that is missing or unknown, or a value of another kind, is one sentence that names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pdvsim.documents.base import SCHEMA_VERSION, Document
from pdvsim.errors import InputError
from pdvsim.json_file import parse_json, read_text

# Kind of document: the module and the class that it is.
KINDS = {
    "predict": ("cells", "Prediction"),
    "bench": ("benchmark", "Benchmark"),
    "validate": ("validation", "Validation"),
    "explain": ("explanation", "Explanation"),
    "crossover": ("crossover", "Crossover"),
    "ablate": ("ablation", "Ablation"),
    "reproduce": ("tables", "Reproduction"),
    "audit": ("tables", "Audit"),
}
WHAT = "a document of pdvsim"


def read(source: str | Path) -> Document:
    """The document in a file, or in a text that begins with `{`.

    Raises:
        InputError: it is no document, or not as pdvsim writes it; the sentence names the key.
    """
    if isinstance(source, str) and source.lstrip().startswith("{"):
        return read_text_of(source, "the document")
    path = Path(source)
    return read_text_of(read_text(path, WHAT), str(path))


def read_text_of(text: str, source: str) -> Document:
    """The document in `text`; `source` says where it stood, for errors."""
    return parse(parse_json(text, source, WHAT), source)


def parse(content: Any, source: str) -> Document:
    """The document in plain JSON types."""
    if not isinstance(content, Mapping):
        raise InputError(f"{source}: not {WHAT}, which is a JSON object")
    if "kind" in content or "pdvsim" in content:
        return _parse_typed(content, source)
    from pdvsim.documents.upgrade import upgraded

    return upgraded(content, source, validated)


def _parse_typed(content: Mapping[str, Any], source: str) -> Document:
    for key in ("kind", "schema_version"):
        if key not in content:
            raise InputError(f"{source}: the document lacks the key {key!r}")
    if not isinstance(content["kind"], str) or content["kind"] not in KINDS:
        raise InputError(
            f"{source}: {content['kind']!r} is no kind of document; known are {', '.join(KINDS)}"
        )
    version = content["schema_version"]
    if version == 1:
        from pdvsim.documents.upgrade.first import upgraded

        content = upgraded(content)
    elif version != SCHEMA_VERSION:
        raise InputError(
            f"{source}: schema_version is {version!r}; this pdvsim reads documents of versions 1 "
            f"and {SCHEMA_VERSION}"
        )
    return validated(content, source)


def model(kind: str) -> type[Document]:
    """The class of a kind of document."""
    module, name = KINDS[kind]
    found: type[Document] = getattr(import_module(f"pdvsim.documents.{module}"), name)
    return found


def validated(content: Mapping[str, Any], source: str) -> Document:
    """`content` as the document of its kind.

    Raises:
        InputError: naming the first key that is missing, unknown or of another kind.
    """
    expected = model(content["kind"])
    try:
        return expected.model_validate(content)
    except ValidationError as error:
        why = _why(error)
    except InputError as error:  # a cell that cannot be
        why = str(error)
    raise InputError(f"{source}: not a document of pdvsim {content['kind']}: {why}")


def _why(error: ValidationError) -> str:
    """The first fault: what is missing comes before what is unknown, as a renamed key is both."""
    faults = error.errors(include_url=False, include_input=False)
    missing = [fault for fault in faults if fault["type"] in ("missing", "missing_argument")]
    unknown = [
        fault
        for fault in faults
        if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument")
    ]
    if missing:
        *place, key = missing[0]["loc"]
        beside = [fault["loc"][-1] for fault in unknown if [*fault["loc"][:-1]] == place]
        also = f", and has {beside[0]!r}, which is unknown" if beside else ""
        return f"{_place(place)} lacks the key {key!r}{also}"
    if unknown:
        *place, key = unknown[0]["loc"]
        return f"{_place(place)} has the key {key!r}, which is unknown"
    first = faults[0]
    message = first["msg"].removeprefix("Value error, ")
    return f"{_place(first['loc'])}: {message[:1].lower()}{message[1:]}"


def _place(location: Sequence[int | str]) -> str:
    """`cells[0].metrics`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.lstrip(".") or "it"
