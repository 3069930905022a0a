"""Whatever a JSON file holds, it is read or refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdvsim.errors import InputError
from pdvsim.json_file import parse_json, read_json, read_json_lines

WHAT = "a pdvsim profile"
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
)


@given(JSON.filter(lambda value: "\\ud" not in json.dumps(value, ensure_ascii=False)))
def test_what_python_writes_is_read_back(document: object) -> None:
    assert parse_json(json.dumps(document), "x", WHAT) == document


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_json(text, "x", WHAT)
    except InputError as error:
        assert str(error).startswith("x: ")


REFUSED = {
    "a missing file": (None, "cannot read"),
    "an empty file": (b"\n", "empty"),
    "half a document": (b'{"a": [1, 2', "line 1 column 12"),
    "UTF-16": ("{}".encode("utf-16"), "saved as UTF-8"),
    "a bad byte": (b'{"a": "\xff"}', "saved as UTF-8"),
    "half of a pair": (b'{"a": "\\uD800"}', "half of a character"),
    "100,000 brackets": (b"[" * 100_000, "nest more than 100 deep"),
    "depth 101": (b"[" * 102 + b"]" * 102, "nest more than 100 deep"),
    "5,000 digits": (b"[" + b"7" * 5000 + b"]", "of 5,000 digits"),
    "2^63": (b"[9223372036854775808]", "beyond 64 bits"),
    "1e999": (b'{"a": -1e999}', "beyond 1.8e308"),
    "NaN": (b'{"a": NaN}', "null stands for"),
    "too many values": (b"[" + b"0," * 10_000_001 + b"0]", "10,000,000 values"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_what_is_wrong_and_what_is_needed(name: str, tmp_path: Path) -> None:
    content, message = REFUSED[name]
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_json(path, WHAT)
    assert WHAT in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))


def test_a_byte_order_mark_and_100_levels_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b"\xef\xbb\xbf" + b"[" * 100 + b"]" * 100)
    assert read_json(path, WHAT)


def test_endless_devices_and_impossible_paths_are_refused() -> None:
    with pytest.raises(InputError, match="larger than 256 MiB"):
        read_json(Path("/dev/zero"), WHAT)
    with pytest.raises(InputError, match="cannot read"):
        read_json(Path("/tmp"), WHAT)
    with pytest.raises(InputError, match="cannot read"):
        read_json(Path("a\0b"), WHAT)


def test_other_programs_may_write_infinity() -> None:
    assert parse_json('{"rate": Infinity, "x": 1e999}', "x", WHAT, finite=False) == {
        "rate": float("inf"),
        "x": float("inf"),
    }


def test_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n\n[2]\n')
    assert read_json_lines(path, WHAT) == [{"a": 1}, [2]]
    path.write_text('{"a": 1}\n{"a"\n')
    with pytest.raises(InputError, match="line 2: not a whole"):
        read_json_lines(path, WHAT)
