"""The head that ships for the toy verifier: real acceptance, the verifier's own output."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from graph_driver import serve

from pdvsim.core import Drafter, Request
from realengine import toy
from realengine.graph import GraphConfig, GraphEngine, build_engine

CONFIG = GraphConfig(4, max_requests=8, max_context_tokens=160)


def served(reference: str, plain: bool = False) -> tuple[GraphEngine, list[Request]]:
    """What the toy verifier writes behind eight passages of its text."""
    engine = build_engine(reference, CONFIG, "cpu")
    requests = [Request(i, 64, 48) for i in range(8)]
    serve(engine, requests, plain=plain)
    return engine, requests


def kept_share(requests: list[Request]) -> float:
    return sum(r.accepted_tokens for r in requests) / sum(r.drafted_tokens for r in requests)


def test_its_drafts_are_kept_and_the_output_is_the_verifiers_own() -> None:
    engine, requests = served(f"{toy.HEAD}:toy-verifier")
    assert engine.executor.drafter is Drafter.EAGLE3
    _, plain = served("toy", plain=True)
    assert [r.tokens for r in requests] == [r.tokens for r in plain]
    _, random = served("eagle3:toy-verifier")
    assert kept_share(requests) > 0.4 > 0.15 > kept_share(random)


def test_it_is_small_enough_to_ship() -> None:
    assert sum(file.stat().st_size for file in Path(toy.HEAD).iterdir()) < 2e6
