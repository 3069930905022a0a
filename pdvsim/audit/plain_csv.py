"""Any CSV as a `Table`, its columns by the names of `Row` or mapped to them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from pdvsim.audit.fields import UNIT_S, NotANumber, Number, heading_unit, number, time_unit
from pdvsim.audit.rows import NAMES, SETTINGS, to_cell
from pdvsim.audit.table import Cell, Served, Table
from pdvsim.errors import InputError
from pdvsim.tables import listed, read_csv

_TEXT = frozenset({"system", "pair", "id"})
_DETAIL = (
    *("system", "load", "id", "e2el_ms"),
    *("output_tokens", "drafted_tokens", "accepted_tokens"),
)


def read_plain_csv(path: Path, detail: Path | None, columns: Mapping[str, str]) -> Table:
    """A CSV whose columns bear the names of `Row`, or are mapped to them.

    Times may be given in another unit by their name (`mean_e2el_s` for `mean_e2el_ms`), or by a
    heading that states it ("E2E (s)"). A word where a number should be ("OOM") makes the value
    unknown, a row of nothing else is left out; both are named.

    The detail file has the columns system, load, id, e2el_ms and, if known, output_tokens,
    drafted_tokens, accepted_tokens; every other column that ends in `_ms` is a time too. The
    map applies to both files.

    Raises:
        InputError: an unknown name in the map, a missing column, or no number in the table.
    """
    known = {*NAMES, *_DETAIL}
    unknown = sorted(name for name in columns if _canonical(name, known) is None)
    if unknown:
        raise InputError(
            f"unknown in the column map: {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    requests = _detail_rows(detail, columns) if detail is not None else {}
    table = read_csv(path)
    fields = _fields(table, columns, NAMES, path)
    if not {field.name for field in fields} - SETTINGS:
        raise InputError(
            f"{path}: none of its columns ({listed(table.columns)}) is a result that I know; "
            f"map them with --columns NAME=COLUMN,... (names: {', '.join(sorted(NAMES))})"
        )
    cells: list[Cell] = []
    left_out: list[str] = []
    for row, texts in enumerate(table.iter_rows(named=True), start=2):
        values, words, step = _values(fields, texts, f"{path}: row {row}")
        if not values.keys() - SETTINGS:
            left_out.append(_why(values, words, row, whole=True))
            continue
        cell = to_cell(values, path)
        if words:
            left_out.append(_why(values, words, row, whole=False))
        served = requests.get((cell.system, cell.load), ())
        cells.append(replace(cell, resolution=step, requests=served))
    if not cells:
        raise InputError(f"{path}: no row of it has a number as a result; {left_out[0]}")
    return Table(str(path), "csv", tuple(cells), tuple(left_out))


@dataclass(frozen=True, slots=True)
class _Field:
    """A canonical name, the column that holds it, and what brings its times to the name's unit."""

    name: str
    column: str
    scale: float


def _canonical(name: str, known: Iterable[str]) -> str | None:
    """The known name that is `name` but for the unit of time; itself where it is known."""
    known = set(known)
    if name in known or time_unit(name) is None:
        return name if name in known else None
    stem = name.rpartition("_")[0]
    return next((f"{stem}_{unit}" for unit in UNIT_S if f"{stem}_{unit}" in known), None)


def _fields(
    table: pl.DataFrame, columns: Mapping[str, str], known: Iterable[str], path: Path
) -> list[_Field]:
    """The fields of a table, in its order.

    Raises:
        InputError: a mapped column is missing.
    """
    known = set(known)
    given = {name: column for name, column in columns.items() if _canonical(name, known)}
    missing = [column for column in given.values() if column not in table.columns]
    if missing:
        raise InputError(
            f"{path}: missing column {listed(missing)}; it has {listed(table.columns)} "
            "(map them with --columns NAME=COLUMN,...)"
        )
    named = {name: name for name in table.columns if _canonical(name, known)} | given
    fields: dict[str, _Field] = {}
    for name, column in named.items():
        canonical = _canonical(name, known) or name
        unit = time_unit(canonical)
        scale = 1.0
        if unit is not None:
            stated = heading_unit(column) or time_unit(name) or unit
            scale = UNIT_S[stated] / UNIT_S[unit]
        fields[canonical] = _Field(canonical, column, scale)
    return list(fields.values())


def _values(
    fields: Sequence[_Field], texts: Mapping[str, str | None], where: str
) -> tuple[dict[str, Any], dict[str, str], float]:
    """(values by name, words in place of numbers, printed step of the throughput) of a row.

    Raises:
        InputError: a text that is neither number nor word.
    """
    values: dict[str, Any] = {}
    words: dict[str, str] = {}
    step = 0.0
    for field in fields:
        text = texts[field.column]
        if text is None or not text.strip():
            continue
        if field.name in _TEXT:
            values[field.name] = text.strip()
            continue
        try:
            found = number(text)
        except NotANumber as error:
            raise InputError(f"{where}, column {field.column}: {error}") from None
        if isinstance(found, str):
            words[field.column] = found
        elif isinstance(found, Number):
            values[field.name] = found.value * field.scale
            step = found.step if field.name == "output_throughput" else step
    return values, words, step


def _why(values: Mapping[str, Any], words: Mapping[str, str], row: int, whole: bool) -> str:
    """What was left out of a row: all of it, or the words in it."""
    load = next((values[name] for name in ("load", "concurrency") if name in values), None)
    name = str(values.get("system", "the cell")) + ("" if load is None else f" @ {load:g}")
    said = ", ".join(f"{column} is {word!r}" for column, word in words.items())
    if whole:
        return f"{name} (row {row}): no number" + (f", {said}" if said else "")
    return f"{name} (row {row}): {said}, where a number is needed"


def _detail_rows(
    path: Path, columns: Mapping[str, str]
) -> dict[tuple[str, float | None], tuple[Served, ...]]:
    table = read_csv(path)
    times = [name for name in table.columns if name.endswith("_ms")]
    own = {name: column for name, column in columns.items() if column in table.columns}
    fields = _fields(table, own, dict.fromkeys((*_DETAIL, *times)), path)
    if not {field.name for field in fields} - {"system", "load", "id"}:
        raise InputError(
            f"{path}: no column of requests ({', '.join(_DETAIL)}); it has {listed(table.columns)}"
        )
    served: dict[tuple[str, float | None], list[Served]] = defaultdict(list)
    for i, texts in enumerate(table.iter_rows(named=True)):
        row, _, _ = _values(fields, texts, f"{path}: row {i + 2}")
        timings = [v for name, v in row.items() if name.endswith("_ms") and name != "e2el_ms"]
        served[row.get("system", "all"), row.get("load")].append(
            Served(
                id=row.get("id", str(i)),
                latency_s=row["e2el_ms"] / 1e3 if "e2el_ms" in row else None,
                timings=tuple(value / 1e3 for value in timings),
                output_tokens=_count(row, "output_tokens", path, i),
                drafted=_count(row, "drafted_tokens", path, i),
                accepted=_count(row, "accepted_tokens", path, i),
            )
        )
    return {key: tuple(rows) for key, rows in served.items()}


def _count(row: Mapping[str, float], name: str, path: Path, index: int) -> int | None:
    if name not in row:
        return None
    if row[name] != row[name] or abs(row[name]) > 1e15:
        raise InputError(f"{path}: row {index + 2}: {name} is {row[name]:g}")
    return round(row[name])
