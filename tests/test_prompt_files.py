"""Files of prompts: what is read, what is refused, and lengths that are replayed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pdvsim import cli
from pdvsim.cell import Cell, PromptFile, with_prompts
from pdvsim.errors import InputError
from pdvsim.machine import plan_of
from pdvsim.prompt_file import read_prompts
from tests.fakes import profile_file

Bench = Callable[..., dict[str, Any]]
CELL = Cell("toy-draft:toy-verifier", "graph", "pd", 3, output_tokens=8)


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_text_has_a_prompt_a_line(tmp_path: Path) -> None:
    path = put(tmp_path / "p.txt", "one\n\n  two \r\nthree")
    found = read_prompts(PromptFile.of(path))
    assert [(prompt.line, prompt.said) for prompt in found] == [
        (1, "one"), (3, "  two "), (4, "three")
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["p.jsonl", "p.ndjson", "no_suffix", "p.txt"])
def test_json_lines_are_told_by_suffix_or_first_line(name: str, tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "hello"}]
    lines = [{"prompt": "a", "max_tokens": 3}, {"text": "b"}, {"messages": talk}]
    path = put(tmp_path / name, "\n".join(map(json.dumps, lines)))
    assert [prompt.said for prompt in read_prompts(PromptFile.of(path))] == ["a", "b", talk]


def test_text_that_begins_with_a_brace_is_text(tmp_path: Path) -> None:
    path = put(tmp_path / "p.txt", "{ int x; }\n[1, 2]\n")
    assert [prompt.line for prompt in read_prompts(PromptFile.of(path))] == [1, 2]


WRONG = [
    ("p.txt", "", "p.txt: holds no prompt; a file of prompts, text with one a line or JSON"),
    ("p.txt", " \n\n", "holds no prompt"),
    ("p.txt", b"\xff\xfe\x00a", "not UTF-8 text"),
    ("p.txt", b"\x00\x01\x02", "not text, but binary"),
    ("p.jsonl", '{"prompt": "a"}\n{"prompt": ', "line 2: not a whole JSON document"),
    ("p.jsonl", '{"prompt": "a"}\n[1]', "line 2: not an object with one of the keys prompt, text"),
    ("p.jsonl", '{"question": "a"}', "line 1: needs exactly one of the keys prompt, text, messag"),
    ("p.jsonl", "{}", "it has nothing"),
    ("p.jsonl", '{"prompt": "a", "text": "b"}', "needs exactly one of"),
    ("p.jsonl", '{"prompt": [1, 2]}', "line 1: 'prompt' is no text"),
    ("p.jsonl", '{"messages": []}', "line 1: 'messages' is not a list of objects"),
    ("p.jsonl", '{"messages": [{"role": "user"}]}', "with the texts 'role' and 'content'"),
]


@pytest.mark.parametrize(("name", "content", "complaint"), WRONG)
def test_what_is_no_file_of_prompts_is_a_sentence(
    name: str, content: str | bytes, complaint: str, tmp_path: Path
) -> None:
    path = put(tmp_path / name, content)
    with pytest.raises(InputError) as refused:
        read_prompts(PromptFile.of(path))
    assert complaint in str(refused.value) and "\n" not in str(refused.value)


def test_what_is_no_file_is_a_sentence(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, complaint in (
        ("", "Is a directory"),
        ("pipe", "can be read once only; write it to a file first"),
        ("none.txt", "No such file"),
    ):
        with pytest.raises(InputError, match=f"cannot read the file of prompts .*{complaint}"):
            PromptFile.of(tmp_path / name)


def test_a_changed_file_is_noticed_and_is_another_cell(tmp_path: Path) -> None:
    first = PromptFile.of(put(tmp_path / "p.txt", "one"))
    second = PromptFile.of(put(tmp_path / "p.txt", "two"))
    with pytest.raises(InputError, match="have changed since"):
        read_prompts(first)
    cells = [replace(CELL, prompts=file) for file in (first, second)]
    assert len({*cells, CELL}) == len({cell.file_name for cell in (*cells, CELL)}) == 3


def test_counted_prompts_are_taken_in_turn_and_say_the_mean_length() -> None:
    cell = with_prompts(CELL, PromptFile("p.txt", "0", (5, 9, 40)))
    assert cell.prompt_tokens == 18
    assert Cell.read(json.loads(json.dumps(cell.to_dict()))) == cell
    plan = plan_of(replace(cell, spread=0.5), 1)
    assert list(plan.prompt_tokens[:7]) == [5, 9, 40, 5, 9, 40, 5]
    assert len(set(plan.output_tokens)) > 1
    with pytest.raises(InputError, match="--prompts brings its own lengths, 18 tokens on average"):
        replace(cell, prompt_tokens=20)
    with pytest.raises(InputError, match="give --prompts the document that bench -o wrote"):
        plan_of(replace(CELL, prompts=PromptFile("p.txt", "0")), 0)


@pytest.mark.parametrize("tokens", [(), (0,), (1_000_001,)])
def test_lengths_that_no_prompt_has_are_refused(tokens: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="have from 1 to 1,000,000 tokens each"):
        PromptFile("p.txt", "0", tokens)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--prompt-tokens 9", "--prompts brings its own lengths; leave --prompt-tokens out"),
        ("--protocol trace --trace x", "--prompts is only for the protocols closed-loop and poi"),
        ("", "is not known before pdvsim bench has counted them"),
    ],
)
def test_a_prediction_takes_lengths_alone(
    words: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = put(tmp_path / "p.txt", "one\n")
    assert cli.run(["predict", "--prompts", str(path), *words.split()]) == 2
    said = capsys.readouterr().err
    assert complaint in said and said.count("\n") == 1


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    """A short run of the toy pair on the CPU."""
    pytest.importorskip("transformers")

    def call(path: Path, *words: str, pair: str = "toy", expected: int = 0) -> Any:
        code = cli.run(
            [
                *("bench", "--device", "cpu", "--pair", pair, "--concurrency", "2", "--json"),
                *("--architecture", "pd", "--requests", "6", "--output-tokens", "8"),
                *("--prompts", str(path), "-o", str(tmp_path / "bench.json"), *words),
            ]
        )
        printed = capsys.readouterr()
        assert code == expected, printed.err
        if expected:
            lines = [line for line in printed.err.splitlines() if line.startswith("pdvsim:")]
            assert len(lines) == 1 and "Traceback" not in printed.err
            return lines[0]
        return json.loads(printed.out)

    return call


@pytest.mark.parametrize("executor", ["eager", "graph"])
@pytest.mark.parametrize("acceptance", ["real", "0.7"])
def test_both_executors_run_the_same_prompts(
    executor: str, acceptance: str, bench: Bench, tmp_path: Path
) -> None:
    path = put(tmp_path / "p.txt", "The import statement\nA class definition is\n\nHéllo\n")
    document = bench(path, "--executor", executor, "--acceptance", acceptance)
    (row,) = document["cells"]
    assert row["cell"]["prompts"]["tokens"] == [20, 21, 6]  # bytes
    assert row["cell"]["prompt_tokens"] == 16
    said = "Prompts: the 3 of p.txt in turn, 6 to 21 tokens, 16 on average."
    assert said in document["notes"]
    if acceptance == "real":
        assert document["machine"]["acceptance"] == "real tokens, of prompts of p.txt"


def test_measured_lengths_are_replayed_by_predictions(
    bench: Bench, tmp_path: Path, profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bench(put(tmp_path / "p.txt", "The import statement\nA class definition\n"))
    (tmp_path / "p.txt").unlink()
    words = ["--concurrency", "2", "--architecture", "pd", "--replications", "2", "--json"]
    counted = ["--prompts", str(tmp_path / "bench.json"), "--profile", profile]
    assert cli.run(["predict", *words, *counted]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["cells"][0]["cell"]["prompts"]["tokens"] == [20, 18]
    assert "Prompts: the 2 of p.txt in turn, 18 to 20 tokens, 19 on average." in document["notes"]
    other = tmp_path / "predict.json"
    other.write_text(json.dumps({**document, "cells": [], "ranks": []}))
    assert cli.run(["predict", *words, "--prompts", str(other)]) == 2
    assert "is a document of pdvsim bench that ran one file of prompts" in capsys.readouterr().err


def test_what_does_not_fit_is_refused_by_line_length_and_model(
    bench: Bench, tmp_path: Path
) -> None:
    path = put(tmp_path / "p.txt", "short\n" + 1100 * "x" + "\n")
    said = bench(path, expected=2)
    assert "p.txt, line 2: a prompt of 1,100 tokens and 8 of output do not fit the context" in said
    assert "toy-draft (1,024)" in said


@pytest.mark.parametrize(
    ("content", "pair", "complaint"),
    [
        ('{"messages": [{"role": "user", "content": "a"}]}', "toy", "line 1: the toy models know"),
        ("words", "tiny:tiny", "needs the tokenizer of a checkpoint; tiny is a shape with random"),
    ],
)
def test_prompts_that_a_verifier_cannot_read_are_refused(
    content: str, pair: str, complaint: str, bench: Bench, tmp_path: Path
) -> None:
    assert complaint in bench(put(tmp_path / "p.jsonl2", content), pair=pair, expected=2)


@pytest.mark.parametrize(("name", "content", "complaint"), WRONG)
def test_a_bench_of_no_prompts_ends_with_a_sentence(
    name: str, content: str | bytes, complaint: str, bench: Bench, tmp_path: Path
) -> None:
    assert complaint in bench(put(tmp_path / name, content), expected=2)


def test_a_validation_replays_the_lengths_without_the_file(bench: Bench, tmp_path: Path) -> None:
    from calibration.validate import validate
    from pdvsim.measured.benched import read_bench
    from pdvsim.profile import Profile

    path = put(tmp_path / "p.txt", "The import statement\nA class definition\n")
    bench(path, "--acceptance", "0.7")
    path.unlink()
    profile = Profile(profile_file("toy", "graph"))
    document = validate([read_bench(tmp_path / "bench.json")], profile, 2)
    (row,) = document.cells
    assert row.cell is not None and row.cell.prompts is not None
    assert row.cell.prompts.tokens == (20, 18)
    assert row.length.requests >= 6  # type: ignore[operator]


WORDS = ["<s>", "<unk>", "the", "a", "is", "user", "assistant", ":", "import", "class"]
TEMPLATE = "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} {% endfor %}assistant :"


def give_tokenizer(folder: Path, template: str | None) -> None:
    """A tokenizer of a few words that begins every text with `<s>`."""
    tokenizers = pytest.importorskip("tokenizers")
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    whole = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", unk_token="<unk>")
    whole.chat_template = template
    whole.save_pretrained(folder)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["eager", "graph"])
def test_a_checkpoints_own_tokenizer_reads_texts_and_conversations(
    executor: str, bench: Bench, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    from tests.checkpoints import FAMILIES, make_checkpoint

    folder = make_checkpoint(tmp_path / "model", FAMILIES["llama-2"])
    talk = json.dumps({"messages": [{"role": "user", "content": "the class"}]})
    path = put(tmp_path / "p.jsonl", '{"prompt": "the import is"}\n' + talk)
    words = ("--executor", executor, "--acceptance", "real")
    assert "transformers finds no tokenizer of model" in bench(
        path, *words, pair=f"{folder}:{folder}", expected=2
    )
    give_tokenizer(folder, None)
    assert "line 2: the tokenizer of model has no chat template" in bench(
        path, *words, pair=f"{folder}:{folder}", expected=2
    )
    give_tokenizer(folder, "{{ raise_exception('no talk\ntoday') }}")
    assert "line 2: the tokenizer cannot read it (no talk today)" in bench(
        path, *words, pair=f"{folder}:{folder}", expected=2
    )
    give_tokenizer(folder, TEMPLATE)
    (row,) = bench(path, *words, pair=f"{folder}:{folder}")["cells"]
    # <s> the import is; user : the class assistant : (and what the template begins with, nothing)
    assert row["cell"]["prompts"]["tokens"] == [4, 6]
    # Both sides are one model, so all drafts are kept.
    assert row["metrics"]["spec_decode_acceptance_rate"]["value"] > 0.9


def test_prompts_with_tokens_beyond_the_shared_vocabulary_are_refused() -> None:
    pytest.importorskip("transformers")
    from realengine.tokenizer import Tokenized

    given = Tokenized(PromptFile("p.txt", "0", (2, 2)), (1, 5), ((1, 2), (3, 99)))
    given.check_vocabulary(100)
    with pytest.raises(InputError, match=r"p\.txt, line 5: has the token 99; the models share"):
        given.check_vocabulary(99)
