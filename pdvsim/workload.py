"""What arrives when: closed loop, Poisson and trace replay.

A workload is a plan, drawn once from a seed. Both worlds run the same plan, so that predicted
and measured runs pair up request by request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pdvsim.acceptance import Outcomes
from pdvsim.cell import check_bounds
from pdvsim.core import Request
from pdvsim.errors import InputError
from pdvsim.lengths import Lengths as Lengths
from pdvsim.lengths import cut
from pdvsim.traces import read_trace

MOST_REQUESTS = 2_000_000
MOST_OUTPUT_TOKENS = 100_000_000  # of all requests together: an outcome is drawn for each
LEAST_MEASURED = 24  # completions behind a percentile, however small the load


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """The plan of one run.

    Attributes:
        arrival_s: arrival of each request, seconds; None for a closed loop.
        prompt_tokens, output_tokens: per request.
        outcomes: accepted drafts per round, per request; empty entries for real acceptance.
        in_flight: requests kept in service by a closed loop.
        warmup: completions that are cut off the front before steady state is measured.
        deadline_s: the run is cut here, whatever is in flight.
        stop_after: the run ends at this many completions (None: when all are done).
        notes: what was done to a trace to make it a plan, a sentence each.
    """

    protocol: str
    prompt_tokens: Sequence[int]
    output_tokens: Sequence[int]
    outcomes: Sequence[Sequence[int]]
    arrival_s: Sequence[float] | None = None
    in_flight: int | None = None
    warmup: int = 0
    deadline_s: float | None = None
    stop_after: int | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.prompt_tokens)

    def requests(self) -> list[Request]:
        """Fresh requests, in order of arrival."""
        arrivals = self.arrival_s if self.arrival_s is not None else [0.0] * len(self)
        return [
            Request(i, prompt, output, arrival_s=arrival, outcomes=outcome)
            for i, (prompt, output, arrival, outcome) in enumerate(
                zip(self.prompt_tokens, self.output_tokens, arrivals, self.outcomes, strict=True)
            )
        ]


def closed_loop(
    concurrency: int,
    lengths: Lengths,
    acceptance: Outcomes | None,
    seed: np.random.SeedSequence,
    cycles: int = 2,
    measured: int | None = None,
    deadline_s: float | None = None,
) -> Workload:
    """N requests always in flight; ends with N still in flight, after `measured` completions
    beyond the first N, which are warm-up.

    Args:
        acceptance: None if the engine is to compare real tokens.
        cycles: `measured` is this many times N, and at least LEAST_MEASURED, if not given.
    """
    check_bounds("concurrency", concurrency)
    measured = measured or max(cycles * concurrency, LEAST_MEASURED)
    prompts, outputs, outcomes = draw(2 * concurrency + measured, lengths, acceptance, seed)
    return Workload(
        "closed-loop",
        prompts,
        outputs,
        outcomes,
        in_flight=concurrency,
        warmup=concurrency,
        stop_after=concurrency + measured,
        deadline_s=deadline_s,
    )


def poisson(
    rate_per_s: float,
    count: int,
    lengths: Lengths,
    acceptance: Outcomes,
    seed: np.random.SeedSequence,
    deadline_s: float | None = None,
) -> Workload:
    """`count` requests at `rate_per_s`; the first tenth is warm-up."""
    check_bounds("rate_per_s", rate_per_s)
    arrivals_seed, rest = seed.spawn(2)
    gaps = np.random.default_rng(arrivals_seed).exponential(1.0 / rate_per_s, count)
    prompts, outputs, outcomes = draw(count, lengths, acceptance, rest)
    return Workload(
        "poisson",
        prompts,
        outputs,
        outcomes,
        arrival_s=np.cumsum(gaps).tolist(),
        warmup=count // 10,
        deadline_s=deadline_s,
    )


def draw(
    count: int, lengths: Lengths, acceptance: Outcomes | None, seed: np.random.SeedSequence
) -> tuple[list[int], list[int], list[bytes]]:
    """Prompt lengths, output lengths and outcomes of `count` requests."""
    if count > MOST_REQUESTS:
        raise InputError(f"a run of {count} requests is too long; at most {MOST_REQUESTS} can be")
    lengths_seed, acceptance_seed = seed.spawn(2)
    prompts, outputs = lengths.draw(count, np.random.default_rng(lengths_seed))
    if acceptance is None:
        return prompts, outputs, [b""] * count
    return prompts, outputs, _outcomes(acceptance, outputs, acceptance_seed)


def _outcomes(
    acceptance: Outcomes, outputs: list[int], seed: np.random.SeedSequence
) -> list[bytes]:
    """Outcomes of as many rounds as each request can have."""
    total = sum(outputs)
    if total > MOST_OUTPUT_TOKENS:
        raise InputError(
            f"{len(outputs)} requests with {total} output tokens in all are too many to draw; at "
            f"most {MOST_OUTPUT_TOKENS} tokens can be: take fewer --requests, or shorter ones"
        )
    return acceptance.draw(outputs, np.random.default_rng(seed))


def trace(
    path: Path,
    acceptance: Outcomes,
    seed: np.random.SeedSequence,
    limit: int | None = None,
    time_scale: float = 1.0,
    max_context_tokens: int | None = None,
    columns: Mapping[str, str] | None = None,
) -> Workload:
    """Replay a trace file (see `traces`); the first tenth is warm-up.

    Args:
        limit: requests to take, the earliest.
        time_scale: arrival times are divided by this; 2 replays twice as fast.
        max_context_tokens: prompts are cut so that prompt and output fit.
        columns: of a format that is not known, as `traces.read_trace` takes them.

    Raises:
        InputError: the file is no trace, or holds what no request can have.
    """
    check_bounds("time_scale", time_scale)
    requests = read_trace(path, columns, limit)
    prompts, outputs = requests.prompt_tokens, requests.output_tokens
    if max_context_tokens is not None:
        prompts, outputs = cut(prompts, outputs, max_context_tokens)
    return Workload(
        "trace",
        prompts,
        outputs,
        _outcomes(acceptance, outputs, seed),
        arrival_s=[moment / time_scale for moment in requests.arrival_s],
        warmup=len(outputs) // 10,
        notes=requests.notes,
    )
