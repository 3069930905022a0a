"""Documents: what is written is read again, and what is not as written is refused by name."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any

import pytest
from rich.console import Console

from pdvsim.documents import read
from pdvsim.documents.reading import parse
from pdvsim.documents.shown import show
from pdvsim.errors import InputError
from tests import kinds

# Maps whose keys are names of things that a document is about, not keys of documents.
THINGS = {"evidence", "round_ms", "threads_of_first_run", "streams_of_first_run", "parameters"}
RENAMED = "_renamed"


def short(content: Any) -> Any:
    """`content` with at most two objects in a list, so that each key is met soon."""
    if isinstance(content, dict):
        return {key: short(value) for key, value in content.items()}
    if not isinstance(content, list):
        return content
    objects = any(isinstance(item, dict) for item in content)
    return [short(item) for item in (content[:2] if objects else content)]


def paths(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every key, each kind of place once."""
    if isinstance(content, dict):
        for key, value in content.items():
            if not THINGS & set(path[-2:]):
                yield (*path, key)
            yield from paths(value, (*path, key))
    elif isinstance(content, list):
        for i, item in enumerate(content):
            yield from paths(item, (*path, i))


def with_renamed(content: Any, path: tuple[Any, ...]) -> Any:
    """A copy in which one key has another name, at its place."""
    if len(path) == 1:
        return {key + RENAMED * (key == path[0]): value for key, value in content.items()}
    if isinstance(content, dict):
        changed = with_renamed(content[path[0]], path[1:])
        return {**content, path[0]: changed}
    copied = list(content)
    copied[path[0]] = with_renamed(content[path[0]], path[1:])
    return copied


def refuses_every_renamed_key(content: dict[str, Any]) -> int:
    """The number of keys that were renamed, each refused by name."""
    seen = set()
    for path in paths(short(content)):
        place = tuple("[]" if isinstance(part, int) else part for part in path)
        if place in seen:
            continue
        seen.add(place)
        with pytest.raises(InputError, match=str(path[-1])):
            parse(with_renamed(short(content), path), "it")
            pytest.fail(f"{'.'.join(map(str, path))} was renamed, and nobody noticed")
    return len(seen)


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_every_renamed_key_is_refused_by_name(kind: str) -> None:
    content = kinds.plain(kinds.document(kind))
    assert refuses_every_renamed_key(content) >= (28 if kind == "audit" else 40)


def test_a_key_that_a_recorded_cell_lacks_is_refused_by_name() -> None:
    content = kinds.plain(kinds.document("predict"))
    del content["cells"][0]["cell"]["seed"]
    with pytest.raises(InputError, match=r"cells\[0\].cell: the cell lacks the key 'seed'"):
        parse(content, "it")


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_every_renamed_key_of_an_old_document_is_refused_by_name(kind: str) -> None:
    assert refuses_every_renamed_key(kinds.old(kind)) >= (15 if kind == "audit" else 30)


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_what_is_written_is_read_again(kind: str, tmp_path: Path) -> None:
    document = kinds.document(kind)
    assert read(document.save(tmp_path / "it.json")) == document
    assert read(document.to_json()) == document


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_a_document_shows_itself(kind: str) -> None:
    document = kinds.document(kind)
    assert len(repr(document)) < 1500
    assert document.verdict.sentence in repr(document)
    page = document._repr_html_()
    assert "<table>" in page
    assert page.count("<td") == page.count("</td>")
    frame = document.frame()
    assert len(frame) == len(list(document.rows()))
    if kind != "audit":
        assert {"value", "low", "high", "unit"} <= set(frame.columns)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "not the output of a pdvsim command"),
        ('{"kind": "predict"}', "lacks the key 'schema_version'"),
        ('{"kind": "poem", "schema_version": 1}', "'poem' is no kind of document"),
        ('{"kind": ["predict"], "schema_version": 1}', "is no kind of document"),
        ('{"kind": "audit", "schema_version": 9}', "schema_version is 9; this pdvsim reads"),
        ('{"schema_version": 1, "pdvsim": "0.1"}', "lacks the key 'kind'"),
        ('{"command": "predict"}', "lacks the key 'arguments'"),
        ('{"command": "ablate", "parts": 3}', "lacks the key 'profile'"),
        ('{"command": "explain", "cells": {}}', "cells is not a list"),
        ('{"command": "explain", "cells": [3]}', "is not an object"),
        ("{", "not a whole JSON document"),
    ],
)
def test_what_is_no_document_is_one_sentence(text: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        read(text)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_value_of_another_kind_is_refused_with_its_place() -> None:
    content = kinds.plain(kinds.document("predict"))
    content["cells"][1]["metrics"]["output_throughput"]["value"] = "fast"
    with pytest.raises(InputError, match=r"cells\[1\]\.metrics\.output_throughput\.value: "):
        parse(content, "it")


def test_an_impossible_cell_is_refused() -> None:
    content = kinds.plain(kinds.document("predict"))
    content["cells"][0]["cell"]["draft_tokens"] = 99
    with pytest.raises(InputError, match="99; it must be between 1 and 16"):
        parse(content, "it")


def test_label_and_cell_cannot_tell_two_loads() -> None:
    content = kinds.plain(kinds.document("predict"))
    content["cells"][0]["concurrency"] = 7
    with pytest.raises(InputError, match="concurrency is 7, but 128 in its cell"):
        parse(content, "it")


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_documents_are_copied_and_sent_to_processes(kind: str) -> None:
    document = kinds.document(kind)
    assert pickle.loads(pickle.dumps(document)) == document
    assert copy.deepcopy(document) == document


def test_cells_are_found_by_label_and_metrics_by_name() -> None:
    from pdvsim.documents.cells import Prediction

    found = kinds.document("predict")
    assert isinstance(found, Prediction)
    throughput = found["pd"].output_throughput
    assert throughput.value == pytest.approx(7449, abs=1)
    assert found["plain"].spec_decode_acceptance_rate is None
    with pytest.raises(InputError, match="'pdx' is not there; labels are plain"):
        found["pdx"]


def test_the_committed_results_all_open() -> None:
    opened = 0
    for path in (kinds.ROOT / "results").rglob("*.json"):
        content = json.loads(path.read_text())
        if isinstance(content, dict) and content.get("command") in kinds.KINDS:
            document = read(path)
            assert document.verdict.sentence
            opened += 1
    assert opened >= 30


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_the_schemas_are_those_of_the_models(kind: str) -> None:
    from pdvsim.documents import schema

    path = kinds.ROOT / "docs" / "schema" / f"{kind}.json"
    written = path.read_text(encoding="utf-8")
    assert written == schema.text(kind), "run: python -m pdvsim.documents.schema docs/schema"


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_documents_keep_their_schema(kind: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    from pdvsim.documents.schema import schema

    jsonschema.validate(kinds.plain(kinds.document(kind)), schema(kind))


ODD = (0, -1, 1e308, -1e308, 5e-324, 2**63 - 1, "", "x", [], {}, None, True, [1], {"a": 1})


@pytest.mark.parametrize("kind", kinds.KINDS)
@pytest.mark.parametrize("old", [False, True])
def test_a_changed_value_is_refused_or_can_be_shown(kind: str, old: bool) -> None:
    content = short(kinds.old(kind) if old else kinds.plain(kinds.document(kind)))
    every = list(paths(content))
    random = Random(kind)
    for _ in range(60):
        changed = copy.deepcopy(content)
        *way, key = random.choice(every)
        place = changed
        for part in way:
            place = place[part]
        place[key] = random.choice(ODD)
        try:
            document = parse(changed, "it")
        except InputError as refused:
            assert "\n" not in str(refused)
            continue
        show(document, Console(file=StringIO(), width=80))
        assert document.frame() is not None
        assert parse(kinds.plain(document), "it") == document
