"""Reading tables that people hand us, with errors that say what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdvsim.errors import InputError

if TYPE_CHECKING:
    import polars as pl


def read_csv(path: Path, columns: Mapping[str, Any]) -> pl.DataFrame:
    """Read the named `columns` (name -> polars type) of a CSV file.

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
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise InputError(
            f"{path}: missing column {', '.join(missing)}; it has {', '.join(table.columns)}"
        )
    if table.is_empty():
        raise InputError(f"{path}: the file has a header but no rows")
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


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
