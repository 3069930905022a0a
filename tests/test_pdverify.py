"""The case study on a table whose truth is known: reproduced, and audited."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pdvsim.ablate import Subject, ablate
from pdvsim.audit import Severity, audit, read
from pdvsim.cli import run as pdvsim
from pdvsim.errors import InputError
from pdvsim.pdverify.ablation import PublishedSetting
from pdvsim.pdverify.protocol import pdverify
from pdvsim.workload import Lengths
from tests.fakes import ACCEPTANCE, HOST, FixedCosts, config_of
from tests.published_table import PREFILL_S, ROUND_S, write_published_table

Paths = tuple[Path, Path]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    return write_published_table(tmp_path_factory.mktemp("published"))


def test_a_published_table_is_reproduced_from_its_rows_at_low_load(
    table: Paths, profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(path) for path in table]
    assert pdvsim(["reproduce", *paths, "--profile", profile, "--replications", "4", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    source = document["calibrated_from"]
    assert source["prefill_ms"] == pytest.approx(1e3 * PREFILL_S, rel=0.03)
    for one in source["rounds"]:
        assert one["round_ms"] == pytest.approx(1e3 * ROUND_S, rel=0.03)
    assert document["median_abs_error_tps"] < 0.02
    for cell in document["cells"]:
        assert abs(cell["predicted"]["completed"] - cell["published"]["completed"]) <= 3
    at = {gain["concurrency"]: gain for gain in document["gains"]}
    # Beyond capacity the cut at 60 s counts survivors: that is the whole of the gain.
    assert at[64]["published"] > 3.0 and at[64]["predicted"]["value"] > 3.0
    assert at[8]["predicted"]["value"] == pytest.approx(1.0, abs=0.02)


def cut_setting(architecture: str, concurrency: int, index: int) -> PublishedSetting:
    """The published protocol on a machine whose round takes 40 ms."""
    return PublishedSetting(
        config_of(architecture, batch_cap=concurrency),
        pdverify(concurrency, Lengths(10, 40), ACCEPTANCE, np.random.SeedSequence(index)),
        FixedCosts(0.02, 0.0),
        HOST,
        {},
    )


def test_the_cut_makes_survivors_count() -> None:
    """Far beyond capacity, pdv's few in service complete before the cut and pd's many do not;
    without the cut both do the same work."""
    subjects = [
        Subject(name, [partial(cut_setting, name, 48, i) for i in range(2)])
        for name in ("pd", "pdv")
    ]
    chosen = ["cut at the deadline", "unfinished count as nothing"]
    found = ablate(subjects, "pdverify_tps", chosen, workers=1)
    assert found.whole.value > np.log(1.5)
    assert abs(found.parts[-1].shapley.value) < np.log(1.2)
    # Either alone suffices, so they share the credit.
    survivors, cut, _ = found.parts
    assert cut.alone.value > 0.7 * found.whole.value
    assert survivors.alone.value > 0.7 * found.whole.value


def test_a_published_cell_is_taken_apart(
    table: Paths, profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["ablate", "--published", *map(str, table), "--profile", profile]
    arguments += ["--replications", "2", "--json"]
    chosen = ["--mechanism", "batch-end completion", "--mechanism", "stage times of its own"]
    assert pdvsim([*arguments, *chosen, "--concurrency", "8"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["first"], document["second"]) == ("PD", "PDV")
    assert {part["mechanism"] for part in document["parts"]} == {*chosen[1::2], "everything else"}
    assert pdvsim([*arguments, *chosen, "--concurrency", "7"]) == 2
    assert "no PD at C = 7" in capsys.readouterr().err


def test_a_table_that_is_not_of_one_piece_is_one_sentence(
    table: Paths, profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary, detailed = (path.read_text() for path in table)
    lines = detailed.splitlines(keepends=True)
    damaged = {
        "unknown engine 'ABC'": (summary.replace("PDV,1,", "ABC,1,"), detailed),
        "which": (summary.replace("PDV,128,", "PDV,127,"), detailed),
        "not of the form req_0007": (summary, detailed.replace("req_0001", "first", 1)),
        "yields 1 to 4": (summary, detailed.replace(",20\n", ",2\n", 1)),
        "two are needed to calibrate it": (summary, "".join(lines[:1] + lines[3:])),
        "must be a number above 0": (summary.replace("PD,1,", "PD,1,-", 1), detailed),
        "missing column": (summary, detailed.replace("RequestID", "Id")),
        "not": (summary.replace("PD,4,", "PD,four,", 1), detailed),
    }
    for says, texts in damaged.items():
        paths = [tmp_path / "s.csv", tmp_path / "d.csv"]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        assert pdvsim(["reproduce", *map(str, paths), "--profile", profile]) == 2, says
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1


@pytest.mark.parametrize("concurrency", ["0", "-3", "100001"])
def test_a_concurrency_that_cannot_be_is_named_by_its_row(
    concurrency: str, table: Paths, tmp_path: Path
) -> None:
    path = tmp_path / "summary.csv"
    path.write_text(table[0].read_text().replace("PD,1,", f"PD,{concurrency},", 1))
    with pytest.raises(InputError, match=f"row 2, column Concurrency: {concurrency} is not"):
        read(path)


def test_the_audit_of_a_published_table(table: Paths) -> None:
    """What was put into it is found, and nothing else is called an error."""
    report = audit(read(*table))
    errors = {f.rule: set(f.cells) for f in report.findings if f.severity is Severity.ERROR}
    cut = {f"{engine} @ {load}" for engine in ("PD", "PDV") for load in (32, 64, 128)}
    assert errors.keys() == {"truncation", "survivorship", "overload", "samples"}
    assert errors["truncation"] == errors["survivorship"] == errors["overload"] == cut
    assert errors["samples"] == {"PD @ 1", "PD @ 2", "PDV @ 1", "PDV @ 2", "PD @ 128"}


@pytest.mark.parametrize(
    ("memory_mib", "says"),
    [(2000, "the weights alone take"), (67_500, "tinyllama-1.1b:codellama-34b")],
)
def test_memory_that_a_pair_cannot_take_is_found(
    memory_mib: int, says: str, tmp_path: Path
) -> None:
    paths = write_published_table(tmp_path, (1, 2), memory_mib=memory_mib)
    (finding,) = [f for f in audit(read(*paths)).findings if f.rule == "memory"]
    assert finding.severity is Severity.ERROR and says in finding.message


def test_what_the_audit_counts_is_what_was_made_up(table: Paths) -> None:
    report = audit(read(*table))
    by_rule = {f.rule: f for f in report.findings if f.severity is Severity.ERROR}
    assert by_rule["truncation"].evidence["time_limit_s"] == pytest.approx(60.0, abs=0.1)
    assert max(by_rule["overload"].evidence["rate_per_s"]) == 6.4  # type: ignore[type-var]
    survivors = by_rule["survivorship"]
    index = survivors.cells.index("PD @ 128")
    assert survivors.evidence["offered"][index] == 203  # type: ignore[index]


def test_rows_that_differ_and_cannot_or_do_not_and_must(table: Paths, tmp_path: Path) -> None:
    """One request takes other tokens in one run; one engine has one throughput at three loads."""
    summary, detail = table
    changed = []
    for line in detail.read_text().splitlines():
        fields = line.split(",")
        if fields[:3] == ["PDV", "8", "req_0003"]:
            fields[-2:] = ["56", "22"] if fields[-2:] != ["56", "22"] else ["52", "22"]
        changed.append(",".join(fields))
    rows = []
    for line in summary.read_text().splitlines():
        fields = line.split(",")
        if fields[0] == "PDV" and fields[1] in ("1", "2", "4"):
            fields[2] = "11.78"
        rows.append(",".join(fields))
    paths = tmp_path / "TinyLlama-TinyLlama_summary.csv", tmp_path / "detail.csv"
    for path, lines in zip(paths, (rows, changed), strict=True):
        path.write_text("\n".join(lines) + "\n")
    findings = audit(read(*paths)).findings
    assert any("req_0003" in str(f.evidence) for f in findings if f.rule == "same_requests")
    (alike,) = [f for f in findings if f.rule == "identical"]
    assert alike.cells == ("PDV @ 1", "PDV @ 2", "PDV @ 4")
    assert alike.severity is Severity.WARNING
