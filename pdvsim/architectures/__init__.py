"""The architectures. Each module holds all there is to say of one; see `Architecture`."""

from pdvsim.architectures.architecture import Architecture, shared
from pdvsim.architectures.config import Config
from pdvsim.architectures.registry import ARCHITECTURES, COMPARED, architecture, by_name

__all__ = [
    "ARCHITECTURES",
    "COMPARED",
    "Architecture",
    "Config",
    "architecture",
    "by_name",
    "shared",
]
