"""The rules: what they find in the published table, and what each says of made-up cells."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdvsim.acceptance import Acceptance
from pdvsim.audit import (
    FORMATS,
    RULES,
    Cell,
    Finding,
    Limits,
    Report,
    Served,
    Severity,
    Table,
    audit,
    read,
)
from pdvsim.audit.rows import Row
from pdvsim.core import GRAPH
from pdvsim.des import simulate
from pdvsim.metrics import summarize
from pdvsim.models import pair
from pdvsim.workload import Lengths, closed_loop
from tests.benchmark_tables import SEVEN, cells
from tests.fakes import config_of

ROOT = Path(__file__).parents[1]
PUBLISHED = [ROOT / "pdvsim/data/pdverify", ROOT.parent / "shared/data/pdverify"]
TINY = pair("tinyllama-1.1b:tinyllama-1.1b")


@pytest.fixture(scope="module")
def published() -> Report:
    for folder in PUBLISHED:
        summary = folder / "TinyLlama-TinyLlama_summary.csv"
        if summary.exists():
            return audit(read(summary, folder / "TinyLlama-TinyLlama_detailed.csv"))
    pytest.skip("the published table is not on this machine")


def found(report: Report, rule: str, severity: Severity | None = None) -> list[Finding]:
    return [f for f in report.findings if f.rule == rule and severity in (None, f.severity)]


def loads_of(finding: Finding) -> set[int]:
    return {int(name.rpartition(" ")[2]) for name in finding.cells}


def test_published_truncation_from_32_up(published: Report) -> None:
    (finding,) = found(published, "truncation")
    assert finding.severity is Severity.ERROR
    assert loads_of(finding) == {32, 64, 72, 84, 96, 128} and len(finding.cells) == 12
    assert finding.evidence["time_limit_s"] == pytest.approx(60.0, abs=0.1)


def test_published_one_request_cells(published: Report) -> None:
    (finding,) = found(published, "samples", Severity.ERROR)
    assert set(finding.cells) == {"PD @ 1", "PD @ 2", "PDV @ 1", "PDV @ 2", "PD @ 128"}


def test_published_load_beyond_capacity(published: Report) -> None:
    (finding,) = found(published, "overload", Severity.ERROR)
    assert loads_of(finding) == {32, 64, 72, 84, 96, 128}
    assert finding.evidence["capacity_per_s"] == pytest.approx(0.635, abs=0.005)
    assert max(finding.evidence["rate_per_s"]) == 6.4  # type: ignore[type-var]


def test_published_throughput_counts_survivors(published: Report) -> None:
    (finding,) = found(published, "survivorship")
    assert finding.severity is Severity.ERROR
    index = finding.cells.index("PD @ 128")
    assert finding.evidence["completed"][index] == 1  # type: ignore[index]
    assert finding.evidence["offered"][index] == 203  # type: ignore[index]


def test_published_memory_is_not_that_of_two_small_models(published: Report) -> None:
    (finding,) = found(published, "memory")
    assert finding.severity is Severity.ERROR
    assert "tinyllama-1.1b:codellama-34b" in finding.message
    assert finding.evidence["weights_mib"] == pytest.approx(4196, abs=1)


def test_published_cells_that_differ_and_cannot(published: Report) -> None:
    assert any("req_0003" in str(f.evidence) for f in found(published, "same_requests"))
    assert found(published, "identical")
    assert published.failed


def test_a_consistent_table_is_clean() -> None:
    report = audit(cells(), Limits(bytes_per_s=3.35e12, gpu_memory_mib=81559))
    assert [f for f in report.findings if f.severity is not Severity.NOTE] == []
    assert not report.failed


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("littles_law", {"latency_s": 6.0, "tpot_s": 6 / 64}),
        ("littles_law", {"latency_s": 1.0, "tpot_s": 1 / 64}),
        ("survivorship", {"offered": 260}),
        ("samples", {"completed": 2, "offered": 2, "output_tokens": 128}),
        ("memory", {"memory_mib": 9000.0}),
        ("memory", {"memory_mib": 66000.0}),
        ("memory", {"memory_mib": 90000.0}),
        ("floors", {"tpot_s": 0.5e-3}),
        ("acceptance", {"acceptance_rate": 1.2}),
        ("acceptance", {"accepted_length": 5.5}),
        ("acceptance", {"accepted_length": 2.2}),
        ("arithmetic", {"output_throughput": 900.0}),
        ("arithmetic", {"request_goodput": 3.0}),
        ("arithmetic", {"failed": 3}),
        ("statistics", {"latency_p50_s": 3.0, "latency_p99_s": 2.0}),
        ("statistics", {"latency_p50_s": 4.0}),
        ("impossible", {"ttft_s": -0.2}),
        ("impossible", {"output_throughput": float("nan")}),
        ("impossible", {"memory_mib": float("-inf")}),
        ("impossible", {"utilization": 1.2}),
        ("client_queue", {"rate_per_s": 50.0, "client_cap": True}),
        ("duplicates", {"requests": (Served("1", 2.88), Served("1", 2.88))}),
    ],
)
def test_each_rule_sees_its_fault(rule: str, changes: dict[str, object]) -> None:
    report = audit(cells(**changes), Limits(bytes_per_s=3.35e12, gpu_memory_mib=81559))
    hits = [f for f in found(report, rule) if f.severity is not Severity.NOTE]
    assert hits and all("b @ 8" in f.cells for f in hits)
    assert all(f.evidence and f.settle for f in hits)


def test_a_memory_pool_is_no_error() -> None:
    table = cells()
    pooled = tuple(replace(cell, memory_mib=73400.0) for cell in table.cells)
    (finding,) = found(audit(replace(table, cells=pooled)), "memory")
    assert finding.severity is Severity.NOTE


def test_one_configuration_measured_as_two_pairs() -> None:
    table = cells()
    other = tuple(replace(cell, pair=TINY) for cell in table.cells)
    report = audit(replace(table, cells=table.cells + other))
    assert found(report, "one_configuration", Severity.ERROR)


def test_copied_numbers_at_another_load() -> None:
    table = cells()
    copied = (*table.cells, replace(table.cells[0], load=16, concurrency=None))
    assert found(audit(replace(table, cells=copied)), "identical", Severity.ERROR)
    doubled = (*table.cells, table.cells[0])
    assert found(audit(replace(table, cells=doubled)), "duplicates", Severity.ERROR)


def test_results_that_count_unfinished_work_are_not_called_truncated() -> None:
    table = replace(cells(offered=260), counts_unfinished=True)
    report = audit(table)
    assert not found(report, "survivorship") and not found(report, "truncation")


def test_dropped_early_requests_show_as_gaps() -> None:
    kept = tuple(Served(f"req_{i:03d}", 2.88) for i in range(100) if i % 4)
    report = audit(cells(requests=kept, offered=None, completed=len(kept)))
    assert found(report, "survivorship", Severity.ERROR)


def test_a_gain_inside_its_noise_is_noted() -> None:
    table = cells(latency_s=3.55, latency_std_s=3.0)
    assert any("b @ 8" in f.cells for f in found(audit(table), "gains"))


def test_a_report_breaks_between_words() -> None:
    report = audit(cells(offered=260, memory_mib=9000.0, ttft_s=-1.0))
    wide, narrow = report.to_text(10_000), report.to_text(60)
    assert narrow.split() == wide.split()
    assert max(map(len, narrow.splitlines())) <= 60


def test_rules_that_cannot_look_say_what_they_need() -> None:
    report = audit(Table("bare", "csv", (Cell("a", load=1, output_throughput=3.0),)))
    assert report.findings == []
    blind = {o.rule: o.needs for o in report.outcomes if not o.checked}
    assert "memory" in blind and "pair" in blind["memory"]
    assert "not checked" in report.to_text()


_amounts = st.none() | st.floats(1e-3, 1e6)
_counts = st.none() | st.integers(0, 10_000)


@settings(max_examples=150)
@given(
    st.lists(
        st.builds(
            Cell,
            system=st.sampled_from(["a", "b"]),
            load=st.none() | st.integers(1, 4),
            pair=st.none() | st.sampled_from([TINY, SEVEN]),
            concurrency=_amounts,
            rate_per_s=_amounts,
            duration_s=_amounts,
            offered=_counts,
            completed=_counts,
            output_tokens=_counts,
            output_throughput=_amounts,
            request_throughput=_amounts,
            latency_s=_amounts,
            tpot_s=_amounts,
            acceptance_rate=st.none() | st.floats(-1, 2),
            accepted_length=_amounts,
            draft_tokens=st.none() | st.integers(0, 8),
            memory_mib=_amounts,
            requests=st.lists(
                st.builds(
                    Served,
                    id=st.text("ab1", max_size=2),
                    latency_s=_amounts,
                    drafted=_counts,
                    accepted=_counts,
                    output_tokens=_counts,
                ),
                max_size=4,
            ).map(tuple),
        ),
        min_size=1,
        max_size=6,
    ),
    st.booleans(),
)
def test_no_table_breaks_a_rule(rows: list[Cell], same: bool) -> None:
    report = audit(Table("any", "csv", tuple(rows), same_requests=same), Limits(1e4))
    known = {cell.name for cell in rows}
    assert all(set(f.cells) <= known for f in report.findings)
    assert report.to_text()


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("audit_faults")
    sys.path.pop(0)


@pytest.mark.parametrize("fault", ["truncated", "wrong_pair", "doubled_rows", None])
def test_faults_planted_in_simulated_tables(benchmark: ModuleType, fault: str | None) -> None:
    verdict = benchmark.judge((7, fault))
    assert verdict.found if fault else not verdict.alarms


def test_our_own_results_are_clean(benchmark: ModuleType, tmp_path: Path) -> None:
    Costs = importlib.import_module("audit_tables").Costs
    acceptance, lengths = Acceptance.constant(0.7, 4), Lengths(64, 32, 0.2)
    rows = []
    for concurrency in (4, 8):
        for name in ("plain", "pd", "pdv"):
            costs = Costs(SEVEN, True, 1.0, 0.05, np.random.default_rng(1))
            plan = closed_loop(concurrency, lengths, acceptance, np.random.SeedSequence(2), 6)
            record = simulate(config_of(name, GRAPH, batch_cap=concurrency), plan, costs)
            summary = summarize(record, warmup=plan.warmup)
            about = {"architecture": name, "pair": SEVEN.name, "concurrency": concurrency}
            drafts = {"draft_tokens": 0 if name == "plain" else 4}
            rows.append({**about, **drafts, **summary.metrics})
    path = tmp_path / "results.json"
    path.write_text(json.dumps(rows))
    report = audit(read(path), benchmark.LIMITS)
    assert [f for f in report.findings if f.severity is not Severity.NOTE] == []
    assert {o.rule for o in report.outcomes if o.checked} >= {"littles_law", "floors", "samples"}


def test_the_documentation_names_every_rule_format_and_column() -> None:
    text = (ROOT / "docs/audit.md").read_text()
    named = {*(rule.name for rule in RULES), *FORMATS, *Row.model_fields} - {"auto"}
    statistics = {name for name in Row.model_fields if name.endswith("_ms")}
    assert [name for name in sorted(named - statistics) if f"`{name}`" not in text] == []
