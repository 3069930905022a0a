"""What requests that bring no prompt are given."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("transformers")

from pdvsim.cell import PromptFile
from pdvsim.core import EAGER, GRAPH, Request
from pdvsim.errors import InputError
from realengine import toy
from realengine.build import Demand, open_engine
from realengine.checkpoint import runnable_pair
from realengine.prompts import Prompts, prompts_for
from realengine.tokenizer import tokenized


def test_a_prompt_depends_on_seed_and_request_alone() -> None:
    first, again, other = (Prompts(50, seed).of(Request(5, 12, 1)) for seed in (0, 0, 1))
    assert first == again != other and len(first) == 12 and max(first) < 50
    assert Prompts(50).of(Request(6, 12, 1)) != first
    assert Prompts(50).of(Request(5, 2, 1, prompt=[7, 8])) == [7, 8]


@pytest.mark.parametrize("executor", [EAGER, GRAPH], ids=lambda executor: executor.name)
@pytest.mark.parametrize("pair", ["toy", "toy-draft:TOY-VERIFIER", f"{toy.DRAFT}:{toy.VERIFIER}"])
def test_the_toy_pair_gets_its_text_however_it_is_referred_to(pair: str, executor) -> None:
    opened = open_engine(pair, executor, "cpu", Demand(2, 2, 64))
    assert opened.prompts.kind == "passages of the toy pair's text"
    assert bytes(opened.prompts.of(Request(0, 60, 1))) == toy.corpus()[:60]


def test_every_other_pair_gets_random_tokens() -> None:
    _, verifier = runnable_pair("tiny:tiny")
    assert prompts_for(verifier, 256, 0).kind == "random tokens"
    assert prompts_for(replace(verifier, folder=toy.DRAFT), 256, 0).kind == "random tokens"


@pytest.mark.parametrize("executor", [EAGER, GRAPH], ids=lambda executor: executor.name)
def test_prompts_of_a_file_are_taken_in_turn_by_both_engines(executor, tmp_path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("The import\nclass\n")
    given = tokenized(PromptFile.of(path), runnable_pair("toy")[1])
    opened = open_engine("toy", executor, "cpu", Demand(2, 2, 64), given)
    assert opened.prompts.kind == "prompts of p.txt"
    said = [bytes(opened.prompts.of(Request(i, n, 1))) for i, n in enumerate((10, 5, 10))]
    assert said == [b"The import", b"class", b"The import"]
    with pytest.raises(InputError, match="request 3 has a prompt of 5 tokens and says 9"):
        opened.prompts.of(Request(3, 9, 1))
