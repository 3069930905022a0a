"""The exception tree.

PdvsimError            anything a user can cause; the CLI prints one sentence and exits with 2
├── InputError         an argument or a file says something that cannot be
├── ProfileError       a profile is missing, damaged or of another schema version
├── MissingExtraError  a command needs a package that is not installed
├── CapacityError      the GPU, its memory or the KV cache is too small, or absent
└── InvariantError     a run broke Little's law, token conservation, ...: the numbers are inside
"""

from __future__ import annotations


class PdvsimError(Exception):
    """Base of all errors that are reported as one sentence."""


class InputError(PdvsimError):
    """An argument or a file says something that cannot be."""


class ProfileError(PdvsimError):
    """A profile is missing, damaged or of another schema version."""


class MissingExtraError(PdvsimError):
    """A command needs a package that is not installed."""


class CapacityError(PdvsimError):
    """The GPU, its memory or the KV cache is too small, or absent."""


class InvariantError(PdvsimError):
    """A run broke one of its conservation laws; the message holds the numbers."""
