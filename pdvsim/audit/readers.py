"""Any benchmark file into `Table`: finds the format and calls its reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pdvsim.audit import ours, plain_csv
from pdvsim.audit.foreign.aiperf import read_aiperf
from pdvsim.audit.foreign.guidellm import read_guidellm
from pdvsim.audit.foreign.items import Item, csv_items, read_items, refusal, writer
from pdvsim.audit.foreign.llmperf import read_llmperf
from pdvsim.audit.foreign.vllm import read_sglang, read_vllm
from pdvsim.audit.piped import STDIN, as_file
from pdvsim.audit.table import Cell, Table
from pdvsim.errors import InputError
from pdvsim.models import Pair
from pdvsim.pdverify.audited import read_pdverify
from pdvsim.pdverify.tables import is_summary

FOREIGN: dict[str, Callable[[Sequence[Item]], list[Cell]]] = {
    "vllm": read_vllm,
    "sglang": read_sglang,
    "aiperf": read_aiperf,
    "guidellm": read_guidellm,
    "llmperf": read_llmperf,
}
FORMATS = ("auto", "pdverify", *FOREIGN, "csv", "pdvsim")


def read(
    path: Path,
    detail: Path | None = None,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    models: Pair | None = None,
) -> Table:
    """Read a benchmark table, also through a pipe; `-` is standard input.

    Args:
        detail: the requests one by one (pdverify and csv).
        columns: canonical name -> column of the file (csv).
        models: the pair of every cell whose row names none.

    Raises:
        InputError: the file is absent, damaged, or of no known format.
    """
    if format not in FORMATS:
        raise InputError(f"unknown format {format!r}; known are {', '.join(FORMATS)}")
    if path != STDIN and not path.exists():
        raise InputError(f"{path}: no such file")
    with as_file(path) as file:
        table = _read_file(file, detail, format, columns, models)
    if file != path:
        table = replace(table, source="standard input" if path == STDIN else str(path))
    if models is not None:
        cells = tuple(replace(c, pair=c.pair or models) for c in table.cells)
        table = replace(table, cells=cells)
    return table


def _read_file(
    path: Path,
    detail: Path | None,
    format: str,
    columns: Mapping[str, str] | None,
    models: Pair | None,
) -> Table:
    text = _is_text_table(path, columns) if format == "auto" else format in ("csv", "pdverify")
    if not text and (columns or detail is not None):
        what = "a column map" if columns else "a detail table"
        raise InputError(f"{what} goes with csv and pdverify tables; {path} is none")
    if text:
        table = _read_text_table(path, detail, format, columns, models)
    elif path.suffix == ".parquet":
        table = ours.read_parquet(path)
    else:
        table = _read_json(path, format)
    if not table.cells:
        raise InputError(f"{path}: no rows in it")
    return table


def _is_text_table(path: Path, columns: Mapping[str, str] | None) -> bool:
    if path.is_dir() or path.suffix in (".parquet", ".json", ".jsonl"):
        return False
    if columns:
        return True
    try:
        with path.open(encoding="utf-8-sig") as file:
            start = file.read(4096).lstrip()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path}: neither JSON, Parquet nor CSV") from None
    return not start.startswith(("{", "["))


def _read_text_table(
    path: Path,
    detail: Path | None,
    format: str,
    columns: Mapping[str, str] | None,
    models: Pair | None,
) -> Table:
    if format == "auto":
        format = "csv" if columns or not is_summary(path) else "pdverify"
        if not columns and detail is None and format == "csv":
            items = csv_items(path)
            wrote = writer(items[0].content)
            if wrote in FOREIGN:  # vLLM's summary.csv of a sweep
                return Table(str(path), wrote, tuple(FOREIGN[wrote](items)))
    if format == "csv":
        return plain_csv.read_plain_csv(path, detail, columns or {})
    if columns:
        raise InputError(f"a column map is for csv tables; {path} was read as pdverify")
    return read_pdverify(path, detail, models)


def _read_json(path: Path, format: str) -> Table:
    """A table of one format; a folder must not mix them.

    Raises:
        InputError: also for an object that nobody writes as a result.
    """
    items, left_out = read_items(path)
    if format == "auto":
        writers = {writer(item.content): item for item in items}
        if None in writers:
            raise refusal(writers[None])
        if len(writers) > 1:
            named = " and ".join(
                f"{name} ({item.path.name})" for name, item in writers.items() if name
            )
            raise InputError(f"{path}: results of {named} together; audit one after the other")
        format = next(name for name in writers if name)
    if format == "pdvsim":
        return replace(ours.read_objects(path, items), left_out=tuple(left_out))
    return Table(str(path), format, tuple(FOREIGN[format](items)), tuple(left_out))
