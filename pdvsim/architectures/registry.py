"""The architectures by name."""

from __future__ import annotations

from pdvsim.architectures import baseline, pd, pdv, plain, three_lane
from pdvsim.architectures.architecture import Architecture
from pdvsim.errors import InputError

ARCHITECTURES: dict[str, Architecture] = {
    module.ARCHITECTURE.name: module.ARCHITECTURE
    for module in (plain, baseline, pd, three_lane, pdv)
}


def architecture(reference: str) -> Architecture:
    """The architecture called `reference`, upper or lower case.

    Raises:
        InputError: there is none; the message lists those there are.
    """
    found = ARCHITECTURES.get(reference) or ARCHITECTURES.get(reference.lower())
    if found is None:
        known = ", ".join(ARCHITECTURES)
        raise InputError(f"unknown architecture {reference!r}; known are {known}")
    return found
