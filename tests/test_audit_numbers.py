"""Numbers that nothing can measure are errors, wherever they stand; and audits of any size end."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdvsim.audit import Cell, Distribution, Report, Served, Severity, Table, audit, read
from pdvsim.audit.rules_numbers import _BOUNDS
from tests.benchmark_tables import cells
from tests.published_table import write_published_table

NOT_NUMBERS = (nan, inf, -inf)


def accused(report: Report) -> bool:
    return any(f.severity is Severity.ERROR and f.rule == "impossible" for f in report.findings)


@settings(max_examples=200)
@given(
    name=st.sampled_from(sorted(set(_BOUNDS) - {"load"})),
    value=st.sampled_from(NOT_NUMBERS) | st.floats(-1e12, -1e-9),
)
def test_no_number_of_a_cell_may_be_negative_or_infinite_or_none(name: str, value: float) -> None:
    report = audit(cells(**{name: value}))
    assert accused(report)
    assert all(
        finding.cells == ("b @ 8",) for finding in report.findings if finding.rule == "impossible"
    )
    assert report.to_text()


@given(st.sampled_from(["mean", "std", "least", "most"]), st.sampled_from([*NOT_NUMBERS, -1.0]))
def test_no_statistic_of_a_latency_may_be(name: str, value: float) -> None:
    assert accused(audit(cells(distributions=(Distribution("TTFT", **{name: value}),))))
    percentiles = ((50.0, 1.0), (99.0, value))
    assert accused(audit(cells(distributions=(Distribution("ITL", percentiles=percentiles),))))


@given(st.sampled_from([*NOT_NUMBERS, -2]), st.integers(0, 3))
def test_no_number_of_a_request_may_be(value: float, where: int) -> None:
    served = [
        Served("x", value),
        Served("x", 1.0, timings=(0.5, value)),
        Served("x", 1.0, output_tokens=value),  # type: ignore[arg-type]
        Served("x", 1.0, drafted=value),  # type: ignore[arg-type]
    ][where]
    assert accused(audit(cells(requests=(Served("1", 2.88), served))))


@settings(max_examples=100)
@given(
    st.lists(st.floats(1e-6, 1e6), min_size=10, max_size=200),
    st.lists(st.floats(0.5, 99.9), min_size=1, max_size=6),
)
def test_statistics_of_real_values_are_never_accused(
    values: list[float], percents: list[float]
) -> None:
    stated = Distribution(
        "TTFT",
        float(np.mean(values)),
        float(np.std(values)),
        min(values),
        max(values),
        tuple((p, float(np.percentile(values, p))) for p in sorted(percents)),
    )
    cell = Cell("a", load=1, completed=len(values), distributions=(stated,))
    assert not [f for f in audit(Table("t", "csv", (cell,))).findings if f.rule == "statistics"]


@pytest.mark.parametrize(
    ("stated", "says"),
    [
        (Distribution("TTFT", percentiles=((50, 2.0), (99, 1.0))), "p50 (2 s) is above p99 (1 s)"),
        (Distribution("TTFT", least=3.0, percentiles=((50, 2.0),)), "the minimum (3 s) is above"),
        (Distribution("TTFT", mean=5.0, most=4.0), "above the maximum"),
        (Distribution("TTFT", mean=1.0, least=2.0), "below the minimum"),
        (Distribution("TTFT", mean=1.0, percentiles=((50, 3.0),)), "can't be 1 s"),
        (Distribution("TTFT", mean=1.0, std=0.1, percentiles=((50, 1.5),)), "further from"),
        (Distribution("TTFT", mean=1.0, std=0.1, percentiles=((99, 2.5),)), "further from"),
    ],
)
def test_statistics_that_contradict_each_other(stated: Distribution, says: str) -> None:
    (finding,) = [
        f for f in audit(cells(distributions=(stated,))).findings if f.rule == "statistics"
    ]
    assert says in finding.message and finding.severity is Severity.ERROR


Change = Callable[[dict[str, str]], dict[str, str]]


def column(name: str, change: Callable[[str], str]) -> Change:
    return lambda row: {**row, name: change(row[name])}


@pytest.mark.parametrize(
    "change",
    [
        column("Latency P99 (ms)", lambda text: "-" + text),
        column("GPU Util %", lambda text: "-" + text),
        column("GPU Util %", lambda text: str(100 + float(text))),
        column("GPU Mem (MB)", lambda text: "-" + text),
        column("Throughput (TPS)", lambda text: "-" + text),
        column("Throughput (TPS)", lambda text: "inf"),
        column("Throughput (TPS)", lambda text: "nan"),
        column("Avg Request Latency (ms)", lambda text: "nan"),
    ],
)
def test_a_published_table_with_such_a_column_fails(change: Change, tmp_path: Path) -> None:
    summary, detail = write_published_table(tmp_path, (1, 2))
    assert not accused(audit(read(summary, detail)))
    with summary.open() as file:
        rows = [change(row) for row in csv.DictReader(file)]
    neutral = tmp_path / "table.csv"
    with neutral.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert accused(audit(read(neutral, detail)))


def rows_of_one_load(count: int) -> Table:
    first = cells().cells[0]
    alike = [replace(first, system=f"s{i % 7}", run=str(i)) for i in range(count)]
    return Table("large", "csv", tuple(alike), same_requests=True)


def rows_of_many_loads(count: int) -> Table:
    first = cells().cells[0]
    served = (Served("req_1", 2.0, (1.0,), 5, 8), Served("req_2", 2.0, (1.5,), 5, 8))
    rows = [
        replace(first, system=f"s{i}", load=i, rate_per_s=4.0, requests=served)
        for i in range(count)
    ]
    return Table("large", "csv", tuple(rows), same_requests=True)


@pytest.mark.parametrize("rows", [rows_of_one_load, rows_of_many_loads])
def test_work_grows_as_the_rows_do(rows: Callable[[int], Table]) -> None:
    """Calls of functions, counted: twice the rows take about twice as many, not four times."""
    audit(rows(10))

    def calls(count: int) -> int:
        seen = 0

        def count_call(frame: Any, event: str, argument: Any) -> None:
            nonlocal seen
            seen += event in ("call", "c_call")

        table = rows(count)
        sys.setprofile(count_call)
        try:
            audit(table)
        finally:
            sys.setprofile(None)
        return seen

    assert calls(800) < 2.3 * calls(400)
