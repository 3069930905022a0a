"""Every metric, once: its unit, what a table calls it, and which way is better.

Metrics are stored in the unit that their name says (`_ms`, `_s`, shares of 1) and shown in
another where people expect that (`scale` turns the one into the other).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower"]

STATISTICS = ("mean", "median", "std", "p99")
LATENCIES = ("ttft", "tpot", "itl", "e2el")
_TITLES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2el": "E2E"}
_WORDS = {"mean": "mean", "median": "p50", "std": "std", "p99": "p99"}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A metric by its name in documents.

    Attributes:
        unit: of the stored value; empty for a number or a share of 1.
        heading: what tables and charts call it.
        shown: the unit there; a stored value times `scale` is in it.
        better: None where neither more nor less is better.
    """

    name: str
    unit: str
    heading: str
    shown: str
    scale: float = 1.0
    better: Better | None = None

    @property
    def title(self) -> str:
        """`TTFT p50, s`."""
        return f"{self.heading}, {self.shown}" if self.shown else self.heading


def _latency(statistic: str, name: str) -> Quantity:
    # What is counted in tokens is short enough for milliseconds.
    shown, scale = ("ms", 1.0) if name in ("tpot", "itl") else ("s", 1e-3)
    heading = f"{_TITLES[name]} {_WORDS[statistic]}"
    return Quantity(f"{statistic}_{name}_ms", "ms", heading, shown, scale, "lower")


_ALL = (
    Quantity("request_throughput", "requests/s", "requests/s", "", better="higher"),
    Quantity("output_throughput", "tokens/s", "output tokens/s", "", better="higher"),
    Quantity("total_token_throughput", "tokens/s", "all tokens/s", "", better="higher"),
    Quantity("request_goodput", "requests/s", "goodput requests/s", "", better="higher"),
    *(_latency(statistic, name) for name in LATENCIES for statistic in STATISTICS),
    Quantity("spec_decode_acceptance_rate", "", "acceptance rate", "%", 100.0),
    Quantity("spec_decode_acceptance_length", "tokens", "acceptance length", ""),
    Quantity("gpu_busy", "", "GPU busy", "%", 100.0),
    Quantity("completed", "requests", "completed requests", ""),
    Quantity("in_flight_at_end", "requests", "in flight at the end", ""),
    Quantity("censored", "requests", "censored requests", ""),
    Quantity("duration_s", "s", "measured", "s"),
)
_PDVERIFY = (
    Quantity("pdverify_tps", "tokens/s", "pdverify tokens/s", "", better="higher"),
    Quantity("pdverify_latency_ms", "ms", "pdverify latency", "s", 1e-3, "lower"),
    Quantity("pdverify_completed", "requests", "pdverify completed", ""),
)

QUANTITIES = {quantity.name: quantity for quantity in (*_ALL, *_PDVERIFY)}
METRICS = tuple(quantity.name for quantity in _ALL)
PDVERIFY_METRICS = tuple(quantity.name for quantity in _PDVERIFY)
LATENCY_METRICS = tuple(f"{statistic}_{name}_ms" for name in LATENCIES for statistic in STATISTICS)


def unit_of(metric: str) -> str:
    """The unit that a metric is stored in; empty for a share, or for a metric that is not ours."""
    return QUANTITIES[metric].unit if metric in QUANTITIES else ""


# Columns of a table of cells, in their order; those that no cell knows are left out.
COLUMNS = (
    *("output_throughput", "request_throughput", "pdverify_tps", "pdverify_latency_ms"),
    *("request_goodput", "median_ttft_ms", "median_tpot_ms", "median_e2el_ms", "p99_e2el_ms"),
    "gpu_busy",
)
# What predictions are held against measurements by.
COMPARED = ("output_throughput", "median_ttft_ms", "median_tpot_ms", "median_e2el_ms")
# What two configurations can be compared by: all that is better one way.
COMPARABLE = tuple(
    name
    for name, quantity in QUANTITIES.items()
    if quantity.better is not None and name != "request_goodput"
)
