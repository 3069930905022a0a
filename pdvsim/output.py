"""What commands print: a table for people on stdout, or, with --json, one JSON document.

Progress goes to stderr, so stdout holds the result and nothing else.
"""

from __future__ import annotations

import errno
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from pdvsim.result_file import check_writable as check_writable
from pdvsim.result_file import make_folder as make_folder
from pdvsim.result_file import write_text as write_text

if TYPE_CHECKING:
    from rich.console import Console

PAGE_WIDTH = 132  # of output that is not a terminal

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)


def print_json(document: Mapping[str, Any]) -> None:
    """Write `document` to stdout as JSON; numbers that are not finite become null."""
    sys.stdout.write(json.dumps(finite(document), allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """`value` as plain JSON types, with null for NaN and infinities."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if hasattr(value, "item"):  # a numpy scalar
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def console() -> Console:
    """The console for people, on stdout."""
    from rich.console import Console

    class Page(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    return Page(width=None if sys.stdout.isatty() else PAGE_WIDTH, highlight=False)


@contextmanager
def progress(label: str, as_json: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, if that is a terminal; yields `update(done, of)`."""
    if as_json or not sys.stderr.isatty():
        yield lambda done, of: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def number(value: float | None, digits: int = 3) -> str:
    """`digits` significant digits without an exponent; n/a for None."""
    if value is None:
        return "n/a"
    if value == 0.0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 6)}f}"
