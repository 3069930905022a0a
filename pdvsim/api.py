"""Questions and answers in Python: what `import pdvsim` offers.

Every function here answers with the same document that the command of its name writes. Nothing is
said twice: models and executor come from the profile, the draft length from the acceptance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pdvsim.asked import Asked
from pdvsim.cell import FIELDS
from pdvsim.documents import read as read
from pdvsim.documents.ablation import Ablation
from pdvsim.documents.benchmark import Benchmark
from pdvsim.documents.cells import Prediction
from pdvsim.documents.crossover import Crossover
from pdvsim.documents.explanation import Explanation
from pdvsim.documents.validation import Validation
from pdvsim.errors import InputError
from pdvsim.profile import load_profile as load_profile

if TYPE_CHECKING:
    from pdvsim.cell import Cell
    from pdvsim.profile import Profile

Architectures = str | Sequence[str]
Acceptance = float | str | Sequence[float]
Scale = Literal["ratio", "difference"]


@dataclass(frozen=True)
class Load:
    """What arrives, and what is asked of each request. Made by `closed_loop`, `poisson`, `trace`.

    Attributes:
        given: by the names of a cell's fields; all others have their defaults.
    """

    given: dict[str, Any]

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value}" for name, value in self.given.items())
        return f"Load({told})"

    def asked(self, architectures: Architectures = "") -> Asked:
        """As the options of a command."""
        names = [architectures] if isinstance(architectures, str) else architectures
        values: dict[str, Any] = {name: field.default for name, field in FIELDS.items()}
        values.pop("batch_cap")
        values.pop("parameters")
        unset = dict.fromkeys(("pair", "executor", "trace_columns"))
        values |= {"acceptance": "0.7", **unset, **self.given, "architecture": ",".join(names)}
        return Asked(values, frozenset(self.given))

    def cells(self, profile: Profile, architectures: Architectures) -> list[Cell]:
        """A cell for each concurrency and architecture, on the models of `profile`.

        Raises:
            InputError: something that cannot be, or that would have no effect.
        """
        return self.asked(architectures).simulated(profile)


def closed_loop(
    concurrency: int | Sequence[int] = 32,
    *,
    prompt_tokens: int = 128,
    prompts: str | Path | None = None,
    output_tokens: int = 64,
    spread: float | str = 0.0,
    output_spread: float | str | None = None,
    lengths_from: str | Path | None = None,
    max_context_tokens: int | None = None,
    acceptance: Acceptance = 0.7,
    acceptance_spread: float = 0.0,
    acceptance_lasts: int | None = None,
    acceptance_from: str | Path | None = None,
    draft_tokens: int | None = None,
    cycles: int | None = None,
    requests: int | None = None,
    slo_ttft_ms: float | None = None,
    slo_tpot_ms: float | None = None,
    slo_e2el_ms: float | None = None,
    seed: int = 0,
) -> Load:
    """So many requests in flight, always.

    Args:
        concurrency: C, or several.
        prompts: document of a bench that ran a file of prompts, for their lengths.
        spread: lengths lie within +- this share of their mean; or "lognormal:0.8", log-normal
            round it, with this deviation of the logarithm.
        output_spread: the same of outputs, where it is another.
        lengths_from: a trace; each request has the lengths of one of its requests, at random.
        max_context_tokens: requests are cut to this.
        acceptance: P(draft i is kept | the drafts before it were), for all positions or for each;
            or as vLLM prints it, "rate:44%", "length:2.77", "unconditional:0.8,0.56".
        acceptance_spread: standard deviation of it between requests.
        acceptance_lasts: rounds after which a request's own changes, on average (None: never).
        acceptance_from: bench document beside its records, or a record's request file: measured
            acceptance to replay.
        draft_tokens: drafts in a round; None takes 4, or as many as `acceptance` has positions.
        cycles: requests measured, in units of C (2); or how many `requests`.
        slo_ttft_ms, slo_tpot_ms, slo_e2el_ms: goodput counts requests that keep these.
    """
    return _load("closed-loop", **locals())


def poisson(
    rate_per_s: float,
    *,
    concurrency: int = 32,
    prompt_tokens: int = 128,
    prompts: str | Path | None = None,
    output_tokens: int = 64,
    spread: float | str = 0.0,
    output_spread: float | str | None = None,
    lengths_from: str | Path | None = None,
    max_context_tokens: int | None = None,
    acceptance: Acceptance = 0.7,
    acceptance_spread: float = 0.0,
    acceptance_lasts: int | None = None,
    acceptance_from: str | Path | None = None,
    draft_tokens: int | None = None,
    requests: int | None = None,
    slo_ttft_ms: float | None = None,
    slo_tpot_ms: float | None = None,
    slo_e2el_ms: float | None = None,
    seed: int = 0,
) -> Load:
    """Requests at random times.

    Args:
        rate_per_s: of arrivals.
        concurrency: the batch cap of the system under load.
        requests: how many arrive; None: as many as its tail needs (a bench takes 8 times the
            concurrency, but at least 200).
        (The others as in `closed_loop`.)
    """
    return _load("poisson", **locals())


def trace(
    path: str | Path,
    *,
    columns: str | None = None,
    concurrency: int = 32,
    requests: int | None = None,
    time_scale: float = 1.0,
    max_context_tokens: int | None = None,
    acceptance: Acceptance = 0.7,
    acceptance_spread: float = 0.0,
    acceptance_lasts: int | None = None,
    acceptance_from: str | Path | None = None,
    draft_tokens: int | None = None,
    slo_ttft_ms: float | None = None,
    slo_tpot_ms: float | None = None,
    slo_e2el_ms: float | None = None,
    seed: int = 0,
) -> Load:
    """The arrivals and lengths of a file.

    Args:
        columns: NAME=COLUMN,..., where the format of the file is not a known one.
        requests: only the first so many.
        time_scale: 2 replays it twice as fast.
        (The others as in `closed_loop`.)
    """
    given = {**locals(), "trace": Path(path), "trace_columns": columns}
    return _load("trace", **{k: v for k, v in given.items() if k not in ("path", "columns")})


def _load(protocol: str, **given: Any) -> Load:
    """Those that differ from their defaults."""
    kept = given.pop("acceptance")
    unset = ("draft_tokens", "cycles")  # what is said of these counts, also if it is usual
    found = {
        name: value
        for name, value in given.items()
        if value is not None
        and (name not in FIELDS or name in unset or value != FIELDS[name].default)
    }
    loads = given["concurrency"]
    found["concurrency"] = str(loads) if isinstance(loads, int) else ",".join(map(str, loads))
    if kept != 0.7:
        each = [kept] if isinstance(kept, int | float | str) else kept
        found["acceptance"] = ",".join(map(str, each))
    return Load({"protocol": protocol, **found})


def transferred(profile: Profile, gpu: str) -> Profile:
    """`profile` on another GPU than the one that was measured, from that GPU's two rates.

    Args:
        gpu: h200, or h200@copy_tb_s=4.2,matrix_tflops=780 as read there.

    Raises:
        InputError: no such GPU, or the rates of the measured one are not known.
    """
    from pdvsim import transfer

    return transfer.transferred(profile, gpu)


def predict(
    profile: Profile,
    load: Load,
    architectures: Architectures = "all",
    *,
    replications: int | None = None,
    formulas: bool = False,
    tail_within: float = 0.2,
    most_requests: int = 4_000,
    workers: int | None = 1,
) -> Prediction:
    """Every architecture at a load, with 95 % prediction intervals for one run.

    Args:
        architectures: names, with parameters if wanted: pdv@prefill_batch=8.
        replications: runs of each cell; None: 24, beyond 64 requests 16, of the eager
            executor 5.
        formulas: closed forms beside the simulation.
        tail_within, most_requests: runs of `poisson` that leaves `requests` open go on until one
            tells the p99 of TTFT and E2E within this share of it, or has so many requests.
        workers: processes; None takes one per usable core.

    Raises:
        InputError: something that cannot be, or that would have no effect.
    """
    from pdvsim.open_loop import Wanted
    from pdvsim.prediction import predicted

    wanted = Wanted(tail_within, most_requests)
    cells = load.asked(architectures).predicted(profile)
    return predicted(
        cells, profile, replications, formulas=formulas, wanted=wanted, workers=workers
    )


def explain(
    profile: Profile,
    load: Load,
    architectures: Architectures | None = None,
    *,
    replications: int = 5,
    workers: int | None = 1,
) -> Explanation:
    """Latency by cause, and what the differences between architectures are made of.

    Args:
        architectures: None takes the two that are compared unless asked otherwise.
        workers: processes; None takes one per usable core.

    Raises:
        InputError: something that cannot be, or that would have no effect.
    """
    from pdvsim.architectures import COMPARED
    from pdvsim.explain.document import explanation
    from pdvsim.explain.question import simulated
    from pdvsim.sweep import check_replications

    check_replications(replications)
    cells = load.cells(profile, COMPARED if architectures is None else architectures)
    found = simulated(cells, profile, replications, workers)
    return explanation(found, profile, replications, cells[0].seed)


def crossover(
    first: str,
    second: str,
    profile: Profile,
    load: Load,
    *,
    over: str = "concurrency",
    low: float | None = None,
    high: float | None = None,
    points: int = 8,
    metric: str | None = None,
    second_axis: str | None = None,
    replications: int = 32,
    workers: int | None = 1,
) -> Crossover:
    """From where on the second architecture overtakes the first.

    Args:
        over: what is varied, from `low` to `high` (None: as far as usual); what `load` says of
            it only counts where the axis does not go.
        points: values looked at to begin with.
        metric: None takes the output throughput, the goodput where there is an SLO, and of an open
            loop the median E2E latency.
        second_axis: draws a map over both.
        replications: machines drawn at one value at most, each with a pair of runs.
        workers: processes; None takes one per usable core.

    Raises:
        InputError: something that cannot be, or that would have no effect.
    """
    from pdvsim.crossover.question import crossed
    from pdvsim.crossover.space import AXES

    asked = load.asked()
    varied = {AXES[name].option for name in (over, second_axis) if name in AXES}
    asked = Asked(asked.values, asked.given - varied)
    return crossed(
        asked,
        profile,
        (first, second),
        over=over,
        ends=(low, high),
        points=points,
        metric=metric,
        second_axis=second_axis,
        replications=replications,
        workers=workers,
    )


def ablate(
    profile: Profile,
    load: Load,
    architectures: Architectures | None = None,
    *,
    metric: str = "e2e",
    mechanisms: Sequence[str] | None = None,
    scale: Scale = "ratio",
    replications: int = 12,
    workers: int | None = 1,
) -> Ablation:
    """What the difference of two architectures, the second over the first, is made of.

    Args:
        architectures: two, or one that is held against itself without its mechanisms; None takes
            the two that are compared unless asked otherwise.
        metric: e2e, ttft or throughput.
        mechanisms: which to switch off; None for all that play a part.
        workers: processes; None takes one per usable core.

    Raises:
        InputError: something that cannot be, or that would have no effect.
    """
    from pdvsim.ablate.question import ablated
    from pdvsim.architectures import COMPARED

    load.asked().one_load("one is ablated at a time")
    return ablated(
        load.cells(profile, COMPARED if architectures is None else architectures),
        profile,
        metric=metric,
        mechanisms=mechanisms,
        scale=scale,
        replications=replications,
        workers=workers,
    )


def validate(
    profile: Profile,
    benchmark: Benchmark | str | Path,
    *,
    replications: int = 8,
    workers: int | None = 1,
) -> Validation:
    """Predictions held against real runs, cell by cell.

    Args:
        benchmark: what `pdvsim bench -o` wrote, as a document or its file.
        workers: processes; None takes one per usable core.

    Raises:
        InputError: the profile cannot predict what ran.
    """
    from pdvsim.measured.benched import bench_of, check_predictable

    document = benchmark if isinstance(benchmark, Benchmark) else read(benchmark)
    if not isinstance(document, Benchmark):
        raise InputError(f"a benchmark is needed, not a {document.NAME}")
    bench = bench_of(document, Path())
    for one in bench.cells:
        check_predictable(one.cell, profile)
    # calibration stands above this package.
    ask = import_module("calibration.validate").validate
    found: Validation = ask([bench], profile, replications, workers)
    return found
