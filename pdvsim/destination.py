"""Where a command's document goes: every command takes the same options for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pdvsim import output
from pdvsim.errors import MissingExtraError

if TYPE_CHECKING:
    from pdvsim.documents import Document

PAGE_PACKAGES = ("altair", "vl_convert")

OPTIONS = (
    click.option(
        "--report",
        type=click.Path(path_type=Path),
        default=None,
        help="Write the result as a page here: one HTML file that opens offline.",
    ),
    click.option(
        "-o",
        "--output",
        "out",
        type=click.Path(path_type=Path),
        default=None,
        help="Write the result as a JSON document here; pdvsim report and Python read it.",
    ),
    output.json_option,
)


def destination_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say where the document goes; the command gets them as one argument `to`, of
    which it is known that it can be written."""

    @wraps(command)
    def with_destination(
        *args: Any, report: Path | None, out: Path | None, as_json: bool, **values: Any
    ) -> Any:
        to = Destination(report, out, as_json)
        for path in (report, out):
            output.check_writable(path)
        if report is not None:
            _check_page()
        return command(*args, to=to, **values)

    decorated: Callable[..., Any] = with_destination
    for option in reversed(OPTIONS):
        decorated = option(decorated)
    return decorated


def _check_page() -> None:
    """Refuse a page before the work for it, which may be minutes on a GPU.

    Raises:
        MissingExtraError: a package that draws pages is not installed.
    """
    for package in PAGE_PACKAGES:
        if find_spec(package) is None:
            raise MissingExtraError(
                f"--report needs the package {package!r}, which is not installed; run: pip "
                "install pdvsim, or leave --report out and draw the document of -o elsewhere"
            )


@dataclass(frozen=True, slots=True)
class Destination:
    """Files to write, and whether to print JSON instead of tables."""

    report: Path | None
    out: Path | None
    as_json: bool

    def progress(self, label: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """A progress bar, where nobody reads JSON from standard output."""
        return output.progress(label, self.as_json)

    def save(self, document: Document) -> None:
        """Write the files that were asked for."""
        from pdvsim import cli

        if self.out is not None:
            document.save(self.out)
        if self.report is not None:
            cli.load("report").write(document, self.report)

    def show(self, document: Document) -> None:
        """Print it, for people or as JSON."""
        if self.as_json:
            sys.stdout.write(document.to_json())
            return
        from pdvsim.documents.shown import show

        page = output.console()
        show(document, page)
        for line in self._written():
            page.print(line, markup=False)

    def _written(self) -> Iterator[str]:
        for what, path in (("Document", self.out), ("Report", self.report)):
            if path is not None:
                yield f"{what}: {path}"

    def deliver(self, document: Document) -> None:
        """Save and show it."""
        self.save(document)
        self.show(document)
