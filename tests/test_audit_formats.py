"""Reading tables: units, field names, and what is said of files that are wrong."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result

from pdvsim.audit import FORMATS, Severity, audit, read
from pdvsim.cell import Cell as Specification
from pdvsim.commands import audit as audit_command
from pdvsim.commands.audit import command
from pdvsim.des import simulate
from pdvsim.errors import InputError
from pdvsim.tables import parse_columns
from tests.fakes import FixedCosts


def put(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


VLLM = {
    "date": "20261123-120000",
    "backend": "openai",
    "label": None,
    "num_prompts": 200,
    "request_rate": "inf",
    "max_concurrency": 8,
    "duration": 100.0,
    "completed": 200,
    "failed": 0,
    "total_input_tokens": 25600,
    "total_output_tokens": 12800,
    "request_throughput": 2.0,
    "request_goodput": None,
    "output_throughput": 128.0,
    "mean_ttft_ms": 100.0,
    "mean_tpot_ms": 60.0,
    "mean_e2el_ms": 3900.0,
    "p99_e2el_ms": 5000.0,
    "spec_decode_acceptance_rate": 62.5,
    "spec_decode_acceptance_length": 3.5,
    "spec_decode_num_drafts": 3600,
    "spec_decode_draft_tokens": 14400,
}


def test_vllm_units(tmp_path: Path) -> None:
    table = read(put(tmp_path / "run.json", VLLM))
    (cell,) = table.cells
    assert table.format == "vllm"
    assert cell.acceptance_rate == 0.625 and cell.draft_tokens == 4
    assert cell.latency_s == 3.9 and cell.concurrency == 8 and cell.rate_per_s is None
    assert cell.tokens_per_request == 192
    assert not audit(table).failed


def test_vllm_lines_and_folder_are_many_cells(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({**VLLM, "max_concurrency": n}) for n in (8, 9))
    assert len(read(put(tmp_path / "runs.jsonl", lines)).cells) == 2
    assert len(read(tmp_path, format="vllm").cells) == 2


def test_vllm_requests_come_from_its_lists(tmp_path: Path) -> None:
    lists = {
        "completed": 1,
        "output_lens": [3, 0],
        "ttfts": [0.5, 0.0],
        "itls": [[0.25, 0.25], []],
        "errors": ["", "timeout"],
    }
    (cell,) = read(put(tmp_path / "run.json", VLLM | lists)).cells
    assert [r.latency_s for r in cell.requests] == [1.0, None]


@pytest.mark.parametrize(
    ("served", "tpot_ms", "found"),
    [
        ("meta-llama/Llama-3.1-70B-Instruct", 16.0, True),  # 141 GB at 8 TB/s: 17.4 ms
        ("meta-llama/Llama-3.1-70B-Instruct", 19.0, False),
        ("nvidia/Llama-3.1-70B-Instruct-FP8", 16.0, False),  # other weights
        ("somebody/something", 1.0, False),
    ],
)
def test_a_model_that_a_file_names_has_a_floor(
    served: str, tpot_ms: float, found: bool, tmp_path: Path
) -> None:
    """How many GPUs served it is not known, so that being faster than one is a warning."""
    plain = {name: value for name, value in VLLM.items() if not name.startswith("spec_")}
    path = put(tmp_path / "run.json", plain | {"model_id": served, "mean_tpot_ms": tpot_ms})
    findings = [f for f in audit(read(path)).findings if f.rule == "floors"]
    assert [f.severity for f in findings] == [Severity.WARNING] * found
    if found:
        assert "llama-3.1-70b in bf16 takes at least 17" in findings[0].message


def test_other_programs_name_their_model_too(tmp_path: Path) -> None:
    named = aiperf(input_config={"endpoint": {"model_names": ["Qwen/Qwen3-8B"]}})
    (cell,) = read(put(tmp_path / "a.json", named)).cells
    assert cell.served is not None and cell.served.name == "qwen3-8b"


def test_a_long_last_request_is_no_overload(tmp_path: Path) -> None:
    """300 requests at 10/s in 36 s: the last ones take 6 s, but none waits for its first token."""
    run = VLLM | {
        "request_rate": 10.0,
        "max_concurrency": None,
        "num_prompts": 300,
        "completed": 300,
        "duration": 36.0,
        "total_output_tokens": 81000,
        "request_throughput": 300 / 36,
        "output_throughput": 81000 / 36,
        "mean_tpot_ms": 13.6,
        "mean_e2el_ms": None,
        "p99_e2el_ms": None,
    }
    calm = read(put(tmp_path / "a.json", run | {"mean_ttft_ms": 55.0}))
    assert "overload" not in {f.rule for f in audit(calm).findings}
    queued = read(put(tmp_path / "b.json", run | {"mean_ttft_ms": 3000.0}))
    assert "overload" in {f.rule for f in audit(queued).findings}


def test_latency_is_made_of_the_first_token_and_the_gaps(tmp_path: Path) -> None:
    """64 tokens: 0.1 s and at most 63 gaps of 60 ms are 3.9 s."""
    for milliseconds, fits in ((3900.0, True), (2000.0, True), (4400.0, False)):
        run = VLLM | {"mean_itl_ms": 60.0, "mean_e2el_ms": milliseconds, "max_concurrency": None}
        report = audit(read(put(tmp_path / "a.json", run)))
        assert report.failed is not fits


def test_vllm_failed_requests_are_survivorship(tmp_path: Path) -> None:
    report = audit(read(put(tmp_path / "run.json", VLLM | {"num_prompts": 300})))
    assert report.failed
    assert "survivorship" in {f.rule for f in report.findings}


def aiperf(**blocks: Any) -> dict[str, Any]:
    return {
        "schema_version": "1.5",
        "request_latency": {"unit": "ms", "avg": 4000.0, "p99": 5000.0, "std": 300.0},
        "request_throughput": {"unit": "requests/sec", "avg": 2.0},
        "request_count": {"unit": "requests", "avg": 200.0},
        "benchmark_duration": {"unit": "sec", "avg": 100.0},
        "output_token_throughput": {"unit": "tokens/sec", "avg": 128.0},
        "time_to_first_token": {"unit": "ms", "avg": 100.0},
        "inter_token_latency": {"unit": "ms", "avg": 60.0},
        "run_info": {"variation_values": {"phases.profiling.concurrency": 8}},
        **blocks,
    }


def test_aiperf_units_come_with_each_metric(tmp_path: Path) -> None:
    in_seconds = aiperf(request_latency={"unit": "s", "avg": 4.0})
    for i, content in enumerate((aiperf(), in_seconds)):
        table = read(put(tmp_path / f"{i}.json", content))
        (cell,) = table.cells
        assert (table.format, cell.latency_s, cell.concurrency) == ("aiperf", 4.0, 8)
        assert not audit(table).failed


def test_aiperf_rates_stand_in_the_phase_that_is_measured(tmp_path: Path) -> None:
    warmup = {"name": "warmup", "type": "poisson", "exclude_from_results": True, "rate": 9.0}
    measured = {"name": "profiling", "type": "poisson", "requests": 200, "rate": 2.1}
    content = aiperf(
        input_config={
            "models": {"items": [{"name": "Qwen/Qwen3-8B"}]},
            "phases": [warmup, measured],
        },
        run_info={},
    )
    (cell,) = read(put(tmp_path / "x.json", content)).cells
    assert (cell.rate_per_s, cell.concurrency, cell.load) == (2.1, None, 2.1)
    assert cell.served is not None and cell.served.name == "qwen3-8b"


def test_aiperf_errors_were_offered_too(tmp_path: Path) -> None:
    failed = aiperf(error_request_count={"unit": "requests", "avg": 50.0})
    (cell,) = read(put(tmp_path / "x.json", failed)).cells
    assert (cell.offered, cell.completed) == (250, 200)


def guidellm(**totals: int) -> dict[str, Any]:
    def successful(mean: float) -> dict[str, Any]:
        return {"successful": {"mean": mean, "median": mean, "std_dev": 0.1, "percentiles": {}}}

    return {
        "metadata": {"guidellm_version": "0.5.3"},
        "args": {"max_seconds": 100},
        "benchmarks": [
            {
                "config": {"strategy": {"type_": "concurrent", "streams": 8}},
                "metrics": {
                    "request_totals": {"successful": 200, "errored": 0, "incomplete": 0} | totals,
                    "requests_per_second": successful(2.0),
                    "request_latency": successful(3.95),
                    "output_tokens_per_second": successful(128.0),
                    "time_to_first_token_ms": successful(100.0),
                    "time_per_output_token_ms": successful(61.7),
                    "inter_token_latency_ms": successful(60.0),
                },
            }
        ],
    }


def test_guidellm_reads_tpot_without_the_first_token(tmp_path: Path) -> None:
    table = read(put(tmp_path / "b.json", guidellm()))
    (cell,) = table.cells
    assert (table.format, cell.tpot_s, cell.latency_s) == ("guidellm", 0.06, 3.95)
    assert not audit(table).failed


def test_guidellm_has_its_own_names_for_percentiles(tmp_path: Path) -> None:
    report = guidellm()
    latency = report["benchmarks"][0]["metrics"]["request_latency"]["successful"]
    latency["percentiles"] = {"p001": 3.5, "p01": 3.6, "p05": 3.7, "p50": 3.95, "p999": 4.4}
    (cell,) = read(put(tmp_path / "b.json", report)).cells
    assert cell.latency.percentiles == ((0.1, 3.5), (1, 3.6), (5, 3.7), (50, 3.95), (99.9, 4.4))


def test_guidellm_incomplete_requests_at_the_limit_are_truncation(tmp_path: Path) -> None:
    report = audit(read(put(tmp_path / "b.json", guidellm(incomplete=60))))
    assert {"truncation", "survivorship"} <= {f.rule for f in report.findings}


def test_csv_with_a_map_percent_and_blanks(tmp_path: Path) -> None:
    table = put(tmp_path / "t.csv", "Engine,C,TPS,Lat,Acc\nx,8,128.00,4000,62.5%\ny,8,130.00,,\n")
    columns = parse_columns(
        "system=Engine,concurrency=C,output_throughput=TPS,mean_e2el_ms=Lat,"
        "spec_decode_acceptance_rate=Acc"
    )
    first, second = read(table, columns=columns).cells
    assert (first.system, first.load, first.latency_s) == ("x", 8, 4.0)
    assert first.acceptance_rate == 0.625 and first.resolution == pytest.approx(0.01)
    assert second.latency_s is None


def test_csv_detail_joins_by_system_and_load(tmp_path: Path) -> None:
    table = put(tmp_path / "t.csv", "system,load,output_throughput\na,1,5.0\na,2,6.0\n")
    detail = put(tmp_path / "d.csv", "system,load,id,e2el_ms,queue_ms\na,2,r1,100,5\na,2,r2,,\n")
    cells = read(table, detail).cells
    assert cells[0].requests == ()
    assert [(r.latency_s, r.timings) for r in cells[1].requests] == [(0.1, (0.005,)), (None, ())]


def test_our_own_results(tmp_path: Path) -> None:
    row = {
        "architecture": "pd",
        "pair": "tinyllama-1.1b:llama-2-7b",
        "protocol": "closed-loop",
        "concurrency": 8,
        "replications": 5,
        "output_throughput": {"value": 128.0, "low": 120.0, "high": 136.0},
        "request_throughput": {"value": 2.0, "low": 1.9, "high": 2.1},
        "mean_e2el_ms": {"value": 4000.0, "low": 3900.0, "high": 4100.0},
        "completed": {"value": 40.4, "low": 39.0, "high": 41.0},
        "p99_e2el_ms": None,
    }
    table = read(put(tmp_path / "p.json", {"cells": [row]}))
    (cell,) = table.cells
    assert (table.format, cell.system, cell.concurrency) == ("pdvsim", "pd", 8)
    assert cell.samples == 202
    assert table.counts_unfinished and not audit(table).failed
    open_loop = row | {"protocol": "pdverify"}
    (cell,) = read(put(tmp_path / "q.json", {"cells": [open_loop]})).cells
    assert (cell.concurrency, cell.load) == (None, 8)


def test_predictions_make_no_claim_to_audit(tmp_path: Path) -> None:
    path = put(tmp_path / "p.json", {"command": "predict", "cells": [{"architecture": "pd"}]})
    with pytest.raises(InputError, match="holds no measured cells"):
        read(path)


@pytest.mark.parametrize("executor", ["eager", "graph"])
def test_our_h100_runs_pass_clean(executor: str) -> None:
    findings = audit(read(Path(__file__).parents[1] / "results" / executor)).findings
    assert {finding.severity for finding in findings} <= {Severity.NOTE}


def test_a_benchmark_says_what_ran() -> None:
    """Draft length, models and lengths are read from the cells that the document carries."""
    table = read(Path(__file__).parents[1] / "results/graph/h100_bench_c8.json")
    cells = {cell.system: cell for cell in table.cells}
    assert {cell.concurrency for cell in table.cells} == {8.0}
    assert {cell.pair and cell.pair.name for cell in table.cells} == {"tinyllama-1.1b:llama-2-7b"}
    assert (cells["plain"].draft_tokens, cells["pdv"].draft_tokens) == (0, 4)
    assert cells["pdv"].tokens_per_request is not None
    assert cells["pdv"].utilization is not None and 0 < cells["pdv"].utilization <= 1
    (eager, *_) = read(Path(__file__).parents[1] / "results/eager/h100_bench_0_c16.json").cells
    assert not eager.bonus_token and cells["pdv"].bonus_token


def test_a_damaged_benchmark_is_named(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "results/graph/h100_bench_c8.json").read_text()
    path = put(tmp_path / "b.json", text.replace('"concurrency"', '"concurency"', 1))
    with pytest.raises(InputError, match="concurency"):
        read(path)


def test_request_parquet_of_a_run(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "id": [0, 1],
            "produced_tokens": [20, 3],
            "drafted_tokens": [40, 8],
            "accepted_tokens": [14, 2],
            "arrival_s": [0.0, 0.5],
            "completed_s": [1.5, None],
        }
    )
    path = tmp_path / "run_requests.parquet"
    frame.write_parquet(path)
    (cell,) = read(path).cells
    assert cell.system == "run" and cell.samples == 1 and cell.mean_latency_s == 1.5


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The request file of a simulated run that says what ran."""
    cell = Specification(
        pair="tinyllama-1.1b:llama-2-7b", executor="graph", architecture="pd", concurrency=4
    )
    plan = cell.plan(np.random.SeedSequence(1))
    folder = tmp_path_factory.mktemp("records")
    simulate(cell.config(), plan, FixedCosts()).write(folder, "pd_4", cell.to_dict())
    return folder / "pd_4_requests.parquet"


def test_a_record_says_what_ran(record: Path) -> None:
    for path in (record, record.with_name("pd_4_stages.parquet")):
        report = audit(read(path))
        (cell,) = report.table.cells
        assert (cell.system, cell.concurrency, cell.draft_tokens) == ("pd_4", 4.0, 4)
        assert cell.pair is not None and cell.pair.name == "tinyllama-1.1b:llama-2-7b"
        assert cell.done and not report.failed


def test_a_record_that_no_run_leaves_is_refused(record: Path, tmp_path: Path) -> None:
    for half in record.parent.iterdir():
        says = pl.read_parquet_metadata(half)["pdvsim"]
        table = pl.read_parquet(half)
        if half == record:
            table = table.with_columns(completed_s=pl.lit(0.0))
        table.write_parquet(tmp_path / half.name, metadata={"pdvsim": says})
    with pytest.raises(InputError, match="changed since it was written"):
        read(tmp_path / record.name)


def test_requests_without_their_stages_are_still_rows(record: Path, tmp_path: Path) -> None:
    shutil.copy(record, tmp_path)
    (cell,) = read(tmp_path / record.name).cells
    assert cell.done and cell.pair is None


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", "{", "not a whole JSON"),
        ("a.json", "", "empty"),
        ("a.json", "[]", "empty"),
        ("a.json", {k: v for k, v in VLLM.items() if k != "completed"}, "completed"),
        ("a.json", VLLM | {"duration": "long"}, "duration"),
        ("a.json", {"benchmarks": [{"metrics": {}}]}, "requests_per_second"),
        ("a.json", {"key": 1}, "not a format I know (it has key); known are vLLM"),
        ("a.csv", "x,y\n1,2\n", "none of its columns (x, y) is a result"),
        ("a.csv", "system,output_throughput\na,fast\n", "output_throughput is 'fast'"),
        ("a.csv", "system,output_throughput\na,1.5k\n", "'1.5k' is not a number"),
        ("a.csv", 'system,output_throughput\na,"1,5"\n', "'1,5' is not a number"),
        ("a.csv", "system,load,offered\na,1,2.5\n", "offered"),
        ("a.csv", "Engine,Concurrency,Throughput (TPS)\nPD,1,2\n", "missing column"),
        ("a.csv", "", "the file is empty"),
        ("a.parquet", "no parquet", "no readable Parquet"),
        ("a.json", {"cells": "NaN"}, "cells must be a list"),
        ("a.json", '{"cells": ' + "[" * 100_000, "deep"),
        ("a.json", "[" * 100_000, "deep"),
        ("a.json", '{"system": "a", "completed": ' + "9" * 5000 + "}", "digits"),
    ],
)
def test_bad_files_are_named_and_explained(
    tmp_path: Path, name: str, content: Any, says: str
) -> None:
    with pytest.raises(InputError, match="a\\.") as caught:
        read(put(tmp_path / name, content))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_refusals_of_arguments(tmp_path: Path) -> None:
    table = put(tmp_path / "t.csv", "system,load,output_throughput\na,1,5.0\n")
    for call in (
        lambda: read(tmp_path / "absent.csv"),
        lambda: read(table, format="xlsx"),
        lambda: read(table, columns={"tps": "load"}),
        lambda: read(table, columns={"completed": "nowhere"}),
        lambda: read(put(tmp_path / "r.json", VLLM), detail=table),
        lambda: parse_columns("a=b,a=c"),
        lambda: parse_columns("ab"),
    ):
        with pytest.raises(InputError):
            call()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def test_command_prints_json_and_exits_by_verdict(tmp_path: Path) -> None:
    good, bad = put(tmp_path / "g.json", VLLM), put(tmp_path / "b.json", VLLM | {"completed": 90})
    clean = run(str(good), "--json", "--pair", "tinyllama-1.1b:llama-2-7b")
    assert clean.exit_code == 0
    assert json.loads(clean.stdout)["verdict"]["validity"] == "valid with care"
    failed = run(str(bad), "--json")
    assert failed.exit_code == 1
    first = json.loads(failed.stdout)["findings"][0]
    assert set(first) == {"rule", "severity", "cells", "message", "evidence", "settle"}
    assert "to settle it" in run(str(bad)).stdout


@pytest.mark.parametrize("source", [json.dumps(VLLM), "system,output_throughput\na,5.0\n"])
def test_tables_come_through_pipes(source: str) -> None:
    """Which can be read only once: the format is told by what came out."""
    found = CliRunner().invoke(command, ["-"], input=source)
    assert found.exit_code == 0 and "standard input (" in found.stdout
    reading, writing = os.pipe()
    os.write(writing, source.encode())
    os.close(writing)
    table = read(Path(f"/dev/fd/{reading}"))
    os.close(reading)
    assert table.source == f"/dev/fd/{reading}" and len(table.cells) == 1


def test_what_is_wrong_in_a_pipe_is_said_of_the_pipe() -> None:
    error = CliRunner().invoke(command, ["-"], input='{"a": 1}').exception
    assert isinstance(error, InputError)
    assert str(error).startswith("standard input: not a format I know")


def test_command_bounds_the_hardware(tmp_path: Path) -> None:
    path = str(put(tmp_path / "g.json", VLLM | {"mean_tpot_ms": 4.0}))
    models = ("--pair", "tinyllama-1.1b:codellama-34b")
    assert run(path, *models, "--bandwidth-tb-s", "100").exit_code == 0
    assert run(path, *models, "--bandwidth-tb-s", "3.35").exit_code == 1
    assert isinstance(run(path, "--pair", "gpt").exception, InputError)


def test_command_offers_the_formats_there_are() -> None:
    assert audit_command._FORMATS == FORMATS
