"""Traces of requests, as they are published: when each came, and how long it was.

Formats are told by their columns: a CSV or JSON Lines file that has the three of `FORMATS` is
read, any other by a map of columns. Rows are taken in order of time, whatever their order in the
file. A request without prompt or output tokens cannot be served (BurstGPT writes failed requests
so): it is left out, and the trace says how many were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pdvsim.errors import InputError
from pdvsim.tables import listed, read_csv, read_object_lines

if TYPE_CHECKING:
    import polars as pl

MAX_TOKENS = 1_000_000  # of a prompt or an output
MAX_SPAN_S = 10 * 366 * 86400.0


@dataclass(frozen=True, slots=True)
class Format:
    """The columns of a published format.

    Attributes:
        unit_s: seconds that a number in `arrival` stands for; dates need none.
        mark: a further column that only this format has.
    """

    name: str
    arrival: str
    prompt: str
    output: str
    unit_s: float = 1.0
    mark: str | None = None

    @property
    def columns(self) -> tuple[str, str, str]:
        return self.arrival, self.prompt, self.output


# Azure: https://github.com/Azure/AzurePublicDataset, 2023 and 2024. BurstGPT:
# https://github.com/HPMLL/BurstGPT. Vidur: https://github.com/microsoft/vidur. Mooncake and Bailian
# share their names, but write milliseconds and seconds.
FORMATS = (
    Format("Azure", "TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    Format("BurstGPT", "Timestamp", "Request tokens", "Response tokens"),
    Format("Vidur", "arrived_at", "num_prefill_tokens", "num_decode_tokens"),
    Format("Bailian", "timestamp", "input_length", "output_length", mark="chat_id"),
    Format("Mooncake", "timestamp", "input_length", "output_length", unit_s=1e-3),
    Format("pdvsim", "arrival_s", "prompt_tokens", "output_tokens"),
)
_ARRIVALS = {"arrival_s": 1.0, "arrival_ms": 1e-3, "arrival_us": 1e-6, "arrival_ns": 1e-9}


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of time.

    Attributes:
        arrival_s: seconds since the first request.
        notes: what was done to the rows of the file, a sentence each.
    """

    format: str
    arrival_s: list[float]
    prompt_tokens: list[int]
    output_tokens: list[int]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.arrival_s)


def read_trace(
    path: Path, columns: Mapping[str, str] | None = None, limit: int | None = None
) -> Trace:
    """Read a trace.

    Args:
        columns: arrival_s (or _ms, _us, _ns), prompt_tokens and output_tokens -> column of the
            file, for a format that is not in `FORMATS`.
        limit: how many requests to take, the earliest.

    Raises:
        InputError: unreadable file, unknown columns, or a value that no request can have.
    """
    mapped = _mapped(columns) if columns else None
    if _is_json(path):
        rows = _Rows(path, read_object_lines(path, "a trace, an object a line"), first=1)
    else:
        rows = _Rows(path, read_csv(path))
    format = mapped or rows.format()
    rows.need(format.columns)
    arrivals = rows.seconds(format)
    prompts, outputs = rows.tokens(format.prompt), rows.tokens(format.output)
    served = (prompts > 0) & (outputs > 0)
    notes = rows.left_out(served)
    if (np.diff(arrivals) < 0).any():
        notes.append(f"The rows of {path.name} are not in order of time; they are taken in it.")
    order = np.argsort(arrivals, kind="stable")
    order = order[served[order]][:limit]
    since = (arrivals[order] - arrivals[order[0]]).round(9)
    if since[-1] > MAX_SPAN_S:
        raise InputError(f"{path}: the requests span {since[-1]:.3g} s; is the unit of time right?")
    return Trace(
        format.name,
        since.tolist(),
        prompts[order].tolist(),
        outputs[order].tolist(),
        tuple(notes),
    )


def _is_json(path: Path) -> bool:
    """Whether the file is JSON Lines: by its name, else by its first character."""
    if path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        return True
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip()[:1] == b"{"
    except OSError:
        return False  # the reader says what is wrong


def _mapped(columns: Mapping[str, str]) -> Format:
    unknown = sorted(set(columns) - {*_ARRIVALS, "prompt_tokens", "output_tokens"})
    arrival = [name for name in columns if name in _ARRIVALS]
    if unknown or len(arrival) != 1 or len(columns) != 3:
        raise InputError(
            f"a map of a trace's columns names one of {', '.join(_ARRIVALS)}, prompt_tokens and "
            f"output_tokens; got {', '.join(columns)}"
        )
    return Format(
        "mapped",
        columns[arrival[0]],
        columns["prompt_tokens"],
        columns["output_tokens"],
        unit_s=_ARRIVALS[arrival[0]],
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of one file as text; `first` is the line of its first row, for messages."""

    path: Path
    table: pl.DataFrame
    first: int = 2

    def format(self) -> Format:
        """The format that has these columns.

        Raises:
            InputError: none has.
        """
        has = set(self.table.columns)
        for format in FORMATS:
            if has.issuperset(format.columns) and (format.mark is None or format.mark in has):
                return format
        nearest = max(FORMATS, key=lambda format: len(has.intersection(format.columns)))
        if has.intersection(nearest.columns):
            self.need(nearest.columns)
        known = "; ".join(f"{format.name} {', '.join(format.columns)}" for format in FORMATS)
        raise InputError(
            f"{self.path}: not a trace that I know; it has {listed(self.table.columns)}. Known "
            f"are: {known}. Other columns can be mapped"
        )

    def need(self, columns: Sequence[str]) -> None:
        """Raises InputError unless the file has these columns."""
        missing = [name for name in columns if name not in self.table.columns]
        if missing:
            raise InputError(
                f"{self.path}: missing column {listed(missing)}; "
                f"it has {listed(self.table.columns)}"
            )

    def refusal(self, row: int, column: str, why: str) -> InputError:
        value = self.table[column][row]
        shown = "nothing" if value is None else repr(value)
        return InputError(f"{self.path}: row {row + self.first}, column {column}: {shown} is {why}")

    def seconds(self, format: Format) -> NDArray[np.float64]:
        """Arrivals as seconds from some origin: numbers in the unit of `format`, or dates."""
        values = self.table[format.arrival].to_list()
        try:
            numbers = np.array([float(value or "") for value in values])
        except ValueError:
            return self._dates(format.arrival, values)
        if not np.isfinite(numbers).all():
            raise self.refusal(int(np.argmin(np.isfinite(numbers))), format.arrival, "no time")
        return numbers * format.unit_s

    def _dates(self, column: str, values: Sequence[str | None]) -> NDArray[np.float64]:
        origin, since = None, []
        for row, value in enumerate(values):
            try:
                moment = datetime.fromisoformat((value or "").strip())
                origin = origin or moment
                since.append((moment - origin).total_seconds())
            except (ValueError, TypeError):  # TypeError: a time zone here, none in the first
                why = "not a number, and not a date and time like the first"
                raise self.refusal(row, column, why) from None
        return np.array(since)

    def tokens(self, column: str) -> NDArray[np.int64]:
        """Token counts.

        Raises:
            InputError: text, a fraction, a negative count, or more than MAX_TOKENS.
        """
        import polars as pl

        text = self.table[column].str.strip_chars()
        numbers = text.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
        right = (numbers == np.round(numbers)) & (numbers >= 0) & (numbers <= MAX_TOKENS)
        if not right.all():
            why = f"not a number of tokens from 0 to {MAX_TOKENS}"
            raise self.refusal(int(np.argmin(right)), column, why)
        return numbers.astype(np.int64)

    def left_out(self, served: NDArray[np.bool_]) -> list[str]:
        """A sentence on rows without tokens, if there are any.

        Raises:
            InputError: all are.
        """
        empty = int((~served).sum())
        if empty == len(served):
            raise InputError(f"{self.path}: no request has both prompt and output tokens")
        if not empty:
            return []
        return [
            f"{empty} of {len(served)} requests of {self.path.name} have no prompt or no output "
            f"tokens and are left out (the first is row {int(np.argmin(served)) + self.first})."
        ]
