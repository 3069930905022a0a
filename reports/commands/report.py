"""`pdvsim report`: the JSON of another command as one HTML page that opens offline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pdvsim import output
from pdvsim.errors import InputError
from pdvsim.json_file import read_json
from reports.document import kind


def write(document: Mapping[str, Any], path: Path) -> None:
    """Render `document` to `path`; other commands reach this by name."""
    from reports.page import render

    output.write_text(path, render(output.finite(document)))


def read(path: Path) -> dict[str, Any]:
    """The document in a file.

    Raises:
        InputError: not there, not JSON, or of no command.
    """
    document = read_json(path, "the output of a pdvsim command")
    if kind(document) is None:
        raise InputError(
            f"{path}: not the output of a pdvsim command (it has no list of cells, nor points, "
            f"parts or findings)"
        )
    return dict(document)


@click.command()
@click.argument("result", type=click.Path(path_type=Path))
@click.option("-o", "--output", "page", type=click.Path(path_type=Path), required=True)
@output.json_option
def command(result: Path, page: Path, as_json: bool) -> None:
    """Render RESULT, the --json output of another command, as HTML."""
    output.check_writable(page)
    document = read(result)
    try:
        write(document, page)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(f"{result}: it is not as pdvsim writes it ({error!r})") from None
    if as_json:
        output.print_json({"report": str(page), "bytes": page.stat().st_size})
    else:
        click.echo(f"Report: {page}")
