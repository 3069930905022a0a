"""What a user asked for, and the one place where that becomes cells.

The options of a command (`pdvsim.options`) and the arguments of a Python call arrive here as one
`Asked`, which knows the values and which of them were given. What would have no effect is refused,
so that nobody believes it had one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdvsim.cell import (
    AUTO,
    DEFAULT_EXECUTOR,
    DEFAULT_PAIR,
    REAL,
    Cell,
    TraceFile,
    Value,
    Values,
    check_bounds,
    flag,
    only_for,
    with_prompts,
)
from pdvsim.cell_values import AcceptanceFile
from pdvsim.core import Drafter
from pdvsim.errors import InputError
from pdvsim.prompt_file import prompts_of
from pdvsim.protocols import protocols, takers

if TYPE_CHECKING:
    from pdvsim.models import Pair
    from pdvsim.profile import Profile

# Of architectures, that have an option of their own.
PARAMETERS = ("prefill_batch", "verify_batch", "admission_factor")
OTHERS = (*PARAMETERS, "trace_columns")  # beside the fields of `Cell`


# From this concurrency on, one cycle shows as much of a machine as two: throughput is the same
# within 0.4 % and varies as little (at 128 it is not: 1.3 % and 1.4 times as much for `pdv`).
SHORT_FROM = 256


@dataclass(frozen=True)
class Reference:
    """An architecture as it is asked for: `pdv@prefill_batch=8`.

    Attributes:
        text: as it was written, by the architecture's name.
        parameters: of the architecture itself.
        batch_cap, draft_tokens: of the cell, where they are given here.
    """

    text: str
    architecture: str
    parameters: Values
    batch_cap: int | None = None
    draft_tokens: int | None = None

    @property
    def fixed(self) -> frozenset[str]:
        """Names of what was given with the architecture."""
        return frozenset(self.parameters) | ({"draft_tokens"} if self.draft_tokens else set())

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse `pdv`, or `pdv@admission_factor=1.2,prefill_batch=4`.

        Raises:
            InputError: unknown architecture or parameter, or a value of the wrong kind.
        """
        from pdvsim.architectures import architecture

        name, at, rest = text.partition("@")
        found = architecture(name.strip())
        known: dict[str, Any] = {one.name: one.default for one in found.fields().values()}
        known |= {"batch_cap": 1, "draft_tokens": 1}
        values: dict[str, Any] = {}
        for part in rest.split(",") if at else ():
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals:
                raise InputError(f"{text!r}: {part!r} is no PARAMETER=VALUE")
            if key not in known:
                raise InputError(
                    f"{found.name} has no parameter {key!r}; known are {', '.join(known)}"
                )
            values[key] = _value(key, value, known[key])
        own = {key: value for key, value in values.items() if key in found.fields()}
        found.checked(own)
        return cls(
            f"{found.name}{at}{rest}",
            found.reference or found.name,
            Values(own),
            values.get("batch_cap"),
            values.get("draft_tokens"),
        )


def references(text: str) -> list[Reference]:
    """Parse `all`, or `pd,pdv@prefill_batch=8,admission_factor=1.2,plain`.

    Raises:
        InputError: an unknown name or parameter, or none.
    """
    if text == "all":
        from pdvsim.architectures import ARCHITECTURES

        return [Reference(name, name, Values()) for name in ARCHITECTURES]
    parts: list[str] = []
    for part in text.split(","):
        if "=" in part and "@" not in part and parts:
            parts[-1] += f",{part}"  # a further parameter of the one before
        else:
            parts.append(part)
    return [Reference.parse(part) for part in dict.fromkeys(parts)]


@dataclass(frozen=True)
class Asked:
    """Cell options as they came: values, and which of them were given."""

    values: dict[str, Any]
    given: frozenset[str]

    @property
    def pair(self) -> str:
        return self.values["pair"] or DEFAULT_PAIR

    @property
    def executor(self) -> str:
        return self.values["executor"] or DEFAULT_EXECUTOR

    def profile(
        self, name: str | None, executor: str | None = None, gpu: str | None = None
    ) -> Profile:
        """What to simulate with: the profile called `name`, or the shipped one of the pair and
        executor asked for.

        Args:
            executor: where none was asked for.
            gpu: another than that of the profile, which it is then transferred to.

        Raises:
            InputError: it is for another pair or executor than was asked for, or acceptance is to
                be real, which only a real engine's can be.
            ProfileError: there is no such profile.
        """
        from pdvsim.profile import select_profile

        if self.values["acceptance"] == REAL:
            raise InputError(
                "--acceptance real is for pdvsim bench: a simulation has no tokens to compare"
            )
        found = select_profile(name, self.values["pair"], self.values["executor"] or executor)
        if gpu is None:
            return found
        from pdvsim.transfer import transferred

        return transferred(found, gpu)

    def one_load(self, why: str) -> int:
        """The concurrency, where there can be only one.

        Raises:
            InputError: several were given.
        """
        loads = whole_numbers(self.values["concurrency"])
        if len(loads) > 1:
            raise InputError(f"--concurrency is {self.values['concurrency']}; give one: {why}")
        return loads[0]

    def refuse_given(self, because: str, names: Iterable[str] | None = None) -> None:
        """Refuse options that would have no effect.

        Args:
            names: those without effect; None for all.

        Raises:
            InputError: one of them was given.
        """
        found = sorted(self.given if names is None else self.given & set(names))
        if found:
            raise InputError(f"{because}; leave {', '.join(map(flag, found))} out")

    def simulated(self, profile: Profile) -> list[Cell]:
        """The cells for a simulation, on the pair and executor of `profile`.

        Raises:
            InputError: something that cannot be, or that would have no effect.
        """
        cells = self.cells(profile.pair, profile.executor.name)
        for cell in cells:
            profile.check(cell)
        return cells

    def predicted(self, profile: Profile) -> list[Cell]:
        """Those of `simulated`, with runs as long as a prediction needs: where hundreds of
        requests complete in one cycle, twice as many runs say more than runs twice as long. Not
        where the KV cache holds fewer than C: they come in waves then, which a cycle may cut.

        Raises:
            InputError: as there.
        """
        if self.given & {"cycles", "requests"}:
            return self.simulated(profile)
        return [
            replace(cell, cycles=1)
            if cell.concurrency >= SHORT_FROM and profile.holds(cell)
            else cell
            for cell in self.simulated(profile)
        ]

    def cells(self, models: Pair, executor: str) -> list[Cell]:
        """A cell for each concurrency and architecture.

        Raises:
            InputError: something that cannot be, or that would have no effect.
        """
        chosen = references(self.values["architecture"])
        loads = whole_numbers(self.values["concurrency"])
        found = self.configured(self.base(models, executor, loads[0]), chosen)
        return [replace(cell, concurrency=load) for load in loads for cell in found]

    def configured(self, base: Cell, chosen: Sequence[Reference]) -> list[Cell]:
        """`base` for each of the architectures; parameters with options of their own go to those
        that have them.

        Raises:
            InputError: none has a parameter that was given.
        """
        from pdvsim.architectures import architecture, shared

        architectures = [architecture(one.architecture) for one in chosen]
        drafting = [one for one in architectures if one.speculative]
        if not drafting or base.drafter == Drafter.NONE:
            names = ", ".join(one.name for one in architectures)
            who = base.pair if drafting else names
            self.refuse_given(f"{who} drafts nothing", ("acceptance", "draft_tokens"))
        common = {name: self.values.get(name) for name in PARAMETERS}
        owned = shared(architectures, common)
        published = protocols()[base.protocol].published
        cells = []
        for one, found, own in zip(chosen, architectures, owned, strict=True):
            usual = found.published if published else {}
            cell = replace(
                base,
                architecture=one.architecture,
                parameters=Values({**usual, **own, **one.parameters}),
                batch_cap=one.batch_cap,
            )
            if one.draft_tokens is not None:
                cell = with_draft_tokens(cell, one.draft_tokens)
            cell.config()  # refuses parameters that are out of bounds
            cells.append(cell)
        return cells

    def base(self, models: Pair, executor: str, concurrency: int, **changes: Any) -> Cell:
        """The cell that the options describe, whatever its architecture.

        Args:
            changes: in place of options, such as the value of an axis.
        """
        self._check_effects()
        values = {**self.values, **changes}
        acceptance = self._acceptance()
        trace, prompts = values["trace"], values.pop("prompts", None)
        drawn = values.pop("lengths_from", None)
        columns = values.get("trace_columns")
        for name in (*OTHERS, "architecture"):
            values.pop(name, None)
        cell = Cell(
            **values
            | {
                "pair": models.name,
                "drafter": str(models.drafter),
                "executor": executor,
                "architecture": "",
                "concurrency": concurrency,
                "trace": None if trace is None else TraceFile.of(trace, columns),
                **acceptance,
            }
        )
        if drawn is not None:
            cell = with_lengths(cell, TraceFile.of(Path(drawn)))
        return cell if prompts is None else with_prompts(cell, prompts_of(Path(prompts)))

    def _acceptance(self) -> dict[str, Any]:
        """Fields that say what is accepted, and of how many drafts."""
        from pdvsim.acceptance_forms import stated

        draft_tokens: int = self.values["draft_tokens"]
        check_bounds("draft_tokens", draft_tokens)
        if self.values.get("acceptance_from") is not None:
            self.refuse_given("--acceptance-from brings its own", ("acceptance",))
            return self._measured(Path(self.values["acceptance_from"]))
        kept = stated(self.values["acceptance"])
        if isinstance(kept, str):
            return {"acceptance": kept, "draft_tokens": draft_tokens}
        if kept.positions is not None and "draft_tokens" not in self.given:
            draft_tokens = kept.positions
        spread, lasts = (self.values.get(f"acceptance_{name}") for name in ("spread", "lasts"))
        check_bounds("acceptance_spread", spread or 0.0)
        each = kept.per_position(draft_tokens, spread or 0.0, lasts)
        return {"acceptance": each, "draft_tokens": draft_tokens}

    def _measured(self, path: Path) -> dict[str, Any]:
        """As measured rounds say; without records, as the document tells of them."""
        from pdvsim.acceptance_file import has_records, measured_acceptance, told_acceptance

        given = self.values["draft_tokens"] if "draft_tokens" in self.given else None
        if has_records(path):
            file = AcceptanceFile.of(path)
            each = measured_acceptance(file).per_position(given)
            return {"acceptance": each, "acceptance_from": file, "draft_tokens": len(each)}
        told = told_acceptance(path)
        each = told.per_position(given)
        if "acceptance_spread" in self.given:
            self.refuse_given("--acceptance-from brings its own", ("acceptance_spread",))
        return {
            "acceptance": each,
            "acceptance_from": None,
            "acceptance_spread": told.spread,
            "draft_tokens": len(each),
        }

    def _check_effects(self) -> None:
        protocol = protocols()[self.values["protocol"]]
        for name in sorted(self.given - protocol.fields):
            if takers(name):
                raise InputError(only_for(name))
        if "prompts" in self.given:
            theirs = {"prompt_tokens", "lengths_from", "max_context_tokens"}
            self.refuse_given("--prompts brings its own lengths", theirs)
        if "lengths_from" in self.given:
            theirs = {"prompt_tokens", "output_tokens", "spread", "output_spread"}
            self.refuse_given("--lengths-from brings its own lengths", theirs)
        if "requests" in self.given:
            self.refuse_given("--requests takes the place of cycles", ("cycles",))


def with_lengths(cell: Cell, file: TraceFile) -> Cell:
    """`cell` with lengths drawn from a file, which says the means.

    Raises:
        InputError: it is no trace.
    """
    from pdvsim.traces import read_trace

    requests = read_trace(Path(file.path))
    means = (
        max(1, round(sum(tokens) / len(requests)))
        for tokens in (requests.prompt_tokens, requests.output_tokens)
    )
    prompt_tokens, output_tokens = means
    return replace(
        cell, lengths_from=file, prompt_tokens=prompt_tokens, output_tokens=output_tokens
    )


def with_draft_tokens(cell: Cell, draft_tokens: int) -> Cell:
    """`cell` with another draft length. A shorter one takes the first of its positions; a longer
    one goes on as they are, which must then be alike.

    Raises:
        InputError: it differs from position to position, so what comes next is not known.
    """
    check_bounds("draft_tokens", draft_tokens)
    kept = cell.acceptance
    if kept != REAL and draft_tokens < cell.draft_tokens:
        kept = kept[:draft_tokens]
    elif kept != REAL and draft_tokens > cell.draft_tokens:
        if len(set(kept)) > 1 or cell.acceptance_from is not None:
            raise InputError(
                f"--acceptance is given for {cell.draft_tokens} positions, which leaves open what "
                f"it is with --draft-tokens {draft_tokens}; give one number for all"
            )
        kept = (kept[0],) * draft_tokens
    return replace(cell, acceptance=kept, draft_tokens=draft_tokens)


def whole_numbers(text: str) -> list[int]:
    """Parse `8`, or `1,8,32`.

    Raises:
        InputError: not whole numbers, or out of bounds.
    """
    try:
        numbers = list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise InputError(
            f"--concurrency is {text!r}; write whole numbers, as in 8 or 1,8,32"
        ) from None
    for number in numbers:
        check_bounds("concurrency", number)
    return numbers


def _value(key: str, text: str, default: Value) -> Any:
    """The value of a parameter, of the kind of its default."""
    automatic = default == AUTO
    if automatic and text == AUTO:
        return AUTO
    kind: type[Any] = int if automatic else type(default)
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        also = f" or {AUTO}" if automatic else ""
        raise InputError(f"{key} is {text!r}; it must be {what}{also}") from None
