"""Open loops: waits against theory, overloads found, and runs as long as their tail needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import exp, factorial, log
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from pdvsim import cli
from pdvsim.cell import Cell
from pdvsim.core import Stage
from pdvsim.crossover.space import AXES, Place, Side, Simulated
from pdvsim.des import simulate
from pdvsim.documents.cells import Overload, Row
from pdvsim.open_loop import Wanted, drift, enough, excursions, is_open, long_enough
from pdvsim.quantities import QUANTILES, WITHOUT_END
from pdvsim.records import RunRecord
from pdvsim.results import ranked, row
from pdvsim.sweep import Run, evaluate, sweep
from pdvsim.verdict.overload import at_times, overloads
from pdvsim.workload import poisson
from tests.fakes import FakeModel, config_of
from tests.test_des_theory import ONE_DRAFT, ONE_TOKEN, RandomCosts, agree

CELL = Cell(
    "tiny:tiny",
    "graph",
    "plain",
    4,
    protocol="poisson",
    rate_per_s=1.0,
    prompt_tokens=8,
    output_tokens=8,
)


def queue(
    service: Callable[[np.random.Generator], float], load: float, seed: int, count: int = 4000
) -> RunRecord:
    """A run of a single server, whose services take 1 s on average."""
    plan, draws = np.random.SeedSequence(seed).spawn(2)
    rng = np.random.default_rng(draws)
    costs = RandomCosts({Stage.DECODE: lambda: service(rng)})
    workload = poisson(load, count, ONE_TOKEN, ONE_DRAFT, plan)
    return simulate(config_of("plain", batch_cap=1), workload, costs)


def in_system(
    service: Callable[[np.random.Generator], float], load: float, runs: int = 10
) -> dict[str, list[float]]:
    """Percentiles of the time in system of each run, seconds."""
    cell = Cell("a:b", "eager", "plain", 1, protocol="poisson", rate_per_s=1.0)
    metrics = [evaluate(cell, queue(service, load, seed, 8000)).metrics for seed in range(runs)]
    return {name: [1e-3 * (run[f"{name}_e2el_ms"] or 0.0) for run in metrics] for name in QUANTILES}


@pytest.mark.slow
def test_percentiles_of_mm1() -> None:
    """The time in system is exponential, with the rate of service less that of arrivals."""
    found = in_system(lambda rng: rng.exponential(1.0), 0.6)
    for name, share in QUANTILES.items():
        agree(found[name], log(1 / (1 - share)) / (1.0 - 0.6), 0.25)


def md1_wait(seconds: float, load: float) -> float:
    """P(wait <= seconds) of M/D/1 with services of 1 s (Erlang 1909)."""
    return (1.0 - load) * sum(
        (-load * (seconds - k)) ** k / factorial(k) * exp(load * (seconds - k))
        for k in range(int(seconds) + 1)
    )


@pytest.mark.slow
def test_percentiles_of_md1() -> None:
    load = 0.7
    found = in_system(lambda rng: 1.0, load)
    grid = np.arange(0.0, 15.0, 0.001)
    waits = [md1_wait(t, load) for t in grid]
    for name, share in QUANTILES.items():
        agree(found[name], 1.0 + float(grid[np.searchsorted(waits, share)]), 0.25)


@pytest.mark.slow
@pytest.mark.parametrize("load", [0.3, 0.8, 0.95])
def test_a_queue_that_swings_is_no_overload(load: float) -> None:
    runs = [queue(lambda rng: rng.exponential(1.0), load, seed, 1500) for seed in range(40)]
    assert not any(found.overloaded for run in runs if (found := drift(run)))


@pytest.mark.parametrize(("load", "count"), [(1.1, 6000), (1.5, 1000), (4.0, 300)])
def test_an_overload_is_told_with_its_growth_and_the_capacity(load: float, count: int) -> None:
    found = drift(queue(lambda rng: 1.0, load, 0, count))
    assert found is not None and found.overloaded
    assert found.growth_per_s == pytest.approx(load - 1.0, rel=0.15)
    assert found.served_per_s == pytest.approx(1.0, rel=0.02)


def test_a_system_that_fills_up_is_no_overload() -> None:
    """Long services on many slots: more are in service from span to span, but none waits."""
    costs = RandomCosts({Stage.DECODE: lambda: 100.0})
    plan = poisson(1.0, 100, ONE_TOKEN, ONE_DRAFT, np.random.SeedSequence(0))
    found = drift(simulate(config_of("plain", batch_cap=200), plan, costs))
    assert found is not None and not found.overloaded
    assert found.growth_per_s == pytest.approx(1.0, rel=0.2)


def test_a_short_run_says_nothing() -> None:
    assert drift(queue(lambda rng: 1.0, 4.0, 0, 40)) is None


def test_excursions_are_separate_queues() -> None:
    calm = np.tile([1.0, 2.0], 500)
    assert excursions(calm, 0.99) == 0  # none beyond the quantile
    once = calm.copy()
    once[100:120] = np.linspace(50.0, 60.0, 20)  # one bad moment
    assert excursions(once) == 1
    often = calm.copy()
    often[::100] = np.arange(10) + 50.0
    often[1::100] = np.arange(10) + 50.0
    assert excursions(often) == 5  # half of the twenty are beyond the 99th percentile
    assert excursions(np.array([])) == 0


@pytest.mark.slow
def test_what_a_run_tells_is_the_p99_of_a_run_without_end() -> None:
    """Of M/M/1: as many excursions as are wanted for 20 % are within 20 % nearly always."""
    wanted, truth, off = enough(0.99, 0.2), log(100.0) / (1.0 - 0.5), []
    assert wanted == 10
    for seed in range(40):
        count = 1000
        while True:
            run = queue(lambda rng: rng.exponential(1.0), 0.5, seed, count)
            times = np.array([(r.completed_s or 0.0) - r.arrival_s for r in run.requests])
            if excursions(times[count // 10 :]) >= wanted:
                break
            count *= 2
        off.append(float(np.quantile(times[count // 10 :], 0.99)) / truth - 1.0)
    assert np.mean(np.abs(off) <= 0.2) >= 0.85


def test_runs_are_longer_where_the_queue_is() -> None:
    model, wanted = FakeModel(spread=0.0), Wanted(0.2, 8000)
    idle, busy, over = (
        long_enough((cell, model, wanted)) for cell in (rated(5.0), rated(30.0), rated(200.0))
    )
    assert idle.cell.requests is not None and busy.cell.requests is not None
    assert idle.settled and over.settled
    assert idle.cell.requests < busy.cell.requests
    assert over.cell.requests is not None and over.cell.requests <= 8000


def rated(rate: float, **changes: object) -> Cell:
    from dataclasses import replace

    return replace(CELL, rate_per_s=rate, **changes)  # type: ignore[arg-type]


def test_a_stated_number_of_requests_is_kept() -> None:
    cell = rated(5.0, requests=70)
    assert not is_open(cell)
    assert long_enough((cell, FakeModel(), Wanted())).cell == cell


def test_an_overloaded_cell_has_no_latency_but_a_throughput() -> None:
    results = sweep([rated(900.0, requests=400, slo_ttft_ms=5.0)], FakeModel(), 3, workers=1)
    (result,) = results
    assert all(result.metrics[name] is None for name in WITHOUT_END)
    assert len(result.overloaded) == 3
    served = result.metrics["request_throughput"]
    assert served is not None and served.value < 900
    assert result.metrics["median_tpot_ms"] is not None
    made = Row(**row(result))
    assert made.overloaded and made.overload is not None
    (sentence,) = overloads([made])
    assert sentence.startswith(
        "Overloaded at C = 4 and 900 requests/s: plain, whose queue grows by"
    )
    found = ranked(results, [made], [], "delivers")
    assert found["ranks"][0].metric == "request_throughput"
    assert not any("grows" in note for note in found["notes"])


def test_an_overload_in_some_runs_is_a_caveat() -> None:
    (result,) = sweep([rated(5.0, requests=100)], FakeModel(), 3, workers=1)
    made = Row(**row(result)).model_copy(
        update={"overload": Overload(growth_per_s=1.0, served_per_s=4.0, runs=1)}
    )
    assert not made.overloaded and overloads([made]) == []
    assert at_times([made]) == ["plain is overloaded in 1 of 3 runs"]


def test_sides_of_a_crossover_that_are_overloaded_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    axis = AXES["rate"]
    first, second = rated(1.0), rated(1.0, batch_cap=64)
    place = Place((Side("few", first), Side("many", second)))
    sampler = Simulated(axis, place, "median_e2el_ms", FakeModel(), workers=1)
    (slow,), (fast,) = sampler([(20.0, 0)]), sampler([(400.0, 0)])
    assert slow is not None and fast is None
    assert sampler.overloads(20.0) == (False, False)
    assert sampler.overloads(400.0) == (True, False)


@pytest.mark.slow
def test_an_open_loop_is_compared_by_latency(capsys: pytest.CaptureFixture[str]) -> None:
    words = "crossover pd pdv --over rate --protocol poisson --from 50 --to 90 --points 2"
    assert cli.run([*words.split(), "--replications", "4", "--prefill-batch", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["metric"] == "median_e2el_ms"
    assert [point["overloaded"] for point in document["points"]] == [
        ["second"],
        ["first", "second"],
    ]
    assert [point["answer"] for point in document["points"]] == ["first", "unknown"]
    sentence = document["verdict"]["sentence"]
    assert sentence.endswith("pdv is overloaded at rate 50. Both are overloaded at rate 90.")


def predict(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    given = ["predict", "--architecture", "pd", "--protocol", "poisson", "--json"]
    code = cli.run([*given, *words])
    printed = capsys.readouterr()
    assert (code == 0) == bool(printed.out)
    return printed.out or printed.err


@pytest.mark.slow
@pytest.mark.parametrize("rate", ["66", "200"])
def test_the_command_says_that_it_is_an_overload(
    rate: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--rate", rate, "--prefill-batch", "1", "--replications", "3"]
    document = json.loads(predict(capsys, *given))
    assert document["cells"][0]["overload"]["runs"] >= 2
    assert "Overloaded at C = 32" in document["verdict"]["sentence"]
    assert document["cells"][0]["metrics"]["p99_ttft_ms"] is None
    assert document["cells"][0]["overload"]["served_per_s"] == pytest.approx(55, rel=0.06)


def test_how_long_runs_are_can_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--rate", "10", "--replications", "1", "--most-requests", "300"]
    document = json.loads(predict(capsys, *given))
    assert document["cells"][0]["cell"]["requests"] == 300
    assert any(note.startswith("Not settled: runs of 300") for note in document["notes"])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--rate 10 --requests 9 --most-requests 99", "--requests says how long runs are"),
        ("--rate 10 --tail-within 0", "--tail-within is 0; it must be above 0"),
        ("--rate 10 --most-requests 0", "--most-requests is 0; it must be between 1 and"),
        ("--protocol closed-loop --tail-within 0.1", "only poisson goes on until then"),
    ],
)
def test_lengths_that_cannot_be(
    words: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complaint in predict(capsys, *words.split())


def test_a_measured_run_keeps_its_drift() -> None:
    """Runs of a bench go through JSON before they become a document."""
    (result,) = sweep([rated(900.0, requests=400)], FakeModel(), 1, workers=1)
    adapter = TypeAdapter(Run)
    (run,) = result.runs
    assert run.drift is not None
    again = adapter.validate_python(json.loads(adapter.dump_json(run)))
    assert again.drift == run.drift


def test_causes_of_a_latency_without_end_are_not_given(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--protocol poisson --rate 900 --architecture plain --replications 2"
    over = words.split()
    assert cli.run(["ablate", *over]) == 2
    assert "plain is overloaded at 900 requests/s" in capsys.readouterr().err
    assert cli.run(["explain", *over, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert "Overloaded: plain at C = 32" in " ".join(document["notes"])
    assert document["cells"][0]["cell"]["requests"] == 4000


def test_a_trace_is_sped_up_until_it_is_too_much(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "trace.csv"
    rows = [f"{0.1 * i:.1f},64,32" for i in range(300)]
    path.write_text("arrival_s,prompt_tokens,output_tokens\n" + "\n".join(rows) + "\n")
    words = f"crossover plain pd --over trace-speed --protocol trace --trace {path} --json"
    ends = "--from 1 --to 100 --points 2 --replications 4 --concurrency 8"
    assert cli.run([*words.split(), *ends.split()]) == 0
    document = json.loads(capsys.readouterr().out)
    slow, fast = document["points"]
    assert slow["overloaded"] == [] and slow["answer"] == "second"
    assert fast["overloaded"] == ["first", "second"]
