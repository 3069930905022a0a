"""What an architecture says of itself: to the worlds that run it, and to whoever explains a run.

Everything is said in the architecture's own file, as one `Architecture`; no other file of the
package knows an architecture by name. `docs/add_an_architecture.md` shows a whole one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from pdvsim.architectures.lane import FifoQueue, Lanes, Program, Queue
from pdvsim.cell_values import AUTO, Auto, Value
from pdvsim.core import Executor, Name, Stage, Stream
from pdvsim.errors import InputError

if TYPE_CHECKING:
    from pdvsim.architectures.config import Config


def parameter(default: float | Auto, low: float, high: float, meaning: str) -> Any:
    """A field of an architecture's `Parameters`: a number, its bounds, and what it means. One whose
    default is AUTO is a whole number, or AUTO; the meaning says what that does."""
    return field(default=default, metadata={"low": low, "high": high, "meaning": meaning})


@dataclass(frozen=True, slots=True)
class NoParameters:
    """Of an architecture that has none."""


@dataclass(frozen=True, slots=True)
class Switch:
    """How a mechanism of an architecture is switched off, for an ablation.

    Attributes:
        parameters: what replaces the user's parameters; nothing where the lane programs
            themselves ask whether the mechanism's name is in `lanes.switched_off`.
        acts: whether switching it off can change anything, given a configuration (with what else
            is switched off) and the number of requests in flight, infinite in an open loop.
    """

    parameters: Mapping[str, Value] = field(default_factory=dict)
    acts: Callable[[Config, float], bool] = lambda config, in_flight: True


class Work(Name):
    """What a lane does for a request."""

    PREFILL = "prefill"
    DRAFT = "draft"
    VERIFY = "verify"
    DECODE = "decode"

    def stages(self, executor: Executor, speculative: bool) -> tuple[Stage, ...]:
        """The stages that it takes."""
        if self is Work.PREFILL:
            return executor.prefill if speculative else executor.plain_prefill
        if self is Work.DECODE:
            return (Stage.DECODE,)
        return executor.speculate if self is Work.DRAFT else executor.check


@dataclass(frozen=True, slots=True)
class LaneSketch:
    """One lane as it is drawn: which queues it takes from, what it does on which stream, and
    where it puts what is not complete. Lanes that are copies of each other are drawn once."""

    name: str
    takes: tuple[str, ...]
    work: Mapping[Work, Stream]
    puts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Architecture:
    """A named set of lane programs, and what there is to know of them.

    Attributes:
        summary: one sentence for someone who serves models.
        programs: lane programs by the names of their threads.
        admits: whether a waiting request may be taken for prefill now, memory included: the
            very condition that the programs wait for. While it is false and something waits,
            a world notes that admission is shut.
        sketch: its lanes as they are drawn.
        parameters: a frozen dataclass whose fields are `parameter`s.
        switches: mechanisms that can be switched off, by name.
        published: parameters of the published system, where they are not the defaults.
        queue_type: of all three queues.
        speculative: False if it never runs the draft model.
        colour: in every chart, as #rrggbb; None takes a spare one.
        reference: what finds it in another process, where that is not its name.
    """

    name: str
    summary: str
    programs: Callable[[Lanes], dict[str, Program]]
    admits: Callable[[Lanes], bool]
    sketch: tuple[LaneSketch, ...]
    parameters: Callable[..., Any] = NoParameters
    switches: Mapping[str, Switch] = field(default_factory=dict)
    published: Mapping[str, Value] = field(default_factory=dict)
    queue_type: Callable[[str], Queue] = FifoQueue
    speculative: bool = True
    colour: str | None = None
    reference: str | None = None

    def lanes(self, config: Config) -> Lanes:
        """Fresh shared state for one run."""
        values = dict(config.parameters)
        for name in config.switched_off:
            values.update(self.switches[name].parameters)
        return Lanes(config, self.parameters(**values), self.queue_type)

    @property
    def streams(self) -> set[Stream]:
        """The streams that its lanes use."""
        return {stream for lane in self.sketch for stream in lane.work.values()}

    @property
    def whole_requests(self) -> bool:
        """Whether a request stays to its end with the lane that took it."""
        return not any(lane.puts for lane in self.sketch)

    def threads(self, config: Config) -> list[str]:
        """Names of the threads that run in this configuration."""
        return list(self.programs(self.lanes(config)))

    def fields(self) -> dict[str, Field[Any]]:
        """Its own parameters by name; `metadata` holds `low`, `high` and `meaning`."""
        return {one.name: one for one in fields(self.parameters)}  # type: ignore[arg-type]

    def checked(self, given: Mapping[str, object]) -> dict[str, Any]:
        """All its parameters: those given, and the defaults of the others.

        Raises:
            InputError: it has no such parameter, or a value is out of bounds.
        """
        own = self.fields()
        for name in given:
            if name not in own:
                has = f"it has {', '.join(own)}" if own else "it has none"
                raise InputError(f"{self.name} has no parameter {name}; {has}")
        return {name: _number(name, given.get(name, one.default), one) for name, one in own.items()}

    def own(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Those of `values` that are parameters of this architecture."""
        own = self.fields()
        return {name: value for name, value in values.items() if name in own}

    def drawing(self) -> str:
        """Its lanes, one line each: queue -> thread (work on stream) -> queue."""
        lines = []
        for lane in self.sketch:
            work = ", ".join(f"{work} on stream {stream}" for work, stream in lane.work.items())
            ends = (" and ".join(lane.takes), lane.name, work, " or ".join((*lane.puts, "done")))
            lines.append("{} -> [{}: {}] -> {}".format(*ends))
        return "\n".join(lines)


def _number(name: str, value: object, about: Field[Any]) -> Value:
    """`value` as the kind of number that the parameter is, inside its bounds."""
    low, high = about.metadata["low"], about.metadata["high"]
    automatic = about.default == AUTO
    whole = automatic or isinstance(about.default, int)
    if automatic and value == AUTO:
        return AUTO
    if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
        if not whole:
            return float(value)
        if value == math.floor(value):
            return int(value)
    kind = "a whole number " if whole else ""
    also = f", or {AUTO}" if automatic else ""
    raise InputError(f"{name} is {value}; it must be {kind}between {low:g} and {high:g}{also}")


def shared(
    architectures: Iterable[Architecture], given: Mapping[str, Value | None]
) -> list[dict[str, Value]]:
    """Parameters given for several architectures at once, to each those that it has.

    Args:
        given: None where nothing was given.

    Raises:
        InputError: none of them has such a parameter.
    """
    chosen: Sequence[Architecture] = list(architectures)
    known = {name: value for name, value in given.items() if value is not None}
    for name in known:
        if not any(name in one.fields() for one in chosen):
            names = ", ".join(one.name for one in chosen)
            raise InputError(f"none of {names} has the parameter {name}")
    return [one.own(known) for one in chosen]
