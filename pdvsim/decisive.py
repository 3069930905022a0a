"""What decides who is best: a limit that was asked for, or a mechanism, without which another would
be.

Few runs answer that, on the machines and with the requests of the prediction's first runs: what a
change makes of a cell is the ratio of its runs with and without. Where the first two runs hardly
change, the others are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from pdvsim.ablate.mechanisms import acting, without
from pdvsim.ablate.subjects import setting_of
from pdvsim.architectures import architecture
from pdvsim.architectures.lane import POLLING
from pdvsim.cell import AUTO, Cell, Values, flag
from pdvsim.crossover.search import INDIFFERENCE
from pdvsim.documents.cells import Rank
from pdvsim.machine import Calibration, Replication
from pdvsim.metrics import summarize
from pdvsim.output import number
from pdvsim.pool import run_all
from pdvsim.protocols import protocols
from pdvsim.quantities import QUANTITIES
from pdvsim.statistics import Interval
from pdvsim.sweep import CellResult

RUNS, FIRST_RUNS = 4, 2


@dataclass(frozen=True, slots=True)
class _Task:
    run: Replication
    off: frozenset[str]
    metric: str


@dataclass(frozen=True, slots=True)
class _Change:
    """What some cells would be otherwise.

    Attributes:
        cells: by label.
        off: mechanisms switched off in them.
        said, kind: what the change is, and of what, as parts of a sentence.
    """

    cells: dict[str, Cell]
    off: frozenset[str]
    said: str
    kind: str


def decided_by(
    rank: Rank,
    results: Sequence[CellResult],
    calibration: Calibration,
    workers: int | None = 1,
) -> tuple[str, ...]:
    """What decides the first place of `rank`, a sentence each.

    Args:
        results: of the cells at its load.
    """
    found = {result.label: result for result in results if result.metrics[rank.metric]}
    runs = min(RUNS, *(len(result.runs) for result in results))
    if runs < 2 or len(rank.order) < 2 or not set(rank.order) <= found.keys():
        return ()
    sentences: list[str] = []
    for change in (*_limits(found), *_mechanisms(rank.order[:2], found)):
        if change.off and sentences:  # a limit says it all
            break
        values = _values(change, range(FIRST_RUNS), calibration, rank.metric, workers)
        otherwise = _otherwise(rank, found, values)
        if all(_hardly(found[label].metrics[rank.metric], new) for label, new in otherwise.items()):
            continue
        more = _values(change, range(FIRST_RUNS, runs), calibration, rank.metric, workers)
        otherwise = _otherwise(rank, found, {one: values[one] + more[one] for one in values})
        sentence = _sentence(rank, found, otherwise, change)
        if sentence is not None:
            sentences.append(sentence)
    return tuple(sentences)


def _values(
    change: _Change, indices: range, calibration: Calibration, metric: str, workers: int | None
) -> dict[str, list[float | None]]:
    """The metric with the change, of each cell by label, in some of its runs."""
    tasks = [
        _Task(Replication(cell, calibration, i), change.off, metric)
        for cell in change.cells.values()
        for i in indices
    ]
    values, count = run_all(_value, tasks, workers), len(indices)
    return {label: values[i * count : (i + 1) * count] for i, label in enumerate(change.cells)}


def _otherwise(
    rank: Rank, found: dict[str, CellResult], values: dict[str, list[float | None]]
) -> dict[str, float]:
    """What cells would come to, where that is known."""
    return {
        label: value
        for label, runs in values.items()
        if (value := _changed(found[label], runs, rank.metric))
    }


def _hardly(now: Interval | None, new: float) -> bool:
    """Whether a change matters so little in its first runs that more would not tell otherwise."""
    return now is not None and abs(new / now.value - 1.0) < INDIFFERENCE / 4


def _limits(found: dict[str, CellResult]) -> Iterator[_Change]:
    """Numbers in place of an architecture's own rule, taken back."""
    limited: dict[str, dict[str, Cell]] = {}
    for label, result in found.items():
        for name in _numbers(result.cell):
            free = Values({**result.cell.parameters, name: AUTO})
            limited.setdefault(name, {})[label] = replace(result.cell, parameters=free)
    for name, cells in limited.items():
        yield _Change(cells, frozenset(), f"With {flag(name)} {AUTO}", "limit")


def _numbers(cell: Cell) -> list[str]:
    """Parameters of a batched cell that are a number where they could be AUTO."""
    config, own = cell.config(), architecture(cell.architecture).checked({})
    return [
        name
        for name, usual in own.items()
        if usual == AUTO and config.parameters[name] != AUTO and config.executor.batched
    ]


def _mechanisms(labels: Sequence[str], found: dict[str, CellResult]) -> Iterator[_Change]:
    """Mechanisms of the best two themselves, of closed loops, whose runs are short."""
    for label in labels:
        cell = found[label].cell
        if protocols()[cell.protocol].open_loop:
            continue
        limits, switches = _numbers(cell), architecture(cell.architecture).switches
        for name in acting(cell.config(), cell.concurrency):
            if name != POLLING and not set(switches[name].parameters) & set(limits):
                said = f"Without '{name}' in {label}"
                yield _Change({label: cell}, frozenset({name}), said, "mechanism")


def _value(task: _Task) -> float | None:
    setting = without(setting_of(task.run), task.off)
    record = setting.run()
    own = protocols()[task.run.cell.protocol].measure(record)
    return {**summarize(record, task.run.cell.slo).metrics, **own}[task.metric]


def _changed(result: CellResult, values: Sequence[float | None], metric: str) -> float | None:
    """The cell's metric with the change, from runs with and without it."""
    pairs = [
        (new, old)
        for new, run in zip(values, result.runs, strict=False)
        if new is not None and (old := run.metrics[metric])
    ]
    whole = result.metrics[metric]
    if not pairs or whole is None:
        return None
    new, old = (fmean(side) for side in zip(*pairs, strict=True))
    return whole.value * new / old


def _sentence(
    rank: Rank, found: dict[str, CellResult], otherwise: dict[str, float], change: _Change
) -> str | None:
    """What is said of a change; None where the same cell stays first."""
    now = {label: one.value for label in rank.order if (one := found[label].metrics[rank.metric])}
    then = {**now, **otherwise}
    best: Callable[..., str] = max if rank.better == "higher" else min
    winner, first = best(then, key=then.__getitem__), rank.order[0]
    apart = abs(then[winner] / then[first] - 1.0) if then[first] else 0.0
    if winner == first or apart <= INDIFFERENCE:
        return None
    quantity = QUANTITIES[rank.metric]
    best_value, first_value = (number(quantity.scale * then[one]) for one in (winner, first))
    return (
        f"{change.said} it would be {winner} ({best_value} {quantity.shown or quantity.heading}; "
        f"{first} {first_value}): that {change.kind} decides."
    )
