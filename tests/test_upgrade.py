"""Documents of pdvsim 0.1 say today what they said then, and no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pdvsim.documents import read
from pdvsim.documents.ablation import Ablation
from pdvsim.documents.benchmark import Benchmark
from pdvsim.documents.cells import CellsDocument, Prediction
from pdvsim.documents.crossover import Crossover
from pdvsim.documents.explanation import Explanation
from pdvsim.documents.reading import parse
from pdvsim.documents.tables import Audit, Reproduction
from pdvsim.documents.validation import Validation
from pdvsim.errors import InputError
from pdvsim.quantities import COMPARED, LATER
from pdvsim.statistics import Interval
from tests import kinds

RESULTS = kinds.ROOT / "results"


def both(name: str) -> tuple[dict[str, Any], Any]:
    """What a committed file says, and the document of today."""
    path = RESULTS / name
    content: dict[str, Any] = json.loads(path.read_text())
    return content, read(path)


def interval(found: dict[str, Any] | None) -> Interval | None:
    return None if found is None else Interval(**found)


@pytest.mark.parametrize(
    "name",
    [
        "case_study/predict_prefill_batch_8_c128.json",
        "eager/h100_bench_0_c1_c4_c8.json",
        "graph/validate.json",
    ],
)
def test_every_number_of_a_cell_is_kept(name: str) -> None:
    old, new = both(name)
    assert isinstance(new, CellsDocument)
    for was, row in zip(old["cells"], new.cells, strict=True):
        assert (row.label, row.concurrency) == (was["architecture"], was["concurrency"])
        assert row.length.runs == was["replications"]
        for metric, found in row.metrics.items():
            assert found == interval(was.get(metric)), metric
            assert metric in was or metric in LATER
        assert [list(vars(part).values()) for part in row.stages.values()] == [
            list(part.values()) for part in was["stages"].values()
        ]
        assert len(row.timeline) == len(was["timeline"])


def test_what_was_not_recorded_stays_unknown() -> None:
    old, new = both("case_study/predict_prefill_batch_8_c128.json")
    assert (new.pdvsim, new.created, new.git_revision) == (None, None, None)
    assert new.command.startswith("pdvsim predict --concurrency 128 --prefill-batch 8 ")
    assert new.profile.name == old["profile"]["name"]
    assert "graph executor, tinyllama-1.1b:llama-2-7b, on NVIDIA H100" in new.valid_for


def test_options_become_cells() -> None:
    _, new = both("case_study/predict_prefill_batch_8_c128.json")
    assert isinstance(new, Prediction)
    cell = new["pd"].cell
    assert cell is not None
    assert (cell.prompt_tokens, cell.output_tokens, cell.concurrency) == (256, 128, 128)
    assert dict(cell.parameters) == {"prefill_batch": 8}
    assert cell.acceptance == (0.7,) * 4
    cell.config()  # it can be run


def test_what_a_cell_left_unsaid_is_what_it_was_then() -> None:
    seven = read(RESULTS / "graph/h100_bench_seed_7.json")  # of version 1
    assert isinstance(seven, Benchmark)
    then = {row.label: row.cell.config() for row in seven.cells if row.cell is not None}
    assert {name: one.parameters["prefill_batch"] for name, one in then.items()} == {
        "plain": 1,
        "baseline": 100_000,  # all that its batch held
        "pd": 1,
        "three_lane": 1,
        "pdv": 1,
    }
    lanes = then["three_lane"].parameters
    assert (lanes["verify_batch"], lanes["verify_batch_backlogged"]) == (8, 12)


def without(part: Any, key: str) -> Any:
    """`part` of a document, with no such key anywhere."""
    if isinstance(part, list):
        return [without(one, key) for one in part]
    if isinstance(part, dict):
        return {name: without(value, key) for name, value in part.items() if name != key}
    return part


def test_in_an_explanation_of_version_1_nobody_waits_for_the_cache() -> None:
    today = read(RESULTS / "explain_h100_graph.json")
    content = without(json.loads(today.to_json()), "KV cache full")
    with pytest.raises(InputError, match="KV cache full"):
        parse(content, "it")
    assert parse({**content, "schema_version": 1}, "it") == today


def test_ties_are_those_of_the_command_that_wrote_it() -> None:
    old, new = both("case_study/predict_prefill_batch_8_c128.json")
    assert [(tie.first, tie.second) for tie in new.ranks[0].ties] == [
        (tie["first"], tie["second"]) for tie in old["too_close_to_call"]
    ]


def test_single_runs_of_a_benchmark_decide_nothing() -> None:
    _, new = both("graph/h100_bench_c1.json")
    assert isinstance(new, Benchmark)
    assert new.ranks[0].first_place == "unknown"
    assert new.created == new.machine.created
    assert new.cells[0].runs[0].elapsed_s > 0.0


def test_a_validation_of_several_benchmarks_knows_no_cells() -> None:
    old, new = both("graph/validate.json")
    assert isinstance(new, Validation)
    assert len(old["measured"]) > 1
    assert all(row.cell is None for row in new.cells)
    for was, row in zip(old["cells"], new.cells, strict=True):
        assert row.errors == {**dict.fromkeys(COMPARED), **was["errors"]}
    _, single = both("graph/prefill_batch_8/validate.json")
    assert all(row.cell is not None for row in single.cells)


def test_an_explanation_keeps_its_causes_and_sentences() -> None:
    old, new = both("explain_h100_eager.json")
    assert isinstance(new, Explanation)
    for was, row in zip(old["cells"], new.cells, strict=True):
        assert row.e2e_s == interval(was["e2e_s"])
        for name, cause in row.causes.items():
            # Nobody waited for the KV cache then.
            told = was["causes"].get(name)
            assert cause.seconds == (interval(told["seconds"]) if told else Interval(0.0, 0.0, 0.0))
        assert [budget.name for budget in row.threads] == list(was["threads_of_first_run"])
    assert [found.sentence for found in new.differences] == [
        d["sentence"] for d in old["differences"]
    ]
    assert [gap.cause for gap in new.largest_gaps] == list(old["largest_gaps"])


def test_a_ratio_without_an_interval_was_called_open_and_is_unknown() -> None:
    old, new = both("case_study/pdverify_tps_h100_eager.json")
    assert isinstance(new, Crossover)
    last_old, last = old["points"][-1], new.points[-1]
    assert last_old["verdict"] == "open" and last_old["ratio"]["low"] is None
    assert last.answer == "unknown"
    assert not [one for one in new.sentences if one.startswith("Open")]


def test_a_crossing_and_a_map_are_kept() -> None:
    old, new = both("case_study/crossover_graph.json")
    was, crossing = old["crossings"][0], new.crossings[0]
    assert crossing.at == Interval(was["value"], was["low"], was["high"])
    assert new.name(crossing.better) == "pd"
    old, new = both("graph/break_even.json")
    assert new.map is not None
    assert new.first.label == "plain@prefill_batch=8"
    assert dict(new.first.cell.parameters) == {"prefill_batch": 8}
    assert new.map.axis.name == "acceptance" and not new.map.axis.logarithmic
    for was_row, row in zip(old["map"]["rows"], new.map.rows, strict=True):
        assert [point.at for point in row.points] == [p["acceptance"] for p in was_row["points"]]


def test_an_ablation_and_a_reproduction_keep_their_numbers() -> None:
    old, new = both("case_study/ablate_published_c12.json")
    assert isinstance(new, Ablation)
    assert new.whole == interval(old["whole"])
    assert new.verdict.sentence == new.sentence == old["sentence"]
    old, table = both("reproduce_pdverify.json")
    assert isinstance(table, Reproduction)
    assert table.inside_interval == old["inside_interval"] == 27
    for was, row in zip(old["cells"], table.cells, strict=True):
        assert row.published.tps == was["published_tps"]
        low, high = was["predicted_tps_low"], was["predicted_tps_high"]
        assert row.predicted.tps == Interval(was["predicted_tps"], low, high)


def test_an_old_audit_with_errors_is_invalid() -> None:
    new = parse(kinds.old("audit"), "it")
    assert isinstance(new, Audit)
    assert new.verdict.validity == "invalid"
    assert new.findings[0].evidence[0].name == "in_flight"


def test_a_profile_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the output of a pdvsim command"):
        read(RESULTS / "graph" / "earlier" / "1" / "profile.json")
