"""Small files of the kinds that people publish, and what has to be said of each.

The files stand in `tests/cases/`, rebuilt from what was published or reported; each stands for a
kind that was once read wrongly.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from pdvsim.audit import Finding, Report, Severity, audit, read
from pdvsim.audit.document import document
from pdvsim.errors import InputError
from pdvsim.tables import parse_columns

CASES = Path(__file__).parent / "cases"


def judged(name: str, columns: str | None = None) -> Report:
    return audit(read(CASES / name, columns=parse_columns(columns) if columns else None))


def errors(report: Report) -> dict[str, Finding]:
    return {f.rule: f for f in report.findings if f.severity is Severity.ERROR}


@pytest.mark.parametrize(
    "name",
    [
        "A03_ngram_acceptance.json",  # 3.6 drafts a round on average
        "A07_sglang_trace_mode.jsonl",  # a rate called trace
        "A18b_thousands.csv",
        "A19a_full_loop.json",  # a tail of long requests after the last start
        "A19b_full_loop_p99.json",
    ],
)
def test_sound_results_are_not_accused(name: str) -> None:
    findings = judged(name).findings
    assert {finding.severity for finding in findings} <= {Severity.NOTE}
    assert all(finding.rule in ("samples", "gains") for finding in findings)


def test_ttft_alone_can_break_littles_law() -> None:
    finding = errors(judged("A01_vllm_default_metrics.json"))["littles_law"]
    assert finding.evidence["in_flight"] == pytest.approx(1.117)
    assert "1.99" in finding.message and "at most 1 may be" in finding.message


def test_a_sweep_is_one_folder_deeper_and_its_summary_repeats_it() -> None:
    for folder in ("A02_vllm_sweep", "A02_vllm_sweep/BENCH--max_concurrency=2"):
        report = judged(folder)
        assert [cell.name for cell in report.table.cells] == ["vllm @ 2, run 0", "vllm @ 2, run 1"]
        assert not report.failed
        (left_out,) = report.table.left_out
        assert "summary.json: repeats the results beside it" in left_out


def test_a_summary_by_itself_is_read(tmp_path: Path) -> None:
    inner = CASES / "A02_vllm_sweep/BENCH--max_concurrency=2"
    shutil.copy(inner / "summary.json", tmp_path)
    assert len(read(tmp_path).cells) == len(read(inner / "summary.json").cells) == 2


def test_a_sweeps_summary_as_csv_is_the_same(tmp_path: Path) -> None:
    inner = CASES / "A02_vllm_sweep/BENCH--max_concurrency=2"
    rows = json.loads((inner / "summary.json").read_text())
    path = tmp_path / "summary.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    table = read(path)
    assert table.format == "vllm"
    assert table.cells == read(inner / "summary.json").cells


def test_sglang_has_names_of_its_own() -> None:
    report = judged("A05_sglang_little.jsonl")
    finding = errors(report)["littles_law"]
    assert report.table.format == "sglang"
    assert finding.evidence["in_flight"] == pytest.approx(11.78, abs=0.01)
    assert finding.evidence["in_flight_stated"] == 11.78
    assert finding.evidence["concurrency"] == 8


def test_aiperf_settings_stand_in_phases() -> None:
    finding = errors(judged("A08_aiperf_phases.json"))["littles_law"]
    assert finding.evidence["in_flight"] == pytest.approx(6.88)
    assert finding.evidence["concurrency"] == 4


def test_what_is_no_result_in_a_folder_is_left_out_and_named() -> None:
    report = judged("A10_aiperf_folder")
    (cell,) = report.table.cells
    assert report.table.format == "aiperf" and not report.failed
    assert cell.concurrency == 4 and cell.in_flight == pytest.approx(3.94, abs=0.01)
    assert {name.partition(":")[0] for name in report.table.left_out} == {
        "inputs.json",
        "profile_export.jsonl",
    }
    assert "left out: inputs.json" in report.to_text()
    assert document(report).notes == tuple(f"Left out: {one}." for one in report.table.left_out)


def test_sessions_that_pause_are_no_requests_in_flight() -> None:
    (finding,) = judged("A11_aiperf_think_time.json").findings
    assert (finding.rule, finding.severity) == ("littles_law", Severity.NOTE)
    assert "concurrency counts sessions" in finding.message


def test_guidellm_0_3_counts_beside_its_metrics() -> None:
    report = judged("A12_guidellm_0_3.json")
    (cell,) = report.table.cells
    assert (cell.completed, cell.offered, cell.concurrency) == (24, 28, 4)
    assert errors(report).keys() == {"survivorship"}


def test_requests_in_flight_at_the_end_are_no_overload() -> None:
    report = judged("A13_guidellm_constant.json")
    assert errors(report).keys() == {"survivorship"}
    assert errors(report)["survivorship"].evidence["left_out_share"] == [0.104]
    assert not [finding for finding in report.findings if finding.rule == "overload"]


def test_llmperf_summaries_are_read() -> None:
    report = judged("A15_llmperf_summary.json")
    assert report.table.format == "llmperf"
    assert errors(report).keys() == {"littles_law"}
    assert errors(report)["littles_law"].evidence["in_flight"] == [pytest.approx(3.325)]


@pytest.mark.parametrize("command", ["latency", "throughput"])
def test_benchmarks_without_a_serving_run_are_named(command: str) -> None:
    (path,) = CASES.glob(f"A17*_{command}.json")
    with pytest.raises(InputError, match=f"written by `vllm bench {command}`, which holds no"):
        read(path)


def test_a_table_without_known_results_is_refused() -> None:
    with pytest.raises(InputError, match=r"none of its columns .* is a result that I know"):
        read(CASES / "A18a_seconds.csv")


@pytest.mark.parametrize("name", ["mean_e2el_ms", "mean_e2el_s"])
def test_a_mapped_column_has_a_unit(name: str) -> None:
    """By the heading, whatever the name says, and by the name."""
    columns = f"concurrency=Users,request_throughput=Req/s,{name}=E2E (s),completed=Requests"
    report = judged("A18a_seconds.csv", columns)
    (cell,) = report.table.cells
    assert cell.in_flight == pytest.approx(7.87, abs=0.01)
    assert not report.failed


def test_a_name_says_the_unit_where_the_heading_does_not(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("system,concurrency,output_throughput,mean_e2el_s,p99_ttft_us\na,2,5,1.5,250\n")
    (cell,) = read(path).cells
    assert cell.latency_s == 1.5
    assert [(one.of, one.at(99)) for one in cell.distributions if one.of == "TTFT"] == [
        ("TTFT", pytest.approx(250e-6))
    ]


def test_thousands_have_separators() -> None:
    cells = read(CASES / "A18b_thousands.csv").cells
    assert [cell.output_throughput for cell in cells] == [1500, 1650]
    assert [cell.latency_s for cell in cells] == [1.382, 1.240]


def test_a_cell_without_numbers_is_left_out_and_named() -> None:
    report = judged("A18c_oom.csv")
    assert [cell.name for cell in report.table.cells] == ["A @ 8"] and not report.failed
    (left_out,) = report.table.left_out
    assert left_out == "A @ 16 (row 3): no number, output_throughput is 'OOM'"


def test_a_word_among_numbers_is_named_too(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("system,load,output_throughput,mean_e2el_ms\na,1,5,10\na,2,6,timeout\n")
    table = read(path)
    assert [cell.latency_s for cell in table.cells] == [0.01, None]
    assert table.left_out == ("a @ 2 (row 3): mean_e2el_ms is 'timeout', where a number is needed",)


def test_a_column_may_have_a_comma_in_its_name() -> None:
    columns = "output_throughput=Throughput (tok/s, output),concurrency=concurrency"
    (cell,) = judged("A18d_comma_in_name.csv", columns).table.cells
    assert (cell.output_throughput, cell.concurrency) == (1500, 8)


def test_latency_that_leaves_out_the_clients_queue() -> None:
    (finding,) = judged("A21_client_queue.json").findings
    assert (finding.rule, finding.severity) == ("client_queue", Severity.WARNING)
    assert finding.evidence["latency_from_schedule_s"] == pytest.approx(40.9)
    assert finding.evidence["stated_latency_s"] == 0.506


def test_a_negative_time_is_impossible() -> None:
    report = judged("A23_negative_ttft.json")
    assert "mean TTFT of -1.7e+09 s" in report.to_text()
    assert {finding.rule for finding in report.findings} == {"impossible"}


def test_goodput_is_a_part_of_throughput() -> None:
    finding = errors(judged("A24a_goodput.json"))["arithmetic"]
    assert "goodput and request throughput" in finding.message


def test_no_more_can_end_than_were_sent() -> None:
    finding = errors(judged("A24c_failed.json"))["arithmetic"]
    assert "200 completed + 30 failed" in finding.message
    assert (finding.evidence["first"], finding.evidence["second"]) == (230, 200)


def test_lists_of_requests_are_equally_long() -> None:
    with pytest.raises(InputError, match="output_lens has 5, ttfts has 4"):
        read(CASES / "A26_list_lengths.json")


def test_a_phase_without_grace_cuts_its_requests() -> None:
    report = judged("A28_aiperf_grace0.json")
    assert errors(report).keys() == {"truncation", "survivorship"}
    finding = errors(report)["truncation"]
    assert "ended at 6 s without grace" in finding.message
    assert "20 of 24 were counted" in finding.message
    assert finding.evidence["elapsed_s"] == pytest.approx(6.02, abs=0.01)
    assert finding.evidence["completed_span_s"] == pytest.approx(5.337)
