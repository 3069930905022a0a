"""Every metric, once: its unit, what a table calls it, and which way is better.

Metrics are stored in the unit that their name says (`_ms`, `_s`, shares of 1) and shown in
another where people expect that (`scale` turns the one into the other).
"""

from __future__ import annotations

from collections.abc import Collection

from pdvsim.protocols import protocols
from pdvsim.quantity import Better as Better
from pdvsim.quantity import Quantity as Quantity

STATISTICS = ("mean", "median", "std", "p90", "p95", "p99")
QUANTILES = {"median": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
LATENCIES = ("ttft", "tpot", "itl", "e2el")
_TITLES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2el": "E2E"}


def _latency(statistic: str, name: str) -> Quantity:
    # What is counted in tokens is short enough for milliseconds.
    shown, scale = ("ms", 1.0) if name in ("tpot", "itl") else ("s", 1e-3)
    heading = f"{_TITLES[name]} {'p50' if statistic == 'median' else statistic}"
    return Quantity(f"{statistic}_{name}_ms", "ms", heading, shown, scale, "lower")


_ALL = (
    Quantity("request_throughput", "requests/s", "requests/s", "", better="higher"),
    Quantity("output_throughput", "tokens/s", "output tokens/s", "", better="higher"),
    Quantity("total_token_throughput", "tokens/s", "all tokens/s", "", better="higher"),
    Quantity("request_goodput", "requests/s", "goodput requests/s", "", better="higher"),
    Quantity("slo_attainment", "", "within the SLO", "%", 100.0, "higher"),
    *(_latency(statistic, name) for name in LATENCIES for statistic in STATISTICS),
    Quantity("spec_decode_acceptance_rate", "", "acceptance rate", "%", 100.0),
    Quantity("spec_decode_acceptance_length", "tokens", "acceptance length", ""),
    Quantity("mean_batch", "requests", "mean batch", "", bare=True),
    Quantity("gpu_busy", "", "GPU busy", "%", 100.0),
    Quantity("completed", "requests", "completed requests", ""),
    Quantity("in_flight_at_end", "requests", "in flight at the end", ""),
    Quantity("censored", "requests", "censored requests", ""),
    Quantity("duration_s", "s", "measured", "s"),
)
_OF_PROTOCOLS = tuple(figure for protocol in protocols().values() for figure in protocol.figures)

QUANTITIES = {quantity.name: quantity for quantity in (*_ALL, *_OF_PROTOCOLS)}
METRICS = tuple(quantity.name for quantity in _ALL)
# Of protocols, and better one way.
PROTOCOL_METRICS = tuple(figure.name for figure in _OF_PROTOCOLS if figure.better is not None)
OF_SLO = ("request_goodput", "slo_attainment")
# What a run of an overloaded system does not tell, as it goes by the length of the run; and why.
WITHOUT_END = (
    *(f"{statistic}_{name}_ms" for name in ("ttft", "e2el") for statistic in STATISTICS),
    *OF_SLO,
)
OVERLOADED = "the queue grows for as long as requests come"
# That documents of earlier versions do not have.
LATER = frozenset(
    {
        "slo_attainment",
        "mean_batch",
        *(f"{p}_{name}_ms" for p in ("p90", "p95") for name in LATENCIES),
    }
)
LATENCY_METRICS = tuple(f"{statistic}_{name}_ms" for name in LATENCIES for statistic in STATISTICS)


def unit_of(metric: str) -> str:
    """The unit that a metric is stored in; empty for a share, or for a metric that is not ours."""
    return QUANTITIES[metric].unit if metric in QUANTITIES else ""


def told_by(known: Collection[str]) -> tuple[str, ...]:
    """All metrics that a cell has that has these: protocols bring theirs all together."""
    own = [one.figure_names for one in protocols().values() if set(one.figure_names) & set(known)]
    return (*METRICS, *(name for names in own for name in names))


def columns(known: Collection[str]) -> list[str]:
    """Columns of a table of cells that know these metrics, in their order."""
    shadowed = {
        name
        for protocol in protocols().values()
        if set(protocol.figure_names) & set(known)
        for name in protocol.in_place_of
    }
    return [name for name in COLUMNS if name in known and name not in shadowed]


COLUMNS = (
    *("output_throughput", "request_throughput"),
    *PROTOCOL_METRICS,
    *OF_SLO,
    *("median_ttft_ms", "median_tpot_ms", "median_e2el_ms", "p99_e2el_ms"),
    *("mean_batch", "gpu_busy"),
)
# What predictions are held against measurements by.
COMPARED = (
    *("output_throughput", "median_ttft_ms", "median_tpot_ms", "median_e2el_ms"),
    *("p99_ttft_ms", "p99_tpot_ms", "p99_e2el_ms", *OF_SLO),
)
# Those that every validation has.
ALWAYS_COMPARED = COMPARED[:4]
# What two configurations can be compared by: all that is better one way.
COMPARABLE = tuple(name for name, quantity in QUANTITIES.items() if quantity.better is not None)

# Causes of a request's latency, which sum to it (`pdvsim.explain.causes` says what each is).
CAUSES = (
    "queueing",
    "admission hold",
    "KV cache full",
    "lock wait",
    "GIL wait",
    "launch",
    "device",
    "device slow-down",
    "wake-up and polling",
    "batch mates",
)
# Seconds that are contained in the causes: drafting and verifying what was rejected, and waiting
# for the turn's end after the last own stage.
MEMOS = ("wasted drafts", "end of turn")
