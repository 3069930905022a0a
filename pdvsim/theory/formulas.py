"""Closed forms that stand beside the simulation: what each leaves out is what it is off by.

All times in seconds, rates per second, memory in bytes. Every function checks its domain and
raises `InputError` with the value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from pdvsim.errors import InputError


def _check(ok: bool, message: str) -> None:
    if not ok:
        raise InputError(message)


def _check_acceptance(acceptance: float) -> None:
    _check(0.0 <= acceptance <= 1.0, f"acceptance is {acceptance}; it must be between 0 and 1")


def _check_draft_tokens(draft_tokens: int) -> None:
    _check(draft_tokens >= 0, f"draft tokens are {draft_tokens}; at least 0 are needed")


# Speculative decoding


def expected_tokens(acceptance: float, draft_tokens: int) -> float:
    """Tokens per round, E = (1 - a^(g+1)) / (1 - a), for a constant acceptance a per position.

    Counts the verifier's own token. Leviathan, Kalman, Matias, "Fast Inference from
    Transformers via Speculative Decoding", ICML 2023, eq. 1. Leaves out: acceptance that
    depends on position or prompt.
    """
    _check_acceptance(acceptance)
    _check_draft_tokens(draft_tokens)
    if acceptance == 1.0:
        return draft_tokens + 1.0
    return (1.0 - acceptance ** (draft_tokens + 1)) / (1.0 - acceptance)


def leviathan_speedup(acceptance: float, draft_tokens: int, cost_ratio: float) -> float:
    """Speed-up over plain decoding, E / (g c + 1), with c = draft pass / verifier pass.

    Leviathan et al. 2023, theorem 3.8. Leaves out: that verifying g + 1 tokens costs more than
    decoding one, so it holds for small batches only.
    """
    _check(cost_ratio >= 0, f"cost ratio is {cost_ratio}; it must be at least 0")
    return expected_tokens(acceptance, draft_tokens) / (draft_tokens * cost_ratio + 1.0)


def magicdec_token_time_s(
    acceptance: float, draft_tokens: int, draft_s: float, verify_s: float
) -> float:
    """Time per output token of a batch, (g T_draft + T_verify(g)) / E.

    Chen et al., "MagicDec", 2024 (arXiv 2408.11049); `draft_s` and `verify_s` are
    passes at the batch and context in question, `verify_s` over g + 1 tokens. Leaves out:
    queueing, hosts, and unequal progress in a batch.
    """
    _check(
        draft_s >= 0 and verify_s > 0,
        f"times are {draft_s} and {verify_s} s; they must be at least 0 and above 0",
    )
    return (draft_tokens * draft_s + verify_s) / expected_tokens(acceptance, draft_tokens)


@dataclass(frozen=True, slots=True)
class BatchTime:
    """Time of one batched pass, T = a N_context + b N_batched + c (TurboSpec's linear model).

    Attributes:
        per_context_token_s: a, per cached token that is read.
        per_batched_token_s: b, per token that is passed through the model.
        fixed_s: c, per pass.
    """

    per_context_token_s: float
    per_batched_token_s: float
    fixed_s: float

    def __call__(self, context_tokens: float, batched_tokens: float) -> float:
        return (
            self.per_context_token_s * context_tokens
            + self.per_batched_token_s * batched_tokens
            + self.fixed_s
        )


def turbospec_goodput(
    acceptance: float,
    draft_tokens: int,
    batch: int,
    context_tokens: float,
    draft: BatchTime,
    verify: BatchTime,
) -> float:
    """Accepted tokens per second of a batch: sum of E over the batch / T_batch.

    T_batch is g draft passes of one token a request and one verifier pass of g + 1, each
    a N_context + b N_batched + c. Liu et al., "Optimizing Speculative Decoding for Serving
    Large Language Models Using Goodput" (SmartSpec, later TurboSpec), arXiv 2406.14066.
    Leaves out: queueing and prefill.

    Args:
        context_tokens: mean cached tokens of one request.
    """
    _check(batch >= 1, f"batch is {batch}; it must be at least 1")
    cached = batch * context_tokens
    seconds = draft_tokens * draft(cached, batch) + verify(cached, batch * (draft_tokens + 1))
    _check(seconds > 0, f"a round takes {seconds} s; it must be above 0")
    return batch * expected_tokens(acceptance, draft_tokens) / seconds


def kong_latency_s(light_load_s: float, requests_per_s: float, seconds_per_request: float) -> float:
    """Mean latency L = C1 / (1 - RPS C2) of a speculating server in an open loop.

    Kong et al., "An Interpretable Latency Model for Speculative Decoding in LLM Serving", arXiv
    2605.15051: L = C1 + B C2, with C1 independent of load, C2 the marginal seconds per request
    in flight, and B = RPS L (Little); inf from the rate 1 / C2 on. Leaves out: the variance of
    service and arrivals.
    """
    _check(
        light_load_s > 0 and seconds_per_request >= 0 and requests_per_s >= 0,
        f"C1 = {light_load_s}, C2 = {seconds_per_request}, RPS = {requests_per_s}; C1 must be "
        "above 0, the others at least 0",
    )
    busy = requests_per_s * seconds_per_request
    return light_load_s / (1.0 - busy) if busy < 1.0 else inf


# Bounds and queues


@dataclass(frozen=True, slots=True)
class LaneWork:
    """What one lane does in a round, alone: seconds, FLOPs and bytes."""

    seconds: float
    flops: float
    bytes: float


def overlap_bound_s(lanes: Sequence[LaneWork], flops_per_s: float, bytes_per_s: float) -> float:
    """Least time of a round whose lanes overlap on one GPU.

    max(longest lane, sum of FLOPs / peak, sum of bytes / bandwidth): lanes at best hide each
    other, but share the arithmetic units and the memory (the roofline of Williams et al., CACM
    2009, over concurrent kernels). Leaves out: contention for SMs, caches and launches.
    """
    _check(bool(lanes), "at least one lane is needed")
    _check(
        flops_per_s > 0 and bytes_per_s > 0,
        f"rates are {flops_per_s} and {bytes_per_s}; they must be above 0",
    )
    return max(
        max(lane.seconds for lane in lanes),
        sum(lane.flops for lane in lanes) / flops_per_s,
        sum(lane.bytes for lane in lanes) / bytes_per_s,
    )


def mg1_response_s(arrivals_per_s: float, service_s: float, service_cv2: float) -> float:
    """Mean response time of M/G/1, first come first served; inf at or beyond capacity.

    Pollaczek-Khinchine: W = S + rho S (1 + cv2) / (2 (1 - rho)), rho = lambda S. Kleinrock,
    "Queueing Systems" vol. 1, 1975, chapter 5. Leaves out: that requests share the server.

    Args:
        service_cv2: squared coefficient of variation of the service time (0: constant, 1:
            exponential).
    """
    _check(
        arrivals_per_s >= 0 and service_s > 0 and service_cv2 >= 0,
        f"rate = {arrivals_per_s}, service = {service_s} s, cv2 = {service_cv2}; service must "
        "be above 0, the others at least 0",
    )
    busy = arrivals_per_s * service_s
    if busy >= 1.0:
        return inf
    return service_s + busy * service_s * (1.0 + service_cv2) / (2.0 * (1.0 - busy))


@dataclass(frozen=True, slots=True)
class ClosedNetwork:
    """What MVA says of a closed network at one population.

    Attributes:
        throughput: requests per second.
        response_s: mean time from leaving the think state to coming back to it.
        queues: mean number at each station.
    """

    throughput: float
    response_s: float
    queues: tuple[float, ...]


def closed_mva(demands_s: Sequence[float], population: int, think_s: float = 0.0) -> ClosedNetwork:
    """Exact mean value analysis of a closed, product-form network of single servers.

    Reiser and Lavenberg, "Mean-Value Analysis of Closed Multichain Queuing Networks", JACM
    1980: R_k(n) = D_k (1 + Q_k(n-1)), X(n) = n / (Z + sum R_k). Leaves out: anything that is no
    product form: batching, locks held across stations, constant service at a FIFO station.

    Args:
        demands_s: seconds of service that one request asks of each station (lane or GPU).
    """
    _check(population >= 1, f"population is {population}; it must be at least 1")
    _check(
        bool(demands_s) and min(demands_s) >= 0 and sum(demands_s) + think_s > 0 <= think_s,
        f"demands are {list(demands_s)} s, think time {think_s} s; at least one demand, none "
        "below 0, and not all 0 are needed",
    )
    queues = [0.0] * len(demands_s)
    throughput = response = 0.0
    for n in range(1, population + 1):
        waits = [demand * (1.0 + queue) for demand, queue in zip(demands_s, queues, strict=True)]
        response = sum(waits)
        throughput = n / (think_s + response)
        queues = [throughput * wait for wait in waits]
    return ClosedNetwork(throughput, response, tuple(queues))
