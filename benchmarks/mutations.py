"""What can be wrong with a file: one random change at a time to JSON, CSV, Parquet or any bytes."""

from __future__ import annotations

import copy
import io
import json
from random import Random
from typing import Any

import polars as pl

from pdvsim.parquet_file import sealed

VALUES: tuple[Any, ...] = (
    *(None, True, "", " ", "NaN", "x", "null", "a:b", "x" * 3000, "\u0000", "<script>", "٣", "1e5"),
    *(0, 1, -1, 2, 3.5, 0.1, -0.0, 1e-300, 5e-324, 1e9, 1e30, 1e308, -1e308, 1e18),
    *(2**31, 2**53, 2**63 - 1, -(2**63), 10**30, float("nan"), float("inf"), float("-inf")),
    *([], {}, [[]], [{}], {"": None}, [0] * 500, ["x"], {"value": 1}, [None], {"a": {"b": [1]}}),
)
CELLS = (
    *("", " ", "nan", "inf", "-inf", "-1", "0", "1", "1e308", "-1e308", "1e-320", "x", "NULL"),
    *("9" * 400, "1000000000", "2147483648", "1_000", "1,5", "0x1", "٣", '"', "'", "\t", "%"),
    *("-5.5", "40.4%", "OOM", "1e999", "9223372036854775808", "\u0000", "2024-13-45 99:99:99"),
    *("2024-01-01 00:00:00", "2099-01-01 00:00:00", "true", "a;b", "😀", "x" * 2000),
)
ODD_TEXTS = (
    b"",
    b"\n",
    b"{",
    b"[]",
    b"{}",
    b"null",
    b"1",
    b'"x"',
    b"[" * 100_000,
    b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    b"[" + b"7" * 5_000 + b"]",
    b"[1e999, -1e999, NaN]",
    b'{"\\ud800": "\\udfff"}',
    b"\xff\xfe{\x00}\x00",
    b"\x00" * 64,
    b"PAR1" + b"\x00" * 40 + b"PAR1",
    b"\x89PNG\r\n\x1a\n",
)


def bytes_mutant(rng: Random, content: bytes) -> bytes:
    """Another content altogether, or one place cut, doubled, flipped or overwritten."""
    kind = rng.randrange(9)
    if kind == 0 or not content:
        return rng.choice(ODD_TEXTS)
    at = rng.randrange(len(content))
    to = min(len(content), at + rng.choice((1, 1, 4, 40, 400)))
    if kind == 1:
        return content[:at]
    if kind == 2:
        return content[:at] + content[to:]
    if kind == 3:
        return content[:to] + content[at:to] + content[to:]
    if kind == 4:
        return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
    if kind == 5:
        return content[:at] + rng.choice((b"\xff", b"\x00", b"\n", b'"', b",")) + content[at:]
    if kind == 6:
        return content[:at] + rng.randbytes(to - at) + content[to:]
    if kind == 7:
        return b"\xef\xbb\xbf" + content
    return content.decode("latin-1").encode(rng.choice(("utf-16", "utf-8", "utf-32")))


def json_mutant(rng: Random, text: str) -> bytes:
    """One key or value changed; one time in six, one place of the text."""
    if rng.random() < 1 / 6:
        return bytes_mutant(rng, text.encode())
    document = json.loads(text)
    return json.dumps(changed(rng, document)).encode()


def changed(rng: Random, document: Any) -> Any:
    """A copy of `document` in which one place, picked by walking down at random, is another."""
    document = copy.deepcopy(document)
    holder, place = None, None
    value = document
    while isinstance(value, (dict, list)) and value and (holder is None or rng.random() < 0.85):
        place = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        holder, value = value, value[place]
    if holder is None:
        return rng.choice(VALUES)
    kind = rng.randrange(8)
    if kind == 0:
        del holder[place]
    elif kind == 1 and isinstance(holder, dict):
        holder[f"{place}_"] = holder.pop(place)
    elif kind == 2 and isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), value)
    elif kind == 3 and isinstance(value, (int, float)):
        holder[place] = value * 10.0 ** rng.randint(-12, 12)
    elif kind == 4 and isinstance(value, (int, float)):
        holder[place] = -value
    elif kind == 5 and isinstance(value, list):
        holder[place] = value[: rng.randrange(len(value) + 1)] * rng.choice((1, 1, 3))
    elif kind == 6 and isinstance(holder, dict):
        holder[place] = holder[rng.choice(list(holder))]
    else:
        holder[place] = rng.choice(VALUES)
    return document


def csv_mutant(rng: Random, text: str) -> bytes:
    """One cell, row, column or name changed; one time in five, one place of the text."""
    if rng.random() < 1 / 5:
        return bytes_mutant(rng, text.encode())
    rows = [line.split(",") for line in text.splitlines()]
    row = rng.randrange(len(rows))
    column = rng.randrange(len(rows[row])) if rows[row] else 0
    kind = rng.randrange(10)
    if kind == 0:
        del rows[row]
    elif kind == 1:
        rows.insert(row, list(rows[row]))
    elif kind == 2:
        rows = [cells[:column] + cells[column + 1 :] for cells in rows]
    elif kind == 3:
        rows = [[*cells, cells[min(column, len(cells) - 1)]] for cells in rows if cells]
    elif kind == 4:
        rng.shuffle(rows)
    elif kind == 5:
        value = rng.choice(CELLS)
        rows = rows[:1] + [
            [value if i == column else cell for i, cell in enumerate(cells)] for cells in rows[1:]
        ]
    elif rows[row]:
        rows[row][column] = rng.choice(CELLS)
    end = rng.choice(("\n", "\n", "\n", "\r\n", "\r"))
    return (end.join(",".join(cells) for cells in rows) + end).encode()


def parquet_mutant(rng: Random, content: bytes) -> bytes:
    """One column or some rows changed; one time in four, one place of the bytes."""
    if rng.random() < 1 / 4:
        return bytes_mutant(rng, content)
    table = pl.read_parquet(io.BytesIO(content))
    metadata = {
        key: value
        for key, value in pl.read_parquet_metadata(io.BytesIO(content)).items()
        if not key.startswith("ARROW")
    }
    name = rng.choice(table.columns)
    kind = rng.randrange(10)
    if kind == 0:
        table = table.drop(name)
    elif kind == 1:
        table = table.rename({name: f"{name}_"})
    elif kind == 2 and table[name].dtype != pl.List:
        table = table.with_columns(table[name].cast(pl.String, strict=False).alias(name))
    elif kind == 3:
        table = table.head(rng.randrange(len(table) + 1))
    elif kind == 4:
        table = pl.concat([table, table.slice(rng.randrange(len(table)), 3)])
    elif kind == 5:
        table = table.reverse() if rng.random() < 0.3 else table.sample(len(table), shuffle=True)
    elif kind == 6:
        table = table.with_columns(table[name].shift(1).alias(name))
    elif kind == 7 and metadata:
        key = rng.choice(list(metadata))
        metadata[key] = json_mutant(rng, metadata[key]).decode("latin-1")
    elif table[name].dtype.is_numeric():
        table = table.with_columns(_column(rng, table[name]).alias(name))
    else:
        table = table.with_columns(pl.lit(None).alias(name))
    return parquet_bytes(table, metadata)


def _column(rng: Random, values: pl.Series) -> pl.Series:
    """The column with one value, or all, changed."""
    new = values.to_list()
    at = rng.randrange(len(new))
    other = rng.choice((None, 0, -1, 1e308, -1e308, float("nan"), float("inf"), 2**40, 0.5))
    everywhere = rng.random() < 0.3
    negated = rng.random() < 0.3
    for i, value in enumerate(new):
        if i == at or everywhere:
            new[i] = -value if negated and value is not None else other
    return pl.Series(values.name, new, strict=False)


def parquet_bytes(table: pl.DataFrame, metadata: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    table.write_parquet(buffer, metadata=metadata or None)
    return sealed(buffer.getvalue())
