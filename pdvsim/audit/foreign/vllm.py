"""vLLM `bench serve` (fields as of 0.9 to 0.25) and its relative, SGLang `bench_serving`.

`*_ms` are milliseconds; `ttfts`, `itls`, `latencies` seconds; `spec_decode_acceptance_rate` is in
percent. TPOT leaves the first token out. Latency starts when a request is sent, so with
`max_concurrency` the client's own queue is not in it. SGLang writes `e2e_latency` for `e2el`, its
`concurrency` is sum of latencies / duration, and the word `trace` for the rate of a replay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite

from pydantic import AliasChoices, Field

from pdvsim.audit.foreign.items import Foreign, Item, distributions, seconds
from pdvsim.audit.table import LATENCY, Cell, Distribution, Served
from pdvsim.errors import InputError

QUANTITIES = {
    "ttft": "TTFT",
    "tpot": "TPOT",
    "itl": "ITL",
    "e2el": LATENCY,
    "e2e_latency": LATENCY,
}


class ServeResult(Foreign):
    """What both write; the lists need `--save-detailed` (SGLang: `--output-details`)."""

    label: str | None = None
    backend: str | None = None
    run_number: int | None = None
    model_id: str | None = None
    num_prompts: int | None = None
    request_rate: float | str | None = None
    max_concurrency: int | None = None
    concurrency: float | None = None
    duration: float
    completed: int
    failed: int | None = None
    total_input_tokens: int | None = None
    total_output_tokens: int
    request_throughput: float
    request_goodput: float | None = Field(  # with a colon in its name up to vLLM 0.9
        default=None, validation_alias=AliasChoices("request_goodput", "request_goodput:")
    )
    output_throughput: float
    mean_ttft_ms: float | None = None
    mean_tpot_ms: float | None = None
    mean_itl_ms: float | None = None
    spec_decode_acceptance_rate: float | None = None
    spec_decode_acceptance_length: float | None = None
    spec_decode_num_drafts: int | None = None
    spec_decode_draft_tokens: int | None = None
    accept_length: float | None = None
    output_lens: list[int] | None = None
    ttfts: list[float] | None = None
    itls: list[list[float]] | None = None
    latencies: list[float] | None = None
    errors: list[str | None] | None = None

    @property
    def rate_per_s(self) -> float | None:
        """The offered rate; None for "inf" (all at once) and "trace" (a replay)."""
        try:
            rate = float(self.request_rate or "inf")
        except ValueError:
            return None
        return rate if isfinite(rate) else None

    @property
    def drafted_per_round(self) -> float | None:
        """Mean drafts of a round: an n-gram drafter does not always find as many as it may."""
        if not self.spec_decode_num_drafts or self.spec_decode_draft_tokens is None:
            return None
        return self.spec_decode_draft_tokens / self.spec_decode_num_drafts

    def requests(self) -> Iterator[Served]:
        """The requests one by one, if the file has them; failed ones without a latency."""
        if self.ttfts is None or self.output_lens is None:
            return
        for i, (ttft, tokens) in enumerate(zip(self.ttfts, self.output_lens, strict=True)):
            failed = bool(self.errors and self.errors[i]) or not tokens
            latency = None
            if not failed and self.latencies is not None:
                latency = self.latencies[i]
            elif not failed and self.itls is not None:
                latency = ttft + sum(self.itls[i])
            yield Served(str(i), latency, timings=(ttft,), output_tokens=tokens)


def cell(item: Item, name: str) -> Cell:
    """One run; `name` stands for a system without a label.

    Raises:
        InputError: it is no such result, or its lists differ in length.
    """
    run = item.parse(ServeResult)
    _check_lists(item, run)
    latency = next(
        (d for d in distributions(item.content, QUANTITIES) if d.of == LATENCY),
        Distribution(LATENCY),
    )
    rate, tokens = run.rate_per_s, run.total_output_tokens + (run.total_input_tokens or 0)
    percent, lengths = run.spec_decode_acceptance_rate, run.spec_decode_acceptance_length
    return Cell(
        system=run.label or run.backend or name,
        load=run.max_concurrency if run.max_concurrency is not None else rate,
        model_id=run.model_id,
        run=None if run.run_number is None else str(run.run_number),
        concurrency=run.max_concurrency,
        client_cap=True,
        in_flight_stated=run.concurrency,
        rate_per_s=rate,
        duration_s=run.duration,
        offered=run.num_prompts,
        completed=run.completed,
        failed=run.failed,
        output_tokens=run.total_output_tokens,
        output_throughput=run.output_throughput,
        request_throughput=run.request_throughput,
        request_goodput=run.request_goodput,
        latency_s=latency.mean,
        latency_std_s=latency.std,
        latency_p50_s=latency.at(50),
        latency_p99_s=latency.at(99),
        ttft_s=seconds(run.mean_ttft_ms),
        tpot_s=seconds(run.mean_tpot_ms),
        gap_s=seconds(run.mean_itl_ms),
        acceptance_rate=None if percent is None else percent / 100,
        accepted_length=lengths if lengths is not None else run.accept_length,
        draft_tokens=run.drafted_per_round,
        tokens_per_request=(
            tokens / run.completed if run.completed and run.total_input_tokens else None
        ),
        distributions=distributions(item.content, QUANTITIES),
        requests=tuple(run.requests()),
    )


def _check_lists(item: Item, run: ServeResult) -> None:
    """Raises InputError unless the lists of requests are equally long."""
    lists: dict[str, Sequence[object] | None] = {
        "output_lens": run.output_lens,
        "ttfts": run.ttfts,
        "itls": run.itls,
        "latencies": run.latencies,
        "errors": run.errors,
    }
    known = {name: len(values) for name, values in lists.items() if values is not None}
    if len(set(known.values())) > 1:
        lengths = ", ".join(f"{name} has {count}" for name, count in known.items())
        raise InputError(
            f"{item.path}: lists of requests differ in length ({lengths} entries); each needs one "
            "entry a request"
        )


def read_vllm(items: Sequence[Item]) -> list[Cell]:
    """Runs of `vllm bench serve`."""
    return [cell(item, "vllm") for item in items]


def read_sglang(items: Sequence[Item]) -> list[Cell]:
    """Runs of SGLang's `bench_serving`."""
    return [cell(item, "sglang") for item in items]
