"""Reading tables that people hand us, with errors that say what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdvsim.errors import InputError
from pdvsim.json_file import read_json_lines

if TYPE_CHECKING:
    import polars as pl


def read_csv(path: Path, columns: Mapping[str, Any] | None = None) -> pl.DataFrame:
    """Read the named `columns` (name -> polars type) of a CSV file; without them all, as text.

    Raises:
        InputError: the file is absent, empty, lacks a column, or holds a value of another type.
    """
    import polars as pl

    try:
        table = pl.read_csv(path, infer_schema=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except pl.exceptions.NoDataError:
        raise InputError(f"{path}: the file is empty; a header and rows are needed") from None
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable CSV file ({_first_line(error)})") from None
    missing = [name for name in columns or () if name not in table.columns]
    if missing:
        raise InputError(
            f"{path}: missing column {listed(missing)}; it has {listed(table.columns)}"
        )
    if table.is_empty():
        raise InputError(f"{path}: the file has a header but no rows")
    if columns is None:
        return table
    for name, kind in columns.items():
        cast = table[name].str.strip_chars().cast(kind, strict=False)
        bad = cast.is_null()
        if bad.any():
            row = int(bad.arg_max() or 0)
            raise InputError(
                f"{path}: row {row + 2}, column {name}: {table[name][row]!r} is not a number"
            )
        table = table.with_columns(cast.alias(name))
    return table.select(list(columns))


def read_object_lines(path: Path, what: str) -> pl.DataFrame:
    """Read a JSON Lines file, an object a line, as text; what is nested is left out.

    Args:
        what: the kind of file that is needed, for errors.

    Raises:
        InputError: the file is absent, empty, or a line of it is no object.
    """
    import polars as pl

    rows: list[dict[str, str]] = []
    for number, item in enumerate(read_json_lines(path, what, finite=False), start=1):
        if not isinstance(item, dict):
            raise InputError(f"{path}: line {number} is not a JSON object; {what} is needed")
        rows.append(
            {
                name: str(value)
                for name, value in item.items()
                if isinstance(value, str | int | float)
            }
        )
    if not rows:
        raise InputError(f"{path}: the file is empty; {what} is needed")
    names = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame(
        {name: [row.get(name) for row in rows] for name in names},
        schema=dict.fromkeys(names, pl.String),
    )


def parse_columns(text: str) -> dict[str, str]:
    """`NAME=COLUMN,NAME=COLUMN` -> mapping. A comma that no NAME= follows belongs to the column.

    Raises:
        InputError: a part without `=`, or a name twice.
    """
    columns: dict[str, str] = {}
    for part in re.split(r",(?=\s*\w+\s*=)", text):
        name, equals, column = (piece.strip() for piece in part.partition("="))
        if not equals or not name or not column or name in columns:
            raise InputError(
                f"a column map is written NAME=COLUMN,NAME=COLUMN with each name once; "
                f"got {part.strip()!r}"
            )
        columns[name] = column
    return columns


def listed(names: Iterable[str], most: int = 30) -> str:
    """Names of columns for a sentence: on one line, the first of very many."""
    shown = [" ".join(name.split())[:80] for name in names]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
