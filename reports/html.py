"""Pieces of a page: sections, tables and lists. Every text is escaped here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from html import escape
from typing import Any, NamedTuple, TypeAlias

import altair as alt

from pdvsim.output import number
from pdvsim.statistics import Interval

# A cell of a table: its text, and what stands small below it.
Cell: TypeAlias = str | tuple[str, str]
Show: TypeAlias = Callable[[float], str]
Content: TypeAlias = alt.TopLevelMixin | str | None


class Section(NamedTuple):
    """A part of the page; without content (a chart or HTML) it is left out."""

    title: str
    caption: str
    content: Callable[[Any], Content]  # of the kind of document that it is for


def table(head: Sequence[str], lines: Iterable[Sequence[Cell]], words: Collection[int] = ()) -> str:
    """Numbers are set to the right, the first column and those in `words` to the left."""

    def row(cells: Sequence[Cell], tag: str) -> str:
        return "".join(_cell(cell, tag, i in words) for i, cell in enumerate(cells))

    body = "".join(f"<tr>{row(line, 'td')}</tr>" for line in lines)
    return f"<table><tr>{row(head, 'th')}</tr>{body}</table>"


def _cell(cell: Cell, tag: str, words: bool) -> str:
    text, small = (cell, "") if isinstance(cell, str) else cell
    below = f"<small>{escape(small)}</small>" if small else ""
    opening = f'<{tag} class="words">' if words else f"<{tag}>"
    return f"{opening}{escape(text)}{below}</{tag}>"


def interval(found: Interval | None, scale: float = 1.0, show: Show = number) -> Cell:
    """The value, and its interval below it; both are said to be missing where they are."""
    if found is None:
        return "n/a"
    return show(scale * found.value), ends(found, scale, show)


def ends(found: Interval, scale: float = 1.0, show: Show = number) -> str:
    """`LOW to HIGH`, or that there is no interval."""
    if found.low is None or found.high is None:
        return "no interval"
    return f"{show(scale * found.low)} to {show(scale * found.high)}"


def said(found: Interval | None, scale: float = 1.0, show: Show = number) -> str:
    """The value with its interval behind it."""
    if found is None:
        return "n/a"
    return f"{show(scale * found.value)} ({ends(found, scale, show)})"


def ratio(value: float) -> str:
    """Ratios are often so close to 1 that three digits would hide on which side."""
    return f"{value:.4f}"


def items(lines: Iterable[str]) -> str:
    """A list, each line once."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in dict.fromkeys(lines))}</ul>"


def heading(text: str) -> str:
    """Inside a section."""
    return f"<h3>{escape(text)}</h3>"


def folded(summary: str, content: str) -> str:
    """Content that opens on a click."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """A table of names and values, without a head."""
    lines = (f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
    return f'<table class="facts">{"".join(lines)}</table>'
