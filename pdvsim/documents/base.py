"""What every document has, and what a Python user can do with one.

A document is the answer to one question: of whom it was asked, what ran, what came out, and in
how many words it may be relied on. Everything that is said about the numbers (verdict, ties,
what is extrapolated or censored) is decided by the analysis and stored here, so that terminal,
page and Python say the same.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from pdvsim.cell import FIELDS, Cell
from pdvsim.profile_file import Measurement, Provenance
from pdvsim.quantities import QUANTITIES
from pdvsim.statistics import Interval

if TYPE_CHECKING:
    import altair as alt
    import polars as pl

SCHEMA_VERSION = 2

# The kinds of interval that a document may hold; each says once which one it is.
OF_ONE_RUN = "95 % prediction interval for one run"

# Engines that answers are valid for, where it is not one of ours.
PUBLISHED_ENGINES = "the engines of the published table (pdverify), PD and PDV"
ANY_ENGINE = "any engine: what a table is held against is arithmetic"

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Validity = Literal["valid", "valid with care", "invalid"]


class Model(BaseModel):
    """A part of a document: frozen, and a key that is missing or unknown is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def _known(values: dict[str, Any]) -> dict[str, Any]:
    unknown = [name for name in values if name not in QUANTITIES]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no metric")
    return values


# By metric; null where the runs could not say (`reasons` says why).
Metrics = Annotated[dict[str, Interval | None], AfterValidator(_known)]
Reasons = Annotated[dict[str, str], AfterValidator(_known)]


def _whole(cell: Any) -> Any:
    """A cell has defaults where it is specified; where it is recorded, all of it stands that was
    there when it was."""
    needed = [name for name, one in FIELDS.items() if not one.metadata.get("added")]
    missing = [name for name in needed if name not in cell] if isinstance(cell, dict) else []
    if missing:
        raise ValueError(f"the cell lacks the key {missing[0]!r}")
    return cell


RecordedCell = Annotated[Cell, BeforeValidator(_whole)]


class Verdict(Model):
    """One sentence that says what came out, and whether it may be relied on.

    Attributes:
        caveats: why it holds only with care, or why it does not hold; empty where it is valid.
    """

    sentence: str
    validity: Validity
    caveats: tuple[str, ...]

    @property
    def badge(self) -> str:
        """`VALID`, or what stands against it."""
        because = f", because {'; '.join(self.caveats)}" if self.caveats else ""
        return self.validity.upper() + because


class RunLength(Model):
    """How much stands behind a number: what was measured after the warm-up, per run.

    Attributes:
        seconds: mean of the runs (virtual seconds in a simulation).
        requests: mean of the runs, completed inside these seconds.
    """

    runs: int = Field(ge=1)
    seconds: Finite | None
    requests: Finite | None


class Calibration(Provenance):
    """The profile that predictions rest on.

    Attributes:
        transferred_from: the GPU that was measured, where `gpu` is another; null where it is not.
    """

    name: str
    pair: str
    executor: str
    transferred_from: str | None = None


class Machine(Measurement):
    """What runs were measured on, and when."""


class Table(NamedTuple):
    """A table for people: each cell a value and what stands small below it."""

    title: str
    head: tuple[str, ...]
    lines: Sequence[Sequence[tuple[str, str]]]


class Document(Model):
    """The answer of one command, as it is written, read, shown and handed to Python.

    Attributes:
        pdvsim: version that wrote it; null where that was not yet recorded.
        created: when, ISO 8601 in UTC; null where that was not yet recorded.
        git_revision: of pdvsim, where it ran from a checkout.
        command: as it was called.
        subject: what was asked about, in a line.
        valid_for: the engine whose behaviour this describes; others differ.
        interval: what every interval in here is.
        notes: what else has to be known to read the numbers, a sentence each.
        extrapolated: what lay outside the calibrated range, a sentence each, where it is not said
            of each cell.
    """

    kind: str
    schema_version: Literal[2]
    pdvsim: str | None
    created: str | None
    git_revision: str | None
    command: str
    subject: str
    valid_for: str
    interval: str
    verdict: Verdict
    notes: tuple[str, ...]
    extrapolated: tuple[str, ...] = ()

    NAME: ClassVar[str] = "document"  # in a sentence

    @abstractmethod
    def tables(self) -> Iterator[Table]:
        """What terminal and notebook show."""

    def said(self) -> Iterator[str]:
        """What came out, a sentence each; the verdict's first."""
        yield self.verdict.sentence

    @abstractmethod
    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows of `frame`."""

    def frame(self) -> pl.DataFrame:
        """Its numbers as a data frame: a row per cell and metric with `value`, `low`, `high` and
        `unit`; null where there is no interval, or where the runs could not say."""
        import polars as pl

        return pl.DataFrame(list(self.rows()), infer_schema_length=None)

    def chart(self, name: str) -> alt.TopLevelMixin:
        """One of the charts of its page, by the name of its section (in any case).

        Raises:
            InputError: there is no such chart; the sentence names those that there are.
        """
        from importlib import import_module  # reports stands above this package

        found: alt.TopLevelMixin = import_module("reports.api").chart(self, name)
        return found

    def save(self, path: str | Path) -> Path:
        """Write it: an `.html` path gets the page, any other the JSON document.

        Raises:
            InputError: the file cannot be written there.
        """
        from importlib import import_module

        from pdvsim.output import write_text

        path = Path(path)
        if path.suffix.lower() in (".html", ".htm"):
            write_text(path, import_module("reports.page").render(self))
        else:
            write_text(path, self.to_json(indent=1))
        return path

    def to_json(self, indent: int | None = None) -> str:
        """The JSON document, one line or indented, with a newline behind it."""
        return self.model_dump_json(indent=indent) + "\n"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.subject}. {self.verdict.sentence}>"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        from pdvsim.documents.shown import as_html

        return as_html(self)
