"""Numbers as people write them in tables, and the units that names and headings state."""

from __future__ import annotations

import re
from dataclasses import dataclass

UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}
_SAME_UNIT = {"sec": "s", "secs": "s", "second": "s", "seconds": "s", "millisecond": "ms"}
_SAME_UNIT |= {"milliseconds": "ms", "msec": "ms", "microseconds": "us", "minutes": "min"}
_HEADING_UNIT = re.compile(r"[(\[]\s*([a-zµ]+)\s*[)\]]\s*$", re.IGNORECASE)
_THOUSANDS = re.compile(r"[-+]?\d{1,3}([,\s'\u2019\u202f\u00a0]\d{3})+(\.\d+)?%?")
_SEPARATORS = re.compile(r"[,\s'\u2019\u202f\u00a0]")
MISSING = frozenset({"", "-", "--", "---", "\u2013", "\u2014", "n/a", "na", "none", "null", "?"})


class NotANumber(ValueError):
    """The text has digits, but is no number."""


@dataclass(frozen=True, slots=True)
class Number:
    """A value and the step to which it was printed."""

    value: float
    step: float


def number(text: str) -> Number | str | None:
    """What a field says: a number, a word instead of one ("OOM"), or nothing ("-").

    "12.48", "1,500", "40.38%" (a percentage becomes a share of 1), "nan" and "inf" are numbers.

    Raises:
        NotANumber: neither a number nor a word, such as "1.5k" or "1,5".
    """
    plain = text.strip()
    if plain.lower() in MISSING:
        return None
    digits = _SEPARATORS.sub("", plain) if _THOUSANDS.fullmatch(plain) else plain
    scale = 0.01 if digits.endswith("%") else 1.0
    digits = digits.removesuffix("%").strip()
    try:
        value = float(digits)
    except ValueError:
        if re.search(r"\d", plain):
            raise NotANumber(f"{text!r} is not a number") from None
        return plain
    decimals = len(digits.partition(".")[2]) if "e" not in digits.lower() else 0
    return Number(value * scale, scale * 10.0**-decimals)


def heading_unit(heading: str) -> str | None:
    """The unit of time at the end of a heading: "E2E (s)" -> "s"."""
    match = _HEADING_UNIT.search(heading)
    unit = match[1].lower() if match else ""
    unit = _SAME_UNIT.get(unit, unit)
    return unit if unit in UNIT_S else None


def time_unit(name: str) -> str | None:
    """The unit of time that a name ends in: "mean_e2el_ms" -> "ms"; a rate has none."""
    stem, _, unit = name.rpartition("_")
    return unit if unit in UNIT_S and not stem.endswith("_per") else None
