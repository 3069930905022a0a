"""The KV cache limits who is in service, in both worlds alike, and what never fits is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdvsim.acceptance import Acceptance
from pdvsim.architectures import ARCHITECTURES
from pdvsim.cell import AUTO
from pdvsim.cli import run as pdvsim
from pdvsim.core import EAGER, GRAPH, Request, Stage
from pdvsim.des import simulate
from pdvsim.errors import CapacityError
from pdvsim.gpu_memory import GpuMemory
from pdvsim.gpus import gpus
from pdvsim.invariants import check
from pdvsim.kv_cache import KvCache, Pages
from pdvsim.models import pair
from pdvsim.profile import load_profile
from pdvsim.records import RunRecord
from pdvsim.spans import Spans
from pdvsim.workload import Lengths, closed_loop, poisson
from realengine.graph.admission import Admission
from realengine.graph.paged import PagePool
from realengine.world import run
from tests.engines import ScriptedEngine
from tests.fakes import FixedCosts, TableCosts, config_of

H100 = GpuMemory(
    "NVIDIA H100 80GB HBM3",
    gpus()["h100"].memory_bytes,
    pair("tinyllama-1.1b:llama-2-7b"),
    GRAPH,
)
ACCEPTANCE = Acceptance.constant(0.7, 4)


def small(pages: int) -> KvCache:
    return KvCache(pages, 16, token_bytes=8, overrun_tokens=4, longest_tokens=10_000)


@given(
    pages=st.integers(4, 40),
    steps=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60), st.booleans()), max_size=60),
)
def test_the_simulation_admits_whom_the_engine_admits(
    pages: int, steps: list[tuple[int, int, bool]]
) -> None:
    cache = small(pages)
    engine, simulated = Admission(PagePool(cache, 1000), 10**6), Pages(cache, Request(-1, 60, 60))
    held: list[Request] = []
    for i, (prompt, output, leaves) in enumerate(steps):
        request = Request(i, prompt, output)
        fits = simulated.room([request])
        assert engine.fits([request]) is fits
        if fits and cache.refusal(prompt, output) is None:
            engine.admit([request])
            simulated.take([request])
            held.append(request)
        if leaves and held:
            gone = held.pop(0)
            engine.release(gone)
            simulated.give_back(gone)
        assert engine.free_pages == simulated.free


def most_pages(record: RunRecord, cache: KvCache) -> int:
    """Pages held at once, at most."""
    moments = []
    for request in record.requests:
        if request.admitted_s is not None:
            pages = cache.pages_for(cache.reserved_tokens(request))
            moments += [(request.admitted_s, 1, pages)]
            if request.completed_s is not None:
                moments += [(request.completed_s, 0, -pages)]  # free before it is taken
    return int(np.cumsum([pages for _, _, pages in sorted(moments)]).max())


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(ARCHITECTURES)),
    extra=st.integers(0, 12),
    prefill_batch=st.just(AUTO) | st.integers(1, 4),
    closed=st.booleans(),
    spread=st.sampled_from([0.0, 0.9]),
    seed=st.integers(0, 100),
)
def test_no_more_is_held_than_there_is_and_everybody_is_served(
    name: str, extra: int, prefill_batch: int, closed: bool, spread: float, seed: int
) -> None:
    lengths, seeds = Lengths(40, 20, spread), np.random.SeedSequence(seed)
    workload = (
        closed_loop(8, lengths, ACCEPTANCE, seeds, 2)
        if closed
        else poisson(500.0, 24, lengths, ACCEPTANCE, seeds)
    )
    cache = small(8 + extra)  # the longest need 8
    config = config_of(name, GRAPH, 8, prefill_batch=prefill_batch, workers=2)
    record = simulate(config, workload, FixedCosts(1e-4, 1e-3), kv_cache=cache)
    check(record)
    assert 0 < most_pages(record, cache) <= cache.pages
    done = sum(request.completed_s is not None for request in record.requests)
    assert done >= (workload.stop_after or len(workload))


@pytest.mark.parametrize("world", ["simulated", "real"])
def test_both_worlds_tell_when_memory_keeps_requests_out(world: str) -> None:
    cache = small(8)
    workload = closed_loop(4, Lengths(40, 20), ACCEPTANCE, np.random.SeedSequence(1), 1)
    config = config_of("pd", GRAPH, 4)
    costs = TableCosts(dict.fromkeys(Stage, 1e-3))
    if world == "real":
        record = run(config, workload, ScriptedEngine(GRAPH, 4, costs, cache))
    else:
        record = simulate(config, workload, costs, kv_cache=cache)
    check(record)
    full, shut = Spans(*record.full_s.T), Spans(*record.shut_s.T)
    assert 0.5 * record.end_s < full.length_s <= shut.length_s


def test_a_cache_that_holds_all_is_no_limit() -> None:
    workload = closed_loop(32, Lengths(128, 64), ACCEPTANCE, np.random.SeedSequence(0))
    assert H100.for_run(workload, 32, 4) is None
    many = closed_loop(256, Lengths(1024, 256), ACCEPTANCE, np.random.SeedSequence(0))
    cache = H100.for_run(many, 256, 4)
    assert cache is not None
    assert 80 <= cache.pages // cache.pages_for(1024 + 256 + 4) <= 95


def test_an_eager_engine_has_no_pages_and_refuses_before_it_begins() -> None:
    eager = GpuMemory(H100.gpu, H100.total_bytes, H100.pair, EAGER)
    assert eager.check(32, 4, 128, 64) is None
    with pytest.raises(CapacityError, match=r"256 requests of 1,284 tokens need [\d,]+ bytes"):
        eager.check(256, 4, 1024, 256)


def test_weights_beyond_the_gpu_are_refused_with_the_bytes() -> None:
    large = GpuMemory("a small GPU", 10 * 10**9, H100.pair, GRAPH)
    said = r"the weights of tinyllama-1.1b:llama-2-7b take 15,[\d,]+ bytes; a small GPU has 10,000"
    with pytest.raises(CapacityError, match=said):
        large.check(1, 4, 16, 16)


def test_a_request_of_more_pages_than_there_are_is_refused_with_the_bytes() -> None:
    tight = GpuMemory("a GPU", 24 * 10**9, H100.pair, GRAPH)
    said = r"needs 3000 prompt \+ 900 output tokens, 2,033.8 MiB of KV cache; the cache takes"
    with pytest.raises(CapacityError, match=said):
        tight.check(1, 4, 3000, 900)


def test_profiles_know_the_memory_of_their_cards() -> None:
    memory = load_profile("h100_tinyllama-1.1b_llama-2-7b_graph").memory
    assert memory == H100


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            "--concurrency 4 --prompt-tokens 8000 --output-tokens 200",
            "do not fit the context of tinyllama-1.1b (2,048) and llama-2-7b (4,096)",
        ),
        (
            "--architecture plain --prompt-tokens 8000 --output-tokens 200",
            "do not fit the context of llama-2-7b (4,096): no engine can run them",
        ),
        (
            "--executor eager --concurrency 512 --prompt-tokens 1024",
            "bytes of KV cache",
        ),
    ],
)
@pytest.mark.parametrize("command", ["predict", "explain", "ablate"])
def test_what_never_fits_is_one_sentence(
    command: str, options: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--architecture" not in options:
        options += " --architecture pd"
    assert pdvsim([command, *options.split()]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def predicted(options: str, capsys: pytest.CaptureFixture[str]) -> Any:
    assert pdvsim(["predict", *options.split(), "--replications", "2", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_concurrency_that_is_never_reached_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    found = predicted(
        "--architecture pd --concurrency 256 --prompt-tokens 1024 --output-tokens 64", capsys
    )
    (row,) = found["cells"]
    (said,) = [note for note in found["notes"] if "was asked for" in note]
    assert said.startswith(
        "C = 256 was asked for; the KV cache holds 104 such requests: mean batch"
    )
    assert row["metrics"]["mean_batch"]["value"] < 104


def test_runs_of_what_the_cache_does_not_hold_are_not_cut_within_a_wave(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = "--architecture plain --concurrency 256 --prompt-tokens 512 --output-tokens 64"
    short, long = (
        predicted(f"{options}{more}", capsys)["cells"][0]["metrics"]["output_throughput"]["value"]
        for more in ("", " --cycles 4")
    )
    assert short == pytest.approx(long, rel=0.03)


def test_prompts_one_at_a_time_keep_the_batch_small_and_that_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = "--architecture plain --concurrency 128 --prefill-batch 1"
    (said,) = [note for note in predicted(one, capsys)["notes"] if "was asked for" in note]
    assert said.startswith(
        "C = 128 was asked for; prompts are prefilled 1 at a time: mean batch plain@prefill_batch"
    )
    free = predicted("--architecture plain --concurrency 128", capsys)
    assert not any("was asked for" in note for note in free["notes"])


def test_an_axis_that_ends_beyond_the_context_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert pdvsim(["crossover", "plain", "pd", "--over", "prompt-tokens", "--to", "4096"]) == 2
    assert "do not fit the context of" in capsys.readouterr().err
