"""What a page consists of, by the kind of its document."""

from __future__ import annotations

from reports import ablate, audit, charts, crossover, crossover_map, explain, tables
from reports.html import Section

COMPARED = Section(
    "Predicted against measured",
    "Left: each cell against the diagonal of equality. Right: the error of each cell. "
    "Lines are 95 % intervals of the prediction.",
    charts.compared,
)
CELL_SECTIONS = (
    COMPARED,
    Section("Errors", "Predicted / measured - 1; below, measured : predicted.", tables.errors),
    Section("At each load", "Who is best, and what is too close to call.", tables.ranks),
    Section(
        "Throughput",
        "Output tokens per second, with 95 % intervals for one run.",
        charts.throughput,
    ),
    Section(
        "Latency",
        "Filled: median. Hollow: 99th percentile. Over several loads: medians. Lines and bands are "
        "95 % intervals for one run.",
        charts.latency,
    ),
    Section(
        "Throughput against latency",
        "Up and to the left is better; the dashed line joins what nothing beats in both.",
        charts.pareto,
    ),
    Section(
        "Where the time of a stage goes",
        "Mean of one execution. Lock: waiting for the model's lock. Launch: host time alone. "
        "Gil: launch time added by other threads. Device: from the end of the launch to the end "
        "of the kernels. Wake: until the thread knows.",
        charts.stage_time,
    ),
    Section(
        "Timeline",
        "The first stage executions after the warm-up: what threads launch and streams run.",
        charts.timeline,
    ),
    Section(
        "Closed forms",
        "Formulas of the literature with the simulation's own inputs: how far off they are, and "
        "what they leave out.",
        tables.closed_forms,
    ),
    Section(
        "Acceptance",
        "Of the first run. By position: of the rounds that kept all drafts before it; and of all "
        "rounds that drafted. Accepted length: tokens of such a round, the bonus token included. "
        "Between requests: deviation of their rates, beside what chance alone would give.",
        tables.accepted,
    ),
    Section("Figures", "95 % intervals for one run below.", tables.figures),
    Section("To keep in mind", "", tables.notes),
)

REPRODUCED = (
    COMPARED._replace(title="Predicted against published"),
    Section("Gain", "Ratio of the two engines at each load, with 95 % intervals.", charts.gains),
)

# By kind of document.
SECTIONS: dict[str, tuple[Section, ...]] = {
    "predict": CELL_SECTIONS,
    "bench": CELL_SECTIONS,
    "validate": CELL_SECTIONS,
    "reproduce": REPRODUCED,
    "explain": explain.SECTIONS,
    "crossover": (*crossover.SECTIONS, *crossover_map.SECTIONS),
    "ablate": ablate.SECTIONS,
    "audit": audit.SECTIONS,
}
