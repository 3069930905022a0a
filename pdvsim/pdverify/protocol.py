"""The protocol of the published benchmark.

C is no concurrency: it sets the batch cap and the rate of arrivals, which are the same in every
run. They stop at 30 s, and the run is cut at 60 s.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from pdvsim.protocols import LENGTHS, Protocol
from pdvsim.quantity import Quantity

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pdvsim.acceptance import Outcomes
    from pdvsim.cell import Cell
    from pdvsim.records import RunRecord
    from pdvsim.workload import Lengths, Workload

SEED = 42
ARRIVALS_S = 30.0
DEADLINE_S = 60.0
RATE_PER_C = 0.05  # requests/s
DRAFT_TOKENS = 4
PROMPT_TOKENS = 10  # "about 10": the published timings do not depend on it


def arrivals_s(concurrency: int) -> NDArray[np.float64]:
    """Arrival times of the published benchmark, bit for bit: numpy's legacy generator, exponential
    gaps, kept while they are within `ARRIVALS_S`."""
    import numpy as np

    from pdvsim.cell import check_bounds

    check_bounds("concurrency", concurrency)
    rng = np.random.RandomState(SEED)
    gaps = rng.exponential(1.0 / (RATE_PER_C * concurrency), arrived(concurrency) + 1)
    arrivals = np.cumsum(gaps)
    within: NDArray[np.float64] = arrivals[arrivals <= ARRIVALS_S]
    return within


def arrived(concurrency: int) -> int:
    """How many requests arrive: gaps scale with 1 / C, so the same sums serve every C."""
    return int(_sums().searchsorted(ARRIVALS_S * RATE_PER_C * concurrency, side="right"))


@cache
def _sums() -> NDArray[np.float64]:
    """Arrivals of the benchmark's generator at 1 request/s, beyond those of the largest C."""
    import numpy as np

    from pdvsim.cell import FIELDS

    most = ARRIVALS_S * RATE_PER_C * float(FIELDS["concurrency"].metadata["high"])
    sums: NDArray[np.float64] = np.cumsum(
        np.random.RandomState(SEED).standard_exponential(int(1.05 * most) + 1000)
    )
    assert sums[-1] > most
    return sums


def pdverify(
    concurrency: int,
    lengths: Lengths,
    acceptance: Outcomes,
    seed: np.random.SeedSequence,
) -> Workload:
    """A run under the protocol, with lengths and outcomes drawn for the requests that arrive."""
    from pdvsim.workload import Workload, draw

    arrivals = arrivals_s(concurrency).tolist()
    prompts, outputs, outcomes = draw(len(arrivals), lengths, acceptance, seed)
    return Workload(
        PROTOCOL.name, prompts, outputs, outcomes, arrival_s=arrivals, deadline_s=DEADLINE_S
    )


def _plan(cell: Cell, seed: np.random.SeedSequence) -> Workload:
    assert cell.injected is not None
    return pdverify(cell.concurrency, cell.lengths, cell.injected, seed)


def figures(record: RunRecord, survivors_only: bool = True) -> dict[str, float | None]:
    """The benchmark's own figures: tokens of completed requests over elapsed seconds, and the mean
    latency of completed requests. Unfinished requests count as nothing.

    Args:
        survivors_only: False counts the tokens of unfinished requests, too.
    """
    import numpy as np

    done = [request for request in record.requests if request.completed_s is not None]
    counted = done if survivors_only else record.requests
    latency_s = [(request.completed_s or 0.0) - request.arrival_s for request in done]
    return {
        "pdverify_tps": sum(request.produced_tokens for request in counted) / record.end_s,
        "pdverify_latency_ms": 1e3 * float(np.mean(latency_s)) if done else None,
        "pdverify_completed": float(len(done)),
    }


PROTOCOL = Protocol(
    "pdverify",
    "the published benchmark's",
    _plan,
    takes=LENGTHS,
    figures=(
        Quantity("pdverify_tps", "tokens/s", "pdverify tokens/s", "", better="higher"),
        Quantity("pdverify_latency_ms", "ms", "pdverify latency", "s", 1e-3, "lower"),
        Quantity("pdverify_completed", "requests", "pdverify completed", ""),
    ),
    measure=figures,
    in_place_of=frozenset({"output_throughput", "request_throughput"}),
    ranked_by="pdverify_tps",
    published=True,
)
