"""Cancelled and failing requests, missing pages and missing memory: every request ends once, all
pages come back, and the others' tokens are the verifier's own."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

pytest.importorskip("transformers")

from fault_runs import (
    CHANGING,
    COUNT,
    DRAFTERS,
    KINDS,
    Faults,
    ShortCpu,
    ShortCuda,
    alike,
    alone,
    check_ends,
    graph_engine,
    run_with_faults,
)

from pdvsim.architectures import ARCHITECTURES
from pdvsim.core import EAGER
from realengine.device import open_device, torch_device
from realengine.eager import EagerEngine
from realengine.prompts import Prompts
from tests.test_real_eager import DEVICES, SHAPES, noisy_pair

NAMES = [*sorted(ARCHITECTURES), CHANGING]


@cache
def expected(seed: int, device: str) -> list[list[int]]:
    return alone(graph_engine("none", open_device(device), 1), seed)


@pytest.mark.slow
@pytest.mark.parametrize("name_of_device", DEVICES)
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_faults_of_batches_end_every_request_once_and_leak_nothing(
    drafter: str, name_of_device: str
) -> None:
    cuda = name_of_device == "cuda"
    device = ShortCuda(torch_device("cuda")) if cuda else ShortCpu()
    engine = graph_engine(drafter, device)
    seen: Counter[str] = Counter()
    for i, name in enumerate(NAMES):
        seed = i % 2
        device.faults = faults = Faults(i)
        world, failing = run_with_faults(engine, engine.executor, name, seed, faults)
        seen["whole"] += check_ends(world, failing)["whole"]
        device.align()
        assert engine.free_pages == engine.pages
        assert alike(world.source.released_requests, expected(seed, name_of_device)) == COUNT
        seen += faults.seen
    kinds = {what.rpartition(": ")[2] for what in seen}
    assert kinds == {*KINDS, "cancelled", "whole"} and seen["whole"] > COUNT, seen


@pytest.mark.slow
def test_faults_of_single_requests_end_them_once_and_leak_nothing() -> None:
    device, shape = ShortCpu(), SHAPES[0]
    engine = EagerEngine(*noisy_pair(shape, "cpu"), device, Prompts(shape.vocabulary), 4)
    for seed, name in enumerate(NAMES):
        device.faults = faults = Faults(seed, 0.005)
        world, failing = run_with_faults(engine, EAGER, name, seed, faults)
        check_ends(world, failing)
        assert not engine._states
