"""One configuration of an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pdvsim.architectures.registry import architecture
from pdvsim.cell import check_bounds
from pdvsim.core import Executor
from pdvsim.errors import InputError


@dataclass(frozen=True, slots=True)
class Config:
    """One configuration of an architecture; picklable, hashable, and checked when made.

    Attributes:
        architecture: what `pdvsim.architectures.architecture` resolves.
        batch_cap: C of the published systems: requests per decode turn, and the base of the
            admission limit.
        draft_tokens: L, drafted tokens per round.
        parameters: of that architecture; those not given get their defaults.
        switched_off: mechanisms that are off, of those the architecture has (ablation).
        name: what the architecture is called.
    """

    architecture: str
    executor: Executor
    batch_cap: int = 8
    draft_tokens: int = 4
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    switched_off: frozenset[str] = frozenset()
    name: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        for one in ("batch_cap", "draft_tokens"):
            check_bounds(one, getattr(self, one))
        found = architecture(self.architecture)
        object.__setattr__(self, "architecture", found.reference or found.name)
        object.__setattr__(self, "name", found.name)
        object.__setattr__(self, "parameters", found.checked(self.parameters))
        unknown = sorted(self.switched_off - set(found.switches))
        if unknown:
            raise InputError(f"{found.name} has no mechanism {unknown[0]!r} to switch off")

    @classmethod
    def recorded(cls, **values: Any) -> Config:
        """As the record of a run says it, all fields: nothing is looked up or checked, so that no
        code is run to read a record."""
        config = object.__new__(cls)
        for one in fields(cls):
            object.__setattr__(config, one.name, values[one.name])
        return config
