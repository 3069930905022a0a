"""`pdvsim report`: a document of another command as one HTML page that opens offline."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pdvsim import output

if TYPE_CHECKING:
    from pdvsim.documents import Document

STDIN = Path("-")


def write(document: Document, path: Path) -> None:
    """Render `document` to `path`; other commands reach this by name."""
    from reports.page import render

    output.write_text(path, render(document))


def read(result: Path) -> Document:
    """The document in a file, or on standard input.

    Raises:
        InputError: it is none.
    """
    from pdvsim.documents import reading

    if result == STDIN:
        return reading.read_text_of(sys.stdin.read(), "standard input")
    return reading.read(result)


@click.command()
@click.argument("result", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "page",
    type=click.Path(path_type=Path),
    required=True,
    help="The HTML page to write.",
)
@output.json_option
def command(result: Path, page: Path, as_json: bool) -> None:
    """Render RESULT, a document of another command, as HTML; - reads standard input."""
    output.check_writable(page)
    write(read(result), page)
    if as_json:
        output.print_json({"report": str(page), "bytes": page.stat().st_size})
    else:
        click.echo(f"Report: {page}")
