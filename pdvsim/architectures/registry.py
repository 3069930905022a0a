"""Finding an architecture: by name, in an installed package, or in a file.

A package offers architectures as entry points of the group `pdvsim.architectures`; a file holds
one under the name `ARCHITECTURE`.
"""

from __future__ import annotations

import importlib.util
import traceback
from dataclasses import replace
from pathlib import Path

from pdvsim.architectures import baseline, continuous, pd, pdv, plain, three_lane
from pdvsim.architectures.architecture import Architecture
from pdvsim.errors import InputError

GROUP = "pdvsim.architectures"
ARCHITECTURES: dict[str, Architecture] = {
    module.ARCHITECTURE.name: module.ARCHITECTURE
    for module in (plain, baseline, pd, three_lane, pdv, continuous)
}
COMPARED = (pd.ARCHITECTURE.name, pdv.ARCHITECTURE.name)  # where nobody says which
_BY_REFERENCE: dict[str, Architecture] = {}  # those of packages and files, once loaded


def architecture(reference: str) -> Architecture:
    """The architecture that `reference` names.

    Args:
        reference: a name, upper or lower case, of our own or of an installed package; or the
            path of a Python file, which ends in `.py`.

    Raises:
        InputError: there is none, or the file holds none; the message says what there is.
    """
    found = ARCHITECTURES.get(reference) or ARCHITECTURES.get(reference.lower())
    if found is not None:
        return found
    if reference.endswith(".py"):
        return _of_file(Path(reference))
    return _of_package(reference)


def by_name(name: str) -> Architecture | None:
    """The architecture called `name` among our own and those loaded so far."""
    known = (*ARCHITECTURES.values(), *_BY_REFERENCE.values())
    return next((one for one in known if one.name.lower() == name.lower()), None)


def _of_package(name: str) -> Architecture:
    from importlib.metadata import entry_points

    installed = {point.name.lower(): point for point in entry_points(group=GROUP)}
    point = installed.get(name.lower())
    if point is None:
        known = ", ".join((*ARCHITECTURES, *installed))
        raise InputError(
            f"unknown architecture {name!r}; known are {known}, and a Python file (path/to/file.py)"
        )
    if point.name not in _BY_REFERENCE:
        where = f"the entry point {point.name} = {point.value}"
        try:
            loaded = point.load()
        except Exception as error:
            raise InputError(f"{where} cannot be loaded: {_in_a_line(error)}") from error
        _BY_REFERENCE[point.name] = _admitted(loaded, where, point.name)
    return _BY_REFERENCE[point.name]


def _of_file(path: Path) -> Architecture:
    """Loads a file once in each process."""
    reference = str(path.resolve())
    if reference not in _BY_REFERENCE:
        if not path.is_file():
            raise InputError(f"{path}: there is no such file to take an architecture from")
        spec = importlib.util.spec_from_file_location(f"_architecture_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise InputError(f"{path} cannot be loaded: {_in_a_line(error)}") from error
        loaded = getattr(module, "ARCHITECTURE", None)
        _BY_REFERENCE[reference] = _admitted(loaded, str(path), reference)
    return _BY_REFERENCE[reference]


def _admitted(loaded: object, where: str, reference: str) -> Architecture:
    """`loaded` as an architecture whose name nobody else has."""
    if not isinstance(loaded, Architecture):
        raise InputError(f"{where} holds no Architecture; a file names it ARCHITECTURE")
    if by_name(loaded.name) is not None:
        raise InputError(
            f"{where} calls its architecture {loaded.name!r}, as another is called; rename it"
        )
    return replace(loaded, reference=reference)


def _in_a_line(error: Exception) -> str:
    """The error, and the line that raised it."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    return f"{type(error).__name__}: {error}" + (f" (line {line})" if line else "")
