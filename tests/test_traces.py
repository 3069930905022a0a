"""Traces in the formats that people publish, and what is said of rows that no request can have."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdvsim.cli import run as pdvsim
from pdvsim.errors import InputError
from pdvsim.traces import MAX_TOKENS, read_trace

CASES = Path(__file__).parent / "cases"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def put(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("file", "format", "count", "last_s"),
    [
        ("T01_sorted.csv", "Azure", 40, 3.9),
        ("T04_mooncake.jsonl", "Mooncake", 20, 9.5),
        ("T04_burstgpt.csv", "BurstGPT", 16, 9.0),
        ("T04_vidur.csv", "Vidur", 20, 9.5),
    ],
)
def test_published_formats_are_told_by_their_columns(
    file: str, format: str, count: int, last_s: float
) -> None:
    trace = read_trace(CASES / file)
    assert (trace.format, len(trace)) == (format, count)
    assert trace.arrival_s[0] == 0.0 and trace.arrival_s[-1] == pytest.approx(last_s)
    assert set(trace.output_tokens) == {40}
    assert min(trace.prompt_tokens) in (300, 301)


def test_rows_out_of_order_are_the_same_trace() -> None:
    tidy, shuffled = (read_trace(CASES / f"T01_{name}.csv") for name in ("sorted", "shuffled"))
    assert shuffled.arrival_s == tidy.arrival_s
    assert shuffled.prompt_tokens == tidy.prompt_tokens
    assert tidy.notes == ()
    assert shuffled.notes == (
        "The rows of T01_shuffled.csv are not in order of time; they are taken in it.",
    )


def test_requests_without_output_are_left_out_and_counted() -> None:
    (note,) = read_trace(CASES / "T04_burstgpt.csv").notes
    assert note.startswith("4 of 20 requests of T04_burstgpt.csv have no prompt or no output")
    assert "the first is row 2" in note


def test_bailian_has_mooncakes_names_but_seconds(tmp_path: Path) -> None:
    line = '{"chat_id": %d, "timestamp": %s, "input_length": 5, "output_length": 6, "turn": 1}\n'
    trace = read_trace(put(tmp_path / "b.jsonl", line % (1, 61.25) + line % (2, 62.75)))
    assert (trace.format, trace.arrival_s) == ("Bailian", [0.0, 1.5])


def test_dates_of_both_azure_years(tmp_path: Path) -> None:
    year_23 = "2023-11-16 18:17:03.9799600,5,6\n2023-11-16 18:17:04.9799600,5,6\n"
    year_24 = "2024-05-10 00:00:00.5+00:00,5,6\n2024-05-10 00:00:02+00:00,5,6\n"
    assert read_trace(put(tmp_path / "a", AZURE + year_23)).arrival_s == pytest.approx([0, 1])
    assert read_trace(put(tmp_path / "b", AZURE + year_24)).arrival_s == pytest.approx([0, 1.5])
    with pytest.raises(InputError, match=r"row 3.*not a date and time like the first"):
        read_trace(put(tmp_path / "c", AZURE + "2023-11-16 18:17:03,5,6\n" + year_24))


def test_other_columns_are_mapped(tmp_path: Path) -> None:
    path = put(tmp_path / "m.csv", "when,in,out\n3000,5,6\n1000,7,8\n")
    columns = {"arrival_ms": "when", "prompt_tokens": "in", "output_tokens": "out"}
    trace = read_trace(path, columns)
    assert (trace.arrival_s, trace.prompt_tokens) == ([0.0, 2.0], [7, 5])
    for wrong in ({"arrival_ms": "when"}, {**columns, "arrival_s": "when"}):
        with pytest.raises(InputError, match="a map of a trace's columns"):
            read_trace(path, wrong)
    with pytest.raises(InputError, match="missing column nowhere"):
        read_trace(path, {**columns, "output_tokens": "nowhere"})


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("0,5,-1\n", "row 2, column num_decode_tokens: '-1' is not a number of tokens"),
        ("0,5,6\n1,-3,6\n", "row 3, column num_prefill_tokens"),
        (f"0,5,{MAX_TOKENS + 1}\n", "not a number of tokens"),
        ("0,5,1.5\n", "not a number of tokens"),
        ("0,many,6\n", "'many'"),
        ("0,,6\n", "nothing is not a number of tokens"),
        ("inf,5,6\n", "no time"),
        ("0,5,6\n1e12,5,6\n", "span"),
        ("0,5,0\n", "no request has both"),
        ("soon,5,6\n", "not a number, and not a date"),
    ],
)
def test_what_no_request_can_have_is_refused(rows: str, says: str, tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", "arrived_at,num_prefill_tokens,num_decode_tokens\n" + rows)
    with pytest.raises(InputError) as caught:
        read_trace(path)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "x,y\n1,2\n", "not a trace that I know; it has x, y. Known are: Azure"),
        ("a.csv", "TIMESTAMP,ContextTokens\n1,2\n", "missing column GeneratedTokens"),
        ("a.jsonl", "[1]\n", "not a JSON object"),
        ("a.jsonl", "{\n", "not a whole JSON document"),
        ("a.jsonl", "", "empty"),
        ("a.jsonl", "[" * 100_000, "deep"),
    ],
)
def test_files_that_are_no_trace(name: str, text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_trace(put(tmp_path / name, text))
    assert says in str(caught.value) and "\n" not in str(caught.value)


@given(st.permutations(range(12)))
def test_the_order_of_rows_says_nothing(order: list[int]) -> None:
    import tempfile

    lines = [f"{0.25 * i},{100 + i},{1 + i}\n" for i in order]
    with tempfile.TemporaryDirectory() as folder:
        path = put(
            Path(folder) / "t.csv", "arrival_s,prompt_tokens,output_tokens\n" + "".join(lines)
        )
        trace = read_trace(path)
    assert trace.prompt_tokens == list(range(100, 112))
    assert trace.output_tokens == list(range(1, 13))


@pytest.fixture
def predicted(capsys: pytest.CaptureFixture[str]) -> Any:
    """The prediction of a trace, from the shipped profile of an H100."""

    def predict(trace: str, *more: str) -> Any:
        options = "--protocol trace --concurrency 8 --replications 2 --json"
        assert pdvsim(["predict", "--trace", trace, *options.split(), *more]) == 0
        return json.loads(capsys.readouterr().out)

    return predict


def test_a_shuffled_trace_is_predicted_as_the_sorted_one(predicted: Any) -> None:
    tidy, shuffled = (
        predicted(str(CASES / f"T01_{name}.csv"), "--architecture", "baseline,pdv")
        for name in ("sorted", "shuffled")
    )
    metrics = [[row["metrics"] for row in document["cells"]] for document in (tidy, shuffled)]
    assert metrics[0] == metrics[1]
    first, second = (row["request_throughput"]["value"] for row in metrics[0])
    assert first == pytest.approx(9.7, abs=0.3) and second == pytest.approx(10.0, abs=0.3)
    assert any("not in order of time" in note for note in shuffled["notes"])
    assert not any("not in order of time" in note for note in tidy["notes"])
    together = "Prompts are prefilled together as far as 2,048 tokens hold them"
    assert any(note.startswith(together) for note in tidy["notes"])


def test_prompts_that_are_prefilled_one_at_a_time_are_said(predicted: Any) -> None:
    alone = predicted(
        str(CASES / "T01_sorted.csv"), "--architecture", "baseline,pdv", "--prefill-batch", "1"
    )
    told = "Prompts are prefilled one at a time: see --prefill-batch."
    assert told in alone["notes"]


def test_requests_that_no_model_can_take_are_named(predicted: Any) -> None:
    document = predicted(str(CASES / "T03_too_long.csv"), "--architecture", "baseline")
    (row,) = document["cells"]
    assert row["impossible"][0].startswith(
        "10 of 40 requests, of up to 9400 tokens with their output, do not fit the context of "
        "tinyllama-1.1b (2048) and llama-2-7b (4096)"
    )
    verdict = document["verdict"]
    assert verdict["validity"] == "invalid"
    assert verdict["caveats"][0] == "no engine can run baseline (listed below)"
    assert any(
        note.startswith("Impossible, baseline: 10 of 40 requests") for note in document["notes"]
    )


def test_columns_can_be_mapped_on_the_command_line(predicted: Any, tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", "when,in,out\n1000,300,40\n1500,301,40\n")
    columns = "arrival_ms=when,prompt_tokens=in,output_tokens=out"
    document = predicted(str(path), "--trace-columns", columns, "--architecture", "pd")
    assert document["cells"][0]["cell"]["trace"]["columns"] == columns


def test_a_pipe_is_refused_as_it_can_be_read_once_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/null")):
        assert pdvsim(["predict", "--protocol", "trace", "--trace", str(path)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and f"cannot read the trace {path}: " in said
        assert ("can be read once only; write it to a file first" in said) is (path != tmp_path)
