"""The one shape that every benchmark table is brought into before it is audited.

A table has cells (one system at one load), a cell may have its requests one by one. Whatever a
file does not say stays None, and the rules that need it say that they could not look.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby

from pdvsim.models import ModelShape, Pair, named_by_hub

LATENCY = "E2E latency"


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a table states of one quantity over requests or tokens, in seconds.

    Attributes:
        of: the quantity: TTFT, TPOT, ITL, E2E latency, ...
        percentiles: (percent, value), percents rising; the median is 50.
    """

    of: str
    mean: float | None = None
    std: float | None = None
    least: float | None = None
    most: float | None = None
    percentiles: tuple[tuple[float, float], ...] = ()

    @property
    def numbers(self) -> list[tuple[str, float]]:
        """(name, seconds) of all that is known."""
        named = [("mean", self.mean), ("standard deviation", self.std)]
        named += [("minimum", self.least), ("maximum", self.most)]
        known = [(name, value) for name, value in named if value is not None]
        return known + [(f"p{percent:g}", value) for percent, value in self.percentiles]

    def at(self, percent: float) -> float | None:
        """One percentile, if it is known."""
        return dict(self.percentiles).get(percent)


@dataclass(frozen=True, slots=True)
class Served:
    """One request of a cell.

    Attributes:
        latency_s: end to end; None if the request was not completed.
        timings: every other time the file gives for it, seconds; used to recognise copies.
        drafted, accepted: tokens proposed by the draft model, and those that the file calls
            accepted.
    """

    id: str
    latency_s: float | None
    timings: tuple[float, ...] = ()
    output_tokens: int | None = None
    drafted: int | None = None
    accepted: int | None = None

    @property
    def number(self) -> int | None:
        """The number in `id` ("req_0007" -> 7), if there is one at its end."""
        digits = self.id[len(self.id.rstrip("0123456789")) :]
        return int(digits) if digits else None


@dataclass(frozen=True)
class Cell:
    """One system at one load, as a table reports it.

    Attributes:
        load: the table's own label of the load.
        model_id: the model served, as the file names it.
        run: which of several runs of the same cell, if the table has them.
        concurrency: requests that the table says are kept in flight (or at most in flight).
        client_cap: `concurrency` is the client's cap, and latency starts when it sends a request:
            what waits for the cap is not in the latency.
        sessions: why `concurrency` counts sessions that pause, if it does.
        in_flight_stated: mean number in flight that the table itself states.
        rate_per_s: offered requests/s; None where the load is a concurrency alone.
        duration_s: measured wall time, if the file gives it.
        time_limit_s: the run was configured to end here at the latest.
        cut: what the file says of requests that were in flight at the end, if they were cut.
        completed_span_s: from the first request to the last completion, where the file counts
            that as the duration and throughput over another time.
        offered: requests sent, or due to be sent by the end.
        failed: requests that ended with an error.
        request_goodput: completed requests per second that kept an SLO.
        output_tokens: tokens that `output_throughput` counts.
        resolution: step to which `output_throughput` was printed, tokens/s (0: exact).
        latency_s, latency_std_s, latency_p99_s: end to end, over completed requests.
        tpot_s: time per output token after the first.
        gap_s: mean over all gaps between a request's chunks, of which a chunk has one token or
            more.
        acceptance_rate: share of 1; accepted_length: tokens per round with the verifier's own.
        draft_tokens: drafted per round (L, or its mean); None if unknown, 0 without speculation.
        bonus_token: a round that keeps all drafts also yields the verifier's next token.
        tokens_per_request: prompt and output together, mean.
        memory_mib: peak GPU memory.
        utilization: share of 1 in which the GPU had work.
        distributions: of every latency that the table gives more than a mean of.
    """

    system: str
    load: float | None = None
    run: str | None = None
    pair: Pair | None = None
    model_id: str | None = None
    concurrency: float | None = None
    client_cap: bool = False
    sessions: str | None = None
    in_flight_stated: float | None = None
    rate_per_s: float | None = None
    duration_s: float | None = None
    time_limit_s: float | None = None
    cut: str | None = None
    completed_span_s: float | None = None
    offered: int | None = None
    completed: int | None = None
    failed: int | None = None
    output_tokens: int | None = None
    output_throughput: float | None = None
    resolution: float = 0.0
    request_throughput: float | None = None
    request_goodput: float | None = None
    latency_s: float | None = None
    latency_std_s: float | None = None
    latency_p50_s: float | None = None
    latency_p99_s: float | None = None
    ttft_s: float | None = None
    tpot_s: float | None = None
    gap_s: float | None = None
    acceptance_rate: float | None = None
    accepted_length: float | None = None
    draft_tokens: float | None = None
    bonus_token: bool = True
    tokens_per_request: float | None = None
    memory_mib: float | None = None
    utilization: float | None = None
    distributions: tuple[Distribution, ...] = field(default=(), repr=False)
    requests: tuple[Served, ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        load = "" if self.load is None else f" @ {self.load:g}"
        return self.system + load + ("" if self.run is None else f", run {self.run}")

    @property
    def served(self) -> ModelShape | None:
        """The model whose tokens are counted: the pair's verifier, or the one the file names."""
        if self.pair is not None:
            return self.pair.verifier
        return named_by_hub(self.model_id) if self.model_id else None

    @cached_property
    def done(self) -> tuple[Served, ...]:
        """The requests that were completed."""
        return tuple(request for request in self.requests if request.latency_s is not None)

    @property
    def samples(self) -> int | None:
        """Completed requests behind the cell's numbers."""
        if self.completed is not None:
            return self.completed
        return len(self.done) if self.requests else None

    @cached_property
    def tokens(self) -> int | None:
        """Output tokens of the completed requests."""
        if self.output_tokens is not None:
            return self.output_tokens
        counts = [r.output_tokens for r in self.done if r.output_tokens is not None]
        return sum(counts) if counts and len(counts) == len(self.done) else None

    @property
    def elapsed_s(self) -> float | None:
        """Length of the run: as given, or tokens / throughput, or requests / throughput."""
        if self.duration_s is not None:
            return self.duration_s
        if self.tokens and self.output_throughput:
            return self.tokens / self.output_throughput
        if self.samples and self.request_throughput:
            return self.samples / self.request_throughput
        return None

    @property
    def elapsed_slack(self) -> float:
        """Relative uncertainty of `elapsed_s` from the rounding of the throughput."""
        if self.duration_s is not None or not self.output_throughput:
            return 0.0
        return self.resolution / 2 / self.output_throughput

    @property
    def served_per_s(self) -> float | None:
        """Completed requests per second of the run."""
        if self.request_throughput is not None:
            return self.request_throughput
        if self.samples is not None and self.elapsed_s:
            return self.samples / self.elapsed_s
        return None

    @cached_property
    def mean_latency_s(self) -> float | None:
        """End-to-end latency as stated, else from the requests."""
        if self.latency_s is not None:
            return self.latency_s
        if not self.done:
            return None
        return sum(r.latency_s or 0.0 for r in self.done) / len(self.done)

    @property
    def longest_latency_s(self) -> float | None:
        """The longest latency, of the requests or as the table states it."""
        if self.done:
            return max(r.latency_s or 0.0 for r in self.done)
        return self.latency.most

    @cached_property
    def latency(self) -> Distribution:
        """All that is stated of end-to-end latency."""
        for distribution in self.distributions:
            if distribution.of == LATENCY:
                return distribution
        known = ((50.0, self.latency_p50_s), (99.0, self.latency_p99_s))
        return Distribution(
            LATENCY,
            self.latency_s,
            self.latency_std_s,
            percentiles=tuple((p, value) for p, value in known if value is not None),
        )

    @property
    def in_flight(self) -> float | None:
        """Mean number in flight that the completed requests account for: X R (Little)."""
        if self.served_per_s is None or self.mean_latency_s is None:
            return None
        return self.served_per_s * self.mean_latency_s

    @property
    def unfinished_share(self) -> tuple[float, str] | None:
        """Share of the offered requests that were not completed, and how that is known."""
        if self.samples is None:
            return None
        if self.offered:
            return max(0.0, 1.0 - self.samples / self.offered), "offered"
        if self.rate_per_s and self.elapsed_s:
            return max(0.0, 1.0 - self.samples / (self.rate_per_s * self.elapsed_s)), "rate"
        if self.concurrency:
            return self.concurrency / (self.samples + self.concurrency), "concurrency"
        return None


@dataclass(frozen=True)
class Table:
    """A benchmark table.

    Attributes:
        left_out: what of the source was not read, and why, a sentence each.
        counts_unfinished: throughput counts tokens when they are produced and latency accounts
            for requests in flight at the end, so a cut run is not biased by its survivors.
        windowed: durations are those of a steady-state window: requests that completed in it may
            have come before it began.
        same_requests: request i is the same prompt under every system and load, decoded
            greedily: it must take the same tokens everywhere.
        demand_memory: memory is allocated as caches grow, not as one pool (None: not known).
    """

    source: str
    format: str
    cells: tuple[Cell, ...]
    left_out: tuple[str, ...] = ()
    counts_unfinished: bool = False
    windowed: bool = False
    same_requests: bool = False
    demand_memory: bool | None = None

    def by_load(self) -> Iterator[tuple[float, list[Cell]]]:
        """Cells of one load and pair together, loads rising."""
        known = [cell for cell in self.cells if cell.load is not None]

        def key(cell: Cell) -> tuple[float, str]:
            return (cell.load or 0.0, cell.pair.name if cell.pair else "")

        for (load, _), cells in groupby(sorted(known, key=key), key):
            yield load, list(cells)

    def by_system(self) -> Iterator[tuple[str, list[Cell]]]:
        """Cells of one system and pair together, loads rising."""

        def key(cell: Cell) -> tuple[str, str]:
            return (cell.system, cell.pair.name if cell.pair else "")

        ordered = sorted(self.cells, key=lambda cell: (*key(cell), cell.load or 0.0))
        for (system, _), cells in groupby(ordered, key):
            yield system, list(cells)
