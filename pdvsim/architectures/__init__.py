"""The architectures by name. Each module holds its lane programs and a `programs` function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pdvsim.architectures import baseline, pd, pdv, plain, three_lane
from pdvsim.architectures.lane import Config, FifoQueue, Lanes, PriorityQueue, Program, Queue
from pdvsim.errors import InputError


@dataclass(frozen=True, slots=True)
class Architecture:
    """A named set of lane programs.

    Attributes:
        speculative: False if it never runs the draft model.
    """

    name: str
    summary: str
    programs: Callable[[Lanes], dict[str, Program]]
    queue_type: Callable[[str], Queue] = FifoQueue
    speculative: bool = True

    def lanes(self, config: Config) -> Lanes:
        """Fresh shared state for one run."""
        return Lanes(config, self.queue_type)


ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture("plain", "no speculation, one lane", plain.programs, speculative=False),
        Architecture("baseline", "a whole request per worker", baseline.programs),
        Architecture("pd", "prefill lane and decode lane", pd.programs),
        Architecture(
            "three_lane", "prefill, decode and verify lanes", three_lane.programs, PriorityQueue
        ),
        Architecture("pdv", "one worker, three streams", pdv.programs),
    )
}


def architecture(name: str) -> Architecture:
    """The architecture called `name`.

    Raises:
        InputError: there is none; the message lists those there are.
    """
    try:
        return ARCHITECTURES[name]
    except KeyError:
        known = ", ".join(ARCHITECTURES)
        raise InputError(f"unknown architecture {name!r}; known are {known}") from None
