"""What requests that bring no prompt are given."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("transformers")

from pdvsim.core import EAGER, GRAPH, Request
from realengine import toy
from realengine.build import Demand, open_engine
from realengine.checkpoint import runnable_pair
from realengine.prompts import Prompts, prompts_for


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
