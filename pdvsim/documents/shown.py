"""A document for people: in the terminal, and in a notebook. Both show the same words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Literal

from pdvsim.documents.base import Calibration, Document, Machine, Table
from pdvsim.output import number

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

GAP = 2  # between columns
FOLDED = 40  # characters of a column that holds sentences
STYLE = "text-align: right; vertical-align: top; padding: 2px 10px 2px 0"


def lines(document: Document) -> Iterator[str]:
    """What stands below the tables, a sentence each."""
    yield from dict.fromkeys(document.said())
    if document.verdict.caveats:
        yield document.verdict.badge + "."
    yield from document.notes
    yield from _length(document)
    yield f"Intervals: {document.interval}. Valid for {document.valid_for}."
    origin = getattr(document, "profile", None) or getattr(document, "machine", None)
    if origin is not None:
        yield _origin(origin)


def _length(document: Document) -> Iterator[str]:
    """How long the runs are that all this rests on."""
    rows = (getattr(row, "length", None) for row in getattr(document, "cells", None) or ())
    found = [length for length in (getattr(document, "length", None), *rows) if length is not None]
    known = [(one.seconds, one.requests) for one in found if one.seconds and one.requests]
    if known:
        seconds, requests = (_span(sorted(column)) for column in zip(*known, strict=True))
        yield f"Each run lasted {seconds} s after its warm-up, with {requests} requests."


def _span(values: Sequence[float]) -> str:
    """`5`, or `5 to 9`."""
    ends = dict.fromkeys(number(value) for value in (values[0], values[-1]))
    return " to ".join(ends)


def _origin(origin: Calibration | Machine) -> str:
    what = f"Calibrated: {origin.name}" if isinstance(origin, Calibration) else "Measured"
    return (
        f"{what} on {origin.gpu} (driver {origin.driver}, torch {origin.torch}), {origin.created}."
    )


def show(document: Document, page: Console) -> None:
    """Print it. A table that is wider than the page goes on below, its first column repeated."""
    page.print(document.subject, style="bold", markup=False)
    for table in document.tables():
        if table.title:
            page.print(table.title, markup=False)
        for part in _fitting(table, page.width):
            page.print(_rich(part))
    for line in lines(document):
        page.print(line, markup=False)


def _fitting(table: Table, width: int) -> Iterator[Table]:
    """`table` in parts that are no wider than `width`."""
    wide = [_width(table, i) + GAP for i in range(len(table.head))]
    names = 1 + (table.head[0] == "C")  # columns that say which line it is
    start = names
    while start < len(wide):
        end = start + 1
        while end < len(wide) and sum(wide[:names]) + sum(wide[start : end + 1]) <= width:
            end += 1
        columns = [*range(names), *range(start, end)]
        yield Table(
            table.title,
            tuple(table.head[i] for i in columns),
            [[line[i] for i in columns] for line in table.lines],
        )
        start = end


def _width(table: Table, column: int) -> int:
    if _folds(table, column):
        return FOLDED
    texts = [*_broken(table.head[column]).split("\n")]
    texts += [text for line in table.lines for text in line[column]]
    return max(map(len, texts))


def _folds(table: Table, column: int) -> bool:
    """Whether it holds sentences, which may be broken."""
    return any(len(line[column][0]) > FOLDED for line in table.lines)


def _rich(table: Table) -> RichTable:
    from rich.markup import escape as plain
    from rich.table import Table as Made

    made = Made(box=None, padding=(0, GAP, 0, 0), header_style="dim")
    for i, heading in enumerate(table.head):
        justify: Literal["left", "right"] = "left" if _is_words(table, i) else "right"
        made.add_column(_broken(heading), justify=justify, no_wrap=not _folds(table, i))
    for line in table.lines:
        below = any(small for _, small in line)
        made.add_row(
            *(
                plain(value) + (f"\n[dim]{plain(small)}[/dim]" if below else "")
                for value, small in line
            )
        )
    return made


def _broken(heading: str) -> str:
    """A heading over two lines, where it has a place to break."""
    for sign in (", ", " "):
        head, found, tail = heading.rpartition(sign)
        if found and len(heading) > 8:
            return f"{head}\n{tail}"
    return heading


def _is_words(table: Table, column: int) -> bool:
    values = [line[column][0] for line in table.lines]
    return not any(value[:1].isdigit() or value[:1] in "+-" for value in values if value)


def as_html(document: Document) -> str:
    """For a notebook: subject, tables and sentences."""
    tables = "".join(_html(table) for table in document.tables())
    said = "".join(f"<li>{escape(line)}</li>" for line in lines(document))
    return f"<div><p><b>{escape(document.subject)}</b></p>{tables}<ul>{said}</ul></div>"


def _html(table: Table) -> str:
    def cell(value: str, small: str = "", tag: str = "td") -> str:
        below = f"<br><small>{escape(small)}</small>" if small else ""
        return f'<{tag} style="{STYLE}">{escape(value)}{below}</{tag}>'

    head = "".join(cell(heading, tag="th") for heading in table.head)
    body = "".join(
        f"<tr>{''.join(cell(value, small) for value, small in line)}</tr>" for line in table.lines
    )
    title = f"<p>{escape(table.title)}</p>" if table.title else ""
    return f"{title}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
