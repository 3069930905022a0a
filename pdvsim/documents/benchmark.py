"""The document of `pdvsim bench`: cells on the real engine, and what each run says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from pdvsim.core import Stage
from pdvsim.documents.base import Finite, Machine, Model, Table
from pdvsim.documents.cells import CellsDocument, Row
from pdvsim.models import Pair


class Telemetry(Model):
    """What the GPU's own counters said during a run; `reason` says why they did not."""

    samples: int
    utilisation_mean: Finite | None
    utilisation_max: Finite | None
    memory_bytes_mean: Finite | None
    memory_bytes_max: Finite | None
    sm_clock_mhz_mean: Finite | None
    power_w_mean: Finite | None
    reason: str | None


class Launches(Model):
    """Launches of one stage: how many, and their means."""

    stage: Stage
    count: int
    batch: Finite
    query_tokens: Finite
    context_tokens: Finite
    launch_s: Finite


class AcceptanceSpread(Model):
    """How acceptance rates, accepted over drafted, differ between requests that completed.

    Attributes:
        std: of the rates.
        independent_std: what it would be if all rounds were alike and independent.
        p10, median, p90: quantiles of the rates.
    """

    requests: int = Field(ge=2)
    std: Finite
    independent_std: Finite
    p10: Finite
    median: Finite
    p90: Finite


class RequestRounds(Model):
    """Rounds of each request, in columns of one length."""

    id: tuple[int, ...]
    rounds: tuple[int, ...]
    drafted: tuple[int, ...]
    accepted: tuple[int, ...]


class MeasuredAcceptance(Model):
    """What the rounds of a run drafted and kept; `pdvsim.speculation` says what each is.

    Attributes:
        drafting_rounds: of `rounds`, those that drafted something.
        rate: accepted over drafted.
        conditional: by position; null where it was never come to.
        unconditional: by position, as vLLM prints it.
        length: mean accepted length, what a round that drafted yields.
        tokens_per_round: the same over all rounds.
        spread: between requests; null where fewer than two completed.
    """

    rounds: int = Field(ge=1)
    drafting_rounds: int = Field(ge=1)
    drafted: int = Field(ge=1)
    accepted: int = Field(ge=0)
    rate: Finite
    conditional: tuple[Finite | None, ...]
    unconditional: tuple[Finite, ...]
    length: Finite
    tokens_per_round: Finite
    spread: AcceptanceSpread | None
    requests: RequestRounds


class MeasuredRun(Model):
    """One real run, and what it says of its host (`pdvsim.measured.host_speed`).

    Attributes:
        launched: all launches by stage.
        undisturbed: those that no launch of another lane overlapped, in equal spans of the run.
        launching_s: seconds in which exactly 1, 2, ... threads were launching.
        records: beginning of the names of its record files, beside the document; null where that
            was not yet recorded.
        failed: requests that the engine could not go on with; they count for nothing.
        failure: why the first of them failed.
        acceptance: null where nothing was drafted, or that was not yet recorded.
    """

    elapsed_s: Finite
    verb_overhead_s: Finite
    rounds: int
    launched: tuple[Launches, ...]
    undisturbed: tuple[tuple[Launches, ...], ...]
    launching_s: tuple[Finite, ...]
    telemetry: Telemetry
    records: str | None
    failed: int = Field(ge=0)
    failure: str | None
    acceptance: MeasuredAcceptance | None = None


class BenchRow(Row):
    """A measured cell and its runs."""

    runs: tuple[MeasuredRun, ...]


class Benchmark(CellsDocument):
    """`pdvsim bench`: cells on the real engine.

    Attributes:
        models: shapes of the pair that ran; null where that was not yet recorded.
    """

    NAME: ClassVar[str] = "benchmark"

    kind: Literal["bench"]
    cells: tuple[BenchRow, ...]
    machine: Machine
    models: Pair | None

    def tables(self) -> Iterator[Table]:
        yield from super().tables()
        accepted = self.accepted()
        if accepted.lines:
            yield accepted

    def accepted(self) -> Table:
        """What was drafted and kept in the first run of each cell that drafted."""
        from pdvsim.output import number

        several = len(self.loads) > 1
        lines = []
        for row in self.cells:
            found = row.runs[0].acceptance if row.runs else None
            if found is None:
                continue
            spread, without = found.spread, found.rounds - found.drafting_rounds
            lines.append(
                (
                    *(((str(row.concurrency), ""),) if several else ()),
                    (row.label, ""),
                    (f"{100 * found.rate:.1f} %", f"{found.accepted} of {found.drafted}"),
                    (_rates(found.conditional), ""),
                    (_rates(found.unconditional), ""),
                    (number(found.length), ""),
                    (str(found.rounds), f"{without} without drafts" if without else ""),
                    ("n/a", "")
                    if spread is None
                    else (
                        f"{100 * spread.std:.1f} %",
                        f"by chance {100 * spread.independent_std:.1f}",
                    ),
                )
            )
        head = (
            *(("C",) if several else ()),
            *("architecture", "drafts kept", "by position, given those before"),
            *("of drafting rounds", "accepted length", "rounds", "between requests"),
        )
        return Table("Acceptance", head, lines)


def _rates(found: tuple[float | None, ...]) -> str:
    return " ".join("-" if rate is None else f"{rate:.2f}" for rate in found)
