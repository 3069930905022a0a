"""Who is best at each load, by what, and whether that is certain: decided here and nowhere else.

What ranks depends on what was asked. Under an SLO it is goodput. In a closed loop it is the
throughput. In an open loop throughput is the offered rate, whoever serves it, so latency ranks.

Two neighbours are told apart by their paired runs (run i of both has the same workload and, in a
simulation, the same machine). Simulated runs are of several plausible machines, of which a user
has one: their order is certain where it holds on at least 97.5 % of machines. Measured runs are
of one machine: it is certain where the interval of the ratio of the means (Fieller) leaves 1 out.
Two are alike where the ratio's interval stays within 1 % of 1, as in a crossover. Where there are
no single runs to pair, by whether their two intervals overlap.
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
        machines: whether each run is of another plausible machine; else all are of one.
    """

    label: str
    value: Interval
    runs: Sequence[float | None] = ()
    machines: bool = False


@dataclass(frozen=True, slots=True)
class _Told:
    """What is known of two neighbours.

    Attributes:
        ratio: the second's metric over the first's.
        share: of machines on which the first is better.
    """

    standing: Standing
    ratio: Interval | None = None
    share: float | None = None


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
    every: list[_Told] = []
    for first, second in pairwise(ranked):
        known = tied(first.label, second.label)
        found = _Told("open" if known else "certain")
        if known is None:
            found = _standing(first, second, sign)
        if found.standing in ("alike", "open"):
            ties.append(
                Tie(
                    first=first.label,
                    second=second.label,
                    ratio=found.ratio,
                    alike=found.standing == "alike",
                    share=found.share,
                )
            )
        every.append(found)
    best = every[0] if every else _Told("unknown")
    return Rank(
        concurrency=concurrency,
        metric=metric,
        better=quantity.better,
        order=tuple(one.label for one in ranked),
        first_place=best.standing,
        ties=tuple(ties),
        sentence=_sentence(ranked, metric, at, verb, best),
    )


def _standing(first: Contender, second: Contender, sign: float) -> _Told:
    """Whether the first is certainly better than the second.

    Args:
        sign: 1 where less is better, else -1.
    """
    pairs = [
        (a, b)
        for a, b in zip(first.runs, second.runs, strict=False)
        if a is not None and b is not None
    ]
    if len(first.runs) == len(second.runs) and len(pairs) > 1 and min(map(min, pairs)) > 0.0:
        ours, theirs = np.array(pairs).T
        if np.array_equal(ours, theirs):
            return _Told("alike", Interval(1.0, 1.0, 1.0))
        from pdvsim.crossover.curve import Pairs

        paired = Pairs(ours, theirs)
        if not (first.machines and second.machines):
            return _decided(paired.ratio())
        greater = paired.share()
        assert greater is not None
        return _decided(paired.machines(), greater if sign > 0.0 else 1.0 - greater)
    a, b = first.value, second.value
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return _Told("unknown")
    return _Told("certain" if a.low > b.high or b.low > a.high else "open")


def _decided(ratio: Interval, share: float | None = None) -> _Told:
    if ratio.low is None or ratio.high is None:
        return _Told("open", ratio, share)
    if ratio.low > 1.0 - INDIFFERENCE and ratio.high < 1.0 + INDIFFERENCE:
        return _Told("alike", ratio, share)
    return _Told("open" if ratio.low <= 1.0 <= ratio.high else "certain", ratio, share)


def _sentence(
    ranked: Sequence[Contender],
    metric: str,
    at: str,
    verb: str,
    told: _Told,
) -> str:
    if not ranked:
        return f"At {at} no cell has a value to be ranked by."
    best = ranked[0]
    if metric == "request_goodput" and best.value.value == 0.0:
        return f"At {at} no request of any architecture keeps the SLO."
    does, more = _words(metric, verb)
    said = f"At {at}, {best.label} {does} {_amount(best.value, metric)}"
    if len(ranked) == 1:
        return f"{said}."
    second = ranked[1]
    if told.standing == "alike":
        return f"{said}; {second.label} is alike: less than {100 * INDIFFERENCE:g} % apart."
    if told.standing == "open":
        where = "" if told.share is None else f" ({better_on(best.label, told.share)})"
        return f"{said}; {second.label} may be as good: too close to call{where}."
    if not second.value.value:
        return f"{said}, {second.label} none."
    lead = number(abs(100.0 * (best.value.value / second.value.value - 1.0)))
    doubt = "from single runs, which cannot say how certain that is"
    if told.standing == "certain":
        doubt = "beyond chance" if told.share is None else f"on {machines(told.share)}"
    return f"{said}, {lead} % {more} than {second.label}, {doubt}."


def better_on(label: str, share: float) -> str:
    """Half a sentence."""
    return f"{label} is better on {machines(share)}"


def machines(share: float) -> str:
    """A share of machines in words, as finely as a few dozen draws can tell."""
    if share > 0.99:
        return "more than 99 % of machines"
    return "less than 1 % of machines" if share < 0.01 else f"{100.0 * share:.0f} % of machines"


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
