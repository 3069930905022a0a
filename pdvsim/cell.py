"""The specification of one cell: everything that decides what runs, and nothing about the machine.

A cell is said once. What a user asks for becomes cells (`pdvsim.asked`), both worlds run what a
cell says, and documents and record files carry the whole cell, from which it is read back.

Each field of `Cell` says its bounds and meaning in its metadata; options take their ranges,
defaults and help texts from there. This module imports nothing heavy, so that `--help` is quick.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pdvsim.cell_acceptance import acceptance_text, check_acceptance, injected
from pdvsim.cell_values import AUTO as AUTO
from pdvsim.cell_values import AcceptanceFile, Spread, plain_spread
from pdvsim.cell_values import PromptFile as PromptFile
from pdvsim.cell_values import TraceFile as TraceFile
from pdvsim.cell_values import Value as Value
from pdvsim.cell_values import Values as Values
from pdvsim.errors import InputError
from pdvsim.protocols import protocols, takers

if TYPE_CHECKING:
    import numpy as np
    from pydantic import TypeAdapter, ValidationError

    from pdvsim.acceptance import Outcomes
    from pdvsim.architectures import Config
    from pdvsim.metrics import Slo
    from pdvsim.workload import Lengths, Workload

DEFAULT_PAIR, DEFAULT_EXECUTOR = "tinyllama-1.1b:llama-2-7b", "graph"
REAL: Literal["real"] = "real"
_SPREADS = ("spread", "output_spread")
MODEL = "model"  # the drafter of a pair of models


def _says(
    meaning: str,
    low: float | None = None,
    high: float | None = None,
    flag: str | None = None,
    added: bool = False,
) -> dict[str, Any]:
    """Metadata of a field: what it means, where it lies, its flag if that is not its name, and
    whether it was added after cells had been recorded without it."""
    return {"meaning": meaning, "low": low, "high": high, "flag": flag, "added": added}


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell. Hashable and picklable; a plain object in JSON, which refuses unknown keys.

    Attributes:
        drafter: of the pair (`pdvsim.core.Drafter`).
        parameters: of the architecture, where they are not its defaults.
        batch_cap: requests per turn and base of the admission limit; None: `concurrency`.
        rate_per_s: arrivals of `poisson`.
        requests: `poisson`: how many; `trace`: how many of the first; `closed-loop`: completions
            measured after the warm-up. None: 8 x concurrency but at least 200 (a prediction takes
            as many as its tail needs), the whole trace, and `cycles` x concurrency.
        spread: of prompts and outputs round their means (`cell_values.spread_shape`).
        output_spread: of outputs, where it is another.
        lengths_from: a trace, of which each request has the lengths of one at random; the means
            are those of the file.
        acceptance: P(draft i is kept | the drafts before it were), for each of `draft_tokens`
            positions; `real` where an engine compares real tokens.
        acceptance_spread, acceptance_lasts: between requests, and along them
            (`pdvsim.acceptance.Acceptance`).
        acceptance_from: measured rounds to replay; `acceptance` is then what they say per
            position.
        temperature: of real sampling; 0 is greedy.
        seed: of workload plans and of the draws from a profile.
    """

    pair: str = field(metadata=_says("Draft and verifier model."))
    executor: str = field(metadata=_says("How stages are launched."))
    architecture: str = field(metadata=_says("How requests are scheduled."))
    concurrency: int = field(
        metadata=_says("C: requests in flight, and the batch cap.", 1, 100_000)
    )
    drafter: str = field(default=MODEL, metadata=_says("What drafts."))
    parameters: Values = field(default_factory=Values)
    batch_cap: int | None = field(default=None, metadata=_says("Batch cap.", 1, 100_000))
    protocol: str = field(
        default="closed-loop",
        metadata=_says(
            "; ".join(f"{name}: {one.meaning}" for name, one in protocols().items()) + "."
        ),
    )
    rate_per_s: float | None = field(
        default=None, metadata=_says("Arrivals per second of poisson.", 1e-6, 1e6, "--rate")
    )
    trace: TraceFile | None = field(default=None, metadata=_says("File of requests to replay."))
    prompts: PromptFile | None = field(
        default=None,
        metadata=_says(
            "File of prompts for a checkpoint, one a line or JSON Lines; elsewhere the document of "
            "a bench that counted their tokens. Requests take them in turn.",
            added=True,
        ),
    )
    time_scale: float = field(
        default=1.0, metadata=_says("2 replays a trace twice as fast.", 1e-6, 1e6, "--trace-speed")
    )
    max_context_tokens: int | None = field(
        default=None,
        metadata=_says(
            "Requests are cut to so many tokens: outputs to half of it, prompts to the rest.",
            2,
            2_000_000,
        ),
    )
    requests: int | None = field(
        default=None,
        metadata=_says(
            "Number of requests: of poisson; of a trace, the first; of a closed loop, measured "
            "after the warm-up, instead of --cycles.",
            1,
            1_000_000,
        ),
    )
    cycles: int = field(
        default=2, metadata=_says("Requests measured in a closed loop, times C.", 1, 1000)
    )
    prompt_tokens: int = field(default=128, metadata=_says("Mean prompt length.", 1, 1_000_000))
    output_tokens: int = field(default=64, metadata=_says("Mean output length.", 1, 1_000_000))
    spread: Spread = field(
        default=0.0,
        metadata=_says(
            "Lengths lie within +- this share of their mean; or lognormal:0.8, log-normal round "
            "it, with this deviation of the logarithm.",
            0.0,
            0.99,
        ),
    )
    output_spread: Spread | None = field(
        default=None,
        metadata=_says("The same of outputs, where it is another. [--spread]", added=True),
    )
    lengths_from: TraceFile | None = field(
        default=None,
        metadata=_says(
            "Trace (any that --trace takes): each request has the prompt and output length of one "
            "of its requests, drawn at random.",
            added=True,
        ),
    )
    acceptance: tuple[float, ...] | Literal["real"] = field(
        default=(0.7, 0.7, 0.7, 0.7),
        metadata=_says(
            "Probability that a draft is kept, given that those before it were: one number, or "
            "one for each draft position, as in 0.8,0.7,0.6. As vLLM prints it: rate:44% "
            "(accepted over drafted), length:2.77 (the bonus token counted), or "
            "unconditional:0.8,0.56 (per position).",
            0.0,
            1.0,
        ),
    )
    acceptance_spread: float = field(
        default=0.0,
        metadata=_says(
            "Standard deviation of these probabilities between requests.", 0.0, 0.49, added=True
        ),
    )
    acceptance_lasts: int | None = field(
        default=None,
        metadata=_says(
            "Rounds after which a request's own probabilities change, on average. [never]",
            1,
            100_000,
            added=True,
        ),
    )
    acceptance_from: AcceptanceFile | None = field(
        default=None,
        metadata=_says(
            "A record's .._requests.parquet, or a bench document beside its records: each request "
            "has the accepted drafts of a measured one, drawn at random. A bench without them says "
            "acceptance and spread.",
            added=True,
        ),
    )
    draft_tokens: int = field(default=4, metadata=_says("Tokens drafted per round.", 1, 16))
    temperature: float = field(
        default=0.0, metadata=_says("Of sampling with real acceptance; 0: greedy.", 0.0, 100.0)
    )
    slo_ttft_ms: float | None = field(
        default=None, metadata=_says("Goodput counts requests with a TTFT up to this.", 1e-3, 1e9)
    )
    slo_tpot_ms: float | None = field(
        default=None, metadata=_says("Goodput counts requests with a TPOT up to this.", 1e-3, 1e9)
    )
    slo_e2el_ms: float | None = field(
        default=None,
        metadata=_says("Goodput counts requests with an E2E latency up to this.", 1e-3, 1e9),
    )
    seed: int = field(default=0, metadata=_says("Of workloads and profile draws.", 0, 2**63 - 1))

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", Values(self.parameters))
        if isinstance(self.acceptance, list):
            object.__setattr__(self, "acceptance", tuple(self.acceptance))
        for one in fields(self):
            values = getattr(self, one.name)
            if hasattr(values, "item"):  # a numpy scalar, which JSON does not know
                values = values.item()
                object.__setattr__(self, one.name, values)
            if one.name in _SPREADS and values is not None:
                values = plain_spread(flag(one.name), values)
                object.__setattr__(self, one.name, values)
                continue
            for value in values if isinstance(values, tuple) else (values,):
                if value is not None and value != REAL:
                    check_bounds(one.name, value)
        _check_choice("--protocol", self.protocol, tuple(protocols()))
        _check_executor(self.executor)
        _check_drafter(self.drafter, self.executor)
        self._check_protocol()
        check_acceptance(self)
        counted = self.prompts if self.prompts and self.prompts.tokens else None
        if counted is not None and self.prompt_tokens != counted.mean_tokens:
            raise InputError(
                f"--prompts brings its own lengths, {counted.mean_tokens} tokens on average; leave "
                "--prompt-tokens out"
            )

    def _check_protocol(self) -> None:
        mine = protocols()[self.protocol]
        for one in fields(self):
            given = getattr(self, one.name) != one.default
            if one.name in mine.needs and not given:
                raise InputError(f"{flag(one.name)} is needed by the protocol {mine.name}")
            # Lengths and cycles always have a value, which says nothing where it has no effect.
            asked = given and one.default in (None, 1.0)
            if asked and one.name not in mine.fields and takers(one.name):
                raise InputError(only_for(one.name))

    @classmethod
    def read(cls, data: Any) -> Cell:
        """A cell from the JSON object that `to_dict` wrote.

        Raises:
            InputError: a key is missing, unknown or of the wrong kind, or a value is impossible.
        """
        from pydantic import ValidationError

        try:
            return _adapter().validate_python(data)
        except ValidationError as error:
            raise InputError(_sentence(error)) from None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, all fields."""
        content: dict[str, Any] = _adapter().dump_python(self, mode="json")
        return content

    def config(self) -> Config:
        """The configured architecture.

        Raises:
            InputError: there is no such architecture, or it has no such parameter.
        """
        from pdvsim.architectures import Config
        from pdvsim.core import EXECUTORS, Drafter

        return Config(
            self.architecture,
            EXECUTORS[self.executor].with_drafter(Drafter(self.drafter)),
            batch_cap=self.batch_cap or self.concurrency,
            draft_tokens=self.draft_tokens,
            parameters=self.parameters,
        )

    def plan(self, seed: np.random.SeedSequence) -> Workload:
        """Draw one workload."""
        return protocols()[self.protocol].plan(self, seed)

    @property
    def lengths(self) -> Lengths:
        """Prompt and output lengths.

        Raises:
            InputError: those of prompts in a file are not known yet.
        """
        from pdvsim.workload import Lengths

        prompts = None if self.prompts is None else self.prompts.tokens
        if self.prompts is not None and prompts is None:
            raise InputError(
                f"how many tokens the prompts of {self.prompts.path} have is not known before "
                "pdvsim bench has counted them; give --prompts the document that bench -o wrote"
            )
        return Lengths(
            self.prompt_tokens,
            self.output_tokens,
            self.spread,
            prompts,
            self.output_spread,
            self.lengths_from,
            self.max_context_tokens,
        )

    @property
    def same_lengths(self) -> bool:
        """Whether all plans have requests of the same lengths."""
        return not self.spread and not self.output_spread and self.lengths_from is None

    @property
    def injected(self) -> Outcomes | None:
        """Where injected acceptance comes from; None for real tokens."""
        return injected(self)

    @property
    def file_name(self) -> str:
        """A label for files about this cell alone: readable, and of no other cell."""
        content = json.dumps(self.to_dict(), sort_keys=True).encode()
        digest = hashlib.sha256(content).hexdigest()[:8]
        name = Path(self.architecture).stem
        return f"{name}-{self.executor}-{self.protocol}-c{self.concurrency}-{digest}"

    @property
    def acceptance_text(self) -> str:
        """Where acceptance comes from, in words."""
        return acceptance_text(self)

    @property
    def slo(self) -> Slo | None:
        """What a request must keep to count as goodput; None if nothing was asked."""
        from pdvsim.metrics import Slo

        asked = (self.slo_ttft_ms, self.slo_tpot_ms, self.slo_e2el_ms)
        return None if asked == (None, None, None) else Slo(*asked)


FIELDS = {one.name: one for one in fields(Cell)}


def with_prompts(cell: Cell, prompts: PromptFile | None) -> Cell:
    """`cell` with the prompts of a file; where they are counted, they say its mean length."""
    if prompts is None or prompts.tokens is None:
        return replace(cell, prompts=prompts)
    return replace(cell, prompts=prompts, prompt_tokens=prompts.mean_tokens)


def labels(cells: Sequence[Cell]) -> list[str]:
    """What to call each of several cells: its architecture, with the parameters given to it that
    are not common to all the architectures that have them, nor the protocol's own:
    `pdv@prefill_batch=8`."""
    from pdvsim.architectures import architecture

    configs = [cell.config() for cell in cells]
    values: dict[str, set[Value]] = {}
    owners: dict[str, set[str]] = {}
    for config in configs:
        for name, value in config.parameters.items():
            values.setdefault(name, set()).add(value)
            owners.setdefault(name, set()).add(config.name)
    common = {name for name in values if len(values[name]) == 1 and len(owners[name]) > 1}
    found = []
    for cell, config in zip(cells, configs, strict=True):
        published = protocols()[cell.protocol].published
        usual = architecture(config.architecture).published if published else {}
        shown = [
            f"{name}={value}"
            for name, value in cell.parameters.items()
            if name not in common and usual.get(name) != value
        ]
        if cell.batch_cap is not None:
            shown.append(f"batch_cap={cell.batch_cap}")
        found.append(f"{config.name}@{','.join(shown)}" if shown else config.name)
    return found


def flag(name: str) -> str:
    """The option that sets a field of `Cell`: `--rate` for `rate_per_s`."""
    given = FIELDS[name].metadata.get("flag") if name in FIELDS else None
    return given or "--" + name.replace("_", "-")


def only_for(name: str) -> str:
    """Why a field of `Cell` is refused under a protocol that has no use for it."""
    *others, last = takers(name)
    listed = f"protocols {', '.join(others)} and {last}" if others else f"protocol {last}"
    return f"{flag(name)} is only for the {listed}"


def check_bounds(name: str, value: Any) -> None:
    """Refuse a value of a field of `Cell` outside its bounds.

    Raises:
        InputError: naming the option, the value and the bounds.
    """
    low, high = (FIELDS[name].metadata.get(end) for end in ("low", "high"))
    if low is None or high is None:
        return
    number = isinstance(value, Real) and not isinstance(value, bool)
    if number and low <= value <= high and (isinstance(value, Integral) or isinstance(low, float)):
        return
    whole = "a whole number " if number and low <= value <= high else ""
    raise InputError(
        f"{flag(name)} is {value}; it must be {whole}between {spoken(low)} and {spoken(high)}"
    )


def spoken(value: Value) -> str:
    """A value or a bound in words: whole numbers in full."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "unexpected_keyword_argument":
        return f"a cell has no {where!r}"
    if first["type"] == "missing":
        return f"a cell needs {where!r}"
    return f"a cell's {where or 'content'} is {first['input']!r}: {first['msg']}"


def _check_choice(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"{what} is {value!r}; known are {', '.join(known)}")


def _check_executor(name: str) -> None:
    from pdvsim.core import EXECUTORS

    _check_choice("--executor", name, tuple(EXECUTORS))


def _check_drafter(drafter: str, executor: str) -> None:
    from pdvsim.core import EXECUTORS, Drafter, check_drafter

    _check_choice("the drafter", drafter, tuple(Drafter))
    check_drafter(EXECUTORS[executor], Drafter(drafter))


def _adapter() -> TypeAdapter[Cell]:
    if not _ADAPTER:
        from pydantic import TypeAdapter

        _ADAPTER.append(TypeAdapter(Cell))
    return _ADAPTER[0]


_ADAPTER: list[TypeAdapter[Cell]] = []
