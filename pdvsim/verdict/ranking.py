"""Who is best at each load, by what, and whether that is certain: decided here and nowhere else.

What ranks depends on what was asked. Under an SLO it is goodput. In a closed loop it is the
throughput. In an open loop throughput is the offered rate, whoever serves it, so latency ranks.

Two neighbours are told apart by their paired runs (run i of both has the same workload and, in a
simulation, the same machine): the interval of the ratio of their means (Fieller) leaves 1 out.
They are alike where it stays within 1 % of 1, as in a crossover. Where there are no single runs to
pair, by whether their two intervals overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pdvsim.crossover.search import INDIFFERENCE
from pdvsim.documents.cells import Rank, Standing, Tie
from pdvsim.output import number
from pdvsim.protocols import protocols
from pdvsim.quantities import QUANTITIES
from pdvsim.statistics import Interval

# A tie that is known from elsewhere; None: find out.
Known = Callable[[str, str], bool | None]


@dataclass(frozen=True, slots=True)
class Contender:
    """One cell at one load.

    Attributes:
        runs: the metric of each run, None where a run could not say; empty if not known.
    """

    label: str
    value: Interval
    runs: Sequence[float | None] = ()


def ranking_metric(protocol: str, slo: bool) -> str:
    """What says who is best.

    Args:
        protocol: empty where cells have several.
    """
    if slo:
        return "request_goodput"
    known = protocols().get(protocol)
    return "output_throughput" if known is None else known.ranked_by


def rank(
    contenders: Sequence[Contender],
    metric: str,
    concurrency: int,
    at: str,
    verb: str = "delivers",
    tied: Known = lambda first, second: None,
) -> Rank:
    """The order of `contenders` at one load.

    Args:
        at: the load in words, such as `C = 8`.
        verb: delivers, delivered.
    """
    quantity = QUANTITIES[metric]
    assert quantity.better is not None
    sign = -1.0 if quantity.better == "higher" else 1.0
    ranked = sorted(contenders, key=lambda one: sign * one.value.value)
    ties: list[Tie] = []
    standings: list[Standing] = []
    for first, second in pairwise(ranked):
        known, ratio = tied(first.label, second.label), None
        standing: Standing = "open" if known else "certain"
        if known is None:
            standing, ratio = _standing(first, second)
        if standing in ("alike", "open"):
            alike = standing == "alike"
            ties.append(Tie(first=first.label, second=second.label, ratio=ratio, alike=alike))
        standings.append(standing)
    first_place = standings[0] if standings else "unknown"
    return Rank(
        concurrency=concurrency,
        metric=metric,
        better=quantity.better,
        order=tuple(one.label for one in ranked),
        first_place=first_place,
        ties=tuple(ties),
        sentence=_sentence(ranked, metric, at, verb, first_place),
    )


def _standing(first: Contender, second: Contender) -> tuple[Standing, Interval | None]:
    """Whether the first is certainly better than the second, and the ratio where it is known."""
    from pdvsim.crossover.curve import Pairs

    pairs = [
        (a, b)
        for a, b in zip(first.runs, second.runs, strict=False)
        if a is not None and b is not None
    ]
    if len(first.runs) == len(second.runs) and len(pairs) > 1 and min(map(min, pairs)) > 0.0:
        ours, theirs = np.array(pairs).T
        if np.array_equal(ours, theirs):
            return "alike", Interval(1.0, 1.0, 1.0)
        ratio = Pairs(ours, theirs).ratio()
        if ratio.low is None or ratio.high is None:
            return "open", ratio
        if ratio.low > 1.0 - INDIFFERENCE and ratio.high < 1.0 + INDIFFERENCE:
            return "alike", ratio
        return "open" if ratio.low <= 1.0 <= ratio.high else "certain", ratio
    a, b = first.value, second.value
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return "unknown", None
    return "certain" if a.low > b.high or b.low > a.high else "open", None


def _sentence(
    ranked: Sequence[Contender],
    metric: str,
    at: str,
    verb: str,
    first_place: Standing,
) -> str:
    if not ranked:
        return f"At {at} no cell has a value to be ranked by."
    best = ranked[0]
    if metric == "request_goodput" and best.value.value == 0.0:
        return f"At {at} no request of any architecture keeps the SLO."
    does, more = _words(metric, verb)
    told = f"At {at}, {best.label} {does} {_amount(best.value, metric)}"
    if len(ranked) == 1:
        return f"{told}."
    second = ranked[1]
    if first_place == "alike":
        return f"{told}; {second.label} is alike: less than {100 * INDIFFERENCE:g} % apart."
    if first_place == "open":
        return f"{told}; {second.label} may be as good: too close to call."
    if not second.value.value:
        return f"{told}, {second.label} none."
    lead = number(abs(100.0 * (best.value.value / second.value.value - 1.0)))
    doubt = "from single runs, which cannot say how certain that is"
    if first_place == "certain":
        doubt = "beyond chance"
    return f"{told}, {lead} % {more} than {second.label}, {doubt}."


def _words(metric: str, verb: str) -> tuple[str, str]:
    if QUANTITIES[metric].better == "lower":
        past = verb.endswith("ed")
        return ("answered" if past else "answers") + " in", "less"
    return verb, "more"


def _amount(found: Interval, metric: str) -> str:
    quantity = QUANTITIES[metric]
    scale = quantity.scale
    ends = ""
    if found.low is not None and found.high is not None:
        ends = f" ({number(scale * found.low)} to {number(scale * found.high)})"
    unit = quantity.shown or quantity.heading
    of = f", {quantity.heading}" if quantity.shown else ""
    return f"{number(scale * found.value)}{ends} {unit}{of}"
