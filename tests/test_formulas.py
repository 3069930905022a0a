"""Closed forms against known values, each other, and the simulation."""

from __future__ import annotations

from math import inf, isclose

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdvsim.acceptance import Acceptance
from pdvsim.core import Stage
from pdvsim.des import simulate
from pdvsim.errors import InputError
from pdvsim.theory import formulas as f
from pdvsim.work import Work
from pdvsim.workload import Lengths, poisson
from tests.fakes import config_of

shares = st.floats(0.0, 1.0)
times = st.floats(1e-4, 10.0)


@given(shares, st.integers(1, 16))
def test_expected_tokens_agrees_with_the_acceptance_distribution(a: float, g: int) -> None:
    accepted = Acceptance.constant(a, g).distribution() @ np.arange(g + 1)
    assert isclose(f.expected_tokens(a, g), 1 + accepted, rel_tol=1e-6)


def test_leviathan_published_example() -> None:
    # Leviathan et al. 2023, table 1 (a = 0.8, g = 5, c = 0 -> 3.69x).
    assert f.leviathan_speedup(0.8, 5, 0.0) == pytest.approx(3.69, abs=0.005)


@given(shares, st.integers(0, 8), times, times)
def test_magicdec_is_leviathan_when_verifying_costs_a_decode(
    a: float, g: int, draft_s: float, decode_s: float
) -> None:
    token_s = f.magicdec_token_time_s(a, g, draft_s, decode_s)
    assert isclose(decode_s / token_s, f.leviathan_speedup(a, g, draft_s / decode_s), rel_tol=1e-9)


@given(shares, st.integers(0, 8), st.integers(1, 256), st.floats(0, 4096), times, times)
def test_turbospec_is_batch_over_magicdec_time(
    a: float, g: int, batch: int, context: float, draft_s: float, verify_s: float
) -> None:
    draft, verify = f.BatchTime(1e-9, 0, draft_s), f.BatchTime(2e-9, 1e-6, verify_s)
    cached = batch * context
    token_s = f.magicdec_token_time_s(a, g, draft(cached, batch), verify(cached, batch * (g + 1)))
    goodput = f.turbospec_goodput(a, g, batch, context, draft, verify)
    assert isclose(goodput, batch / token_s, rel_tol=1e-9)


@given(times, st.floats(0, 0.99), times)
def test_kong_solves_its_own_fixed_point(c1: float, busy: float, c2: float) -> None:
    rate = busy / c2
    latency = f.kong_latency_s(c1, rate, c2)
    assert isclose(latency, c1 + rate * latency * c2, rel_tol=1e-6)


def test_beyond_capacity_latency_is_infinite() -> None:
    assert f.kong_latency_s(1.0, 2.0, 0.5) == inf
    assert f.mg1_response_s(2.0, 0.5, 1.0) == inf


def test_overlap_bound_takes_the_binding_resource() -> None:
    lanes = [f.LaneWork(2.0, 1e12, 1e12), f.LaneWork(1.0, 1e12, 3e12)]
    assert f.overlap_bound_s(lanes, 1e15, 1e15) == 2.0
    assert f.overlap_bound_s(lanes, 1e15, 1e12) == 4.0
    assert f.overlap_bound_s(lanes, 1e11, 1e12) == 20.0


@given(times, st.floats(0.01, 0.95))
def test_mg1_with_exponential_service_is_mm1(service_s: float, busy: float) -> None:
    expected = service_s / (1 - busy)
    assert isclose(f.mg1_response_s(busy / service_s, service_s, 1.0), expected, rel_tol=1e-9)


class _Constant:
    def cost(self, stage: Stage, work: Work) -> tuple[float, float]:
        return 0.0, 0.01


def test_mg1_matches_a_simulated_single_lane() -> None:
    # One output token: two prefills, then one round of four stages, 10 ms each.
    workload = poisson(
        10.0, 6000, Lengths(8, 1), Acceptance.constant(1.0, 2), np.random.SeedSequence(3)
    )
    record = simulate(config_of("baseline", draft_tokens=2), workload, _Constant())
    responses = [r.completed_s - r.arrival_s for r in record.requests if r.completed_s is not None]
    assert np.mean(responses) == pytest.approx(f.mg1_response_s(10.0, 0.06, 0.0), rel=0.06)


@given(st.integers(1, 40), st.integers(1, 6), times)
def test_mva_of_a_balanced_network(population: int, stations: int, demand: float) -> None:
    network = f.closed_mva([demand] * stations, population)
    assert isclose(
        network.throughput, population / (population + stations - 1) / demand, rel_tol=1e-9
    )


@given(st.lists(times, min_size=1, max_size=5), st.integers(1, 60), st.floats(0, 5))
def test_mva_keeps_littles_law_and_the_bottleneck_bound(
    demands: list[float], population: int, think_s: float
) -> None:
    network = f.closed_mva(demands, population, think_s)
    assert isclose(sum(network.queues) + network.throughput * think_s, population, rel_tol=1e-9)
    assert network.throughput <= (1 + 1e-9) / max(demands)


@pytest.mark.parametrize(
    "call",
    [
        lambda: f.expected_tokens(1.2, 4),
        lambda: f.expected_tokens(0.5, -1),
        lambda: f.mg1_response_s(1.0, 0.0, 0.0),
        lambda: f.closed_mva([], 3),
        lambda: f.closed_mva([1.0], 0),
        lambda: f.overlap_bound_s([], 1.0, 1.0),
        lambda: f.kong_latency_s(0.0, 1.0, 1.0),
    ],
)
def test_what_cannot_be_is_refused(call: object) -> None:
    with pytest.raises(InputError):
        call()  # type: ignore[operator]
