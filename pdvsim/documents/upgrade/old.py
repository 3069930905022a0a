"""An object of an old document, and what is told about every old document alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pdvsim.documents.base import OF_ONE_RUN
from pdvsim.errors import InputError

Plain = dict[str, Any]
# From the typed document: the fields that are decided by the analysis.
Decide = Callable[[Any], Plain]


class Old:
    """An object of an old document, whose keys are taken one after the other."""

    def __init__(self, content: Any, place: str) -> None:
        if not isinstance(content, Mapping):
            raise InputError(f"{place} is not an object")
        self._left = dict(content)
        self.place = place

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def take(self, key: str) -> Any:
        """The value of a key that must be there."""
        if key not in self._left:
            raise InputError(f"{self.place} lacks the key {key!r}")
        return self._left.pop(key)

    def maybe(self, key: str, default: Any = None) -> Any:
        """The value of a key that some versions left out."""
        return self._left.pop(key, default)

    def text(self, key: str) -> str | None:
        """A text that some versions left out."""
        found = self.maybe(key)
        if found is not None and not isinstance(found, str):
            raise InputError(f"{self.place}: {key} is not a text")
        return found

    def inside(self, key: str) -> Old:
        """An object inside."""
        return Old(self.take(key), f"{self.place}, {key}")

    def items(self, key: str) -> list[Any]:
        """A list inside."""
        found = self.take(key)
        if not isinstance(found, list):
            raise InputError(f"{self.place}: {key} is not a list")
        return found

    def each(self, key: str) -> list[Old]:
        """Objects in a list inside."""
        return [Old(item, f"{self.place}, {key}[{i}]") for i, item in enumerate(self.items(key))]

    def rest(self, known: Sequence[str] | None = None) -> Plain:
        """All keys that are left; `known` are the only ones that may be."""
        found, self._left = self._left, {}
        for key in found if known is not None else ():
            if key not in (known or ()):
                raise InputError(f"{self.place} has the key {key!r}, which is unknown")
        return found

    def done(self) -> None:
        """Refuse a key that nobody took."""
        self.rest(())


def command_line(command: str, arguments: Mapping[str, Any]) -> str:
    """The options of `arguments` that were given, as they are typed."""
    words = [f"pdvsim {command}"]
    for name, value in arguments.items():
        if value is not None and value is not False:
            flag = f"--{name.replace('_', '-')}"
            words.append(flag if value is True else f"{flag} {value}")
    return " ".join(words)


def ours(profile: Mapping[str, Any]) -> str:
    """The engine that a profile of ours stands for."""
    return f"pdvsim's {profile['executor']} executor, {profile['pair']}, on {profile['gpu']}"


def interval_of(old: Old) -> str:
    """What the intervals are."""
    found: str = old.maybe("interval", OF_ONE_RUN)
    return found
