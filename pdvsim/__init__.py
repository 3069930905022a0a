"""Predict which speculative-decoding scheduling architecture wins at which load, and why.

    import pdvsim as pv

    profile = pv.load_profile("h100_tinyllama-1.1b_llama-2-7b_graph")
    found = pv.predict(profile, pv.closed_loop(32))

What is named in `__all__` is for people; it is imported when it is first used (PEP 562).
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pdvsim.api import (
        Load,
        ablate,
        closed_loop,
        crossover,
        explain,
        poisson,
        predict,
        read,
        trace,
        transferred,
        validate,
    )
    from pdvsim.profile import load_profile

__version__ = "0.1.0"

__all__ = [
    "Load",
    "ablate",
    "closed_loop",
    "crossover",
    "explain",
    "load_profile",
    "poisson",
    "predict",
    "read",
    "trace",
    "transferred",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pdvsim' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("pdvsim.api"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _Package(ModuleType):
    """Three of the names above are also those of packages inside. Importing such a package binds
    it here, in place of the function; that binding is left out."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
