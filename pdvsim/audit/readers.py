"""Any benchmark file into `Table`: finds the format and calls its reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from pdvsim.audit import csv_tables, exports, rows
from pdvsim.audit.table import Table
from pdvsim.errors import InputError
from pdvsim.models import Pair

FORMATS = ("auto", "pdverify", "vllm", "aiperf", "guidellm", "csv", "pdvsim")


def read(
    path: Path,
    detail: Path | None = None,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    models: Pair | None = None,
) -> Table:
    """Read a benchmark table.

    Args:
        detail: the requests one by one (pdverify and csv).
        columns: canonical name -> column of the file (csv).
        models: the pair of every cell whose row names none.

    Raises:
        InputError: the file is absent, damaged, or of no known format.
    """
    if format not in FORMATS:
        raise InputError(f"unknown format {format!r}; known are {', '.join(FORMATS)}")
    if not path.exists():
        raise InputError(f"{path}: no such file")
    chosen = _detect(path, columns) if format == "auto" else format
    if columns and chosen != "csv":
        raise InputError(f"a column map is for csv tables; {path} was read as {chosen}")
    if detail is not None and chosen not in ("csv", "pdverify"):
        raise InputError(f"a detail table goes with csv and pdverify; {path} was read as {chosen}")
    if chosen == "csv":
        table = csv_tables.read_plain_csv(path, detail, columns or {})
    elif chosen == "pdverify":
        table = csv_tables.read_pdverify(path, detail, models)
    else:
        table = _READERS[chosen](path)
    if not table.cells:
        raise InputError(f"{path}: no rows in it")
    if models is not None:
        cells = tuple(replace(c, pair=c.pair or models) for c in table.cells)
        table = replace(table, cells=cells)
    return table


def _detect(path: Path, columns: Mapping[str, str] | None) -> str:
    if path.suffix == ".parquet":
        return "pdvsim"
    if columns:
        return "csv"
    if path.suffix in (".json", ".jsonl") or path.is_dir():
        return exports.detect(path)
    try:
        header = path.open(encoding="utf-8").readline()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path}: neither JSON, Parquet nor CSV") from None
    return "pdverify" if "Engine,Concurrency,Throughput (TPS)" in header else "csv"


_READERS: dict[str, Callable[[Path], Table]] = {
    "vllm": exports.read_vllm,
    "aiperf": exports.read_aiperf,
    "guidellm": exports.read_guidellm,
    "pdvsim": rows.read_pdvsim,
}


def parse_columns(text: str) -> dict[str, str]:
    """`name=column,name=column` -> mapping.

    Raises:
        InputError: a part without `=`, or a name twice.
    """
    columns: dict[str, str] = {}
    for part in text.split(","):
        name, equals, column = part.strip().partition("=")
        if not equals or not name or not column or name in columns:
            raise InputError(
                f"a column map is written NAME=COLUMN,NAME=COLUMN with each name once; "
                f"got {part.strip()!r}"
            )
        columns[name] = column
    return columns
