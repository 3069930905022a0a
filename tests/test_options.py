"""Options become cells in one place: the same defaults everywhere, nothing without effect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from pdvsim import cli
from pdvsim.asked import Asked, Reference, references
from pdvsim.cell import Cell, Values
from pdvsim.commands.crossover import OVER
from pdvsim.crossover.space import AXES
from pdvsim.errors import InputError
from pdvsim.models import pair
from pdvsim.options import ENGINE, SLO, architecture_option, cell_options

PAIR = "tiny:tiny"
Run = Callable[..., list[Cell]]
COMMANDS = ("predict", "explain", "ablate", "crossover", "bench", "validate")
ENGINES = ("bench", "validate")


@pytest.fixture
def cells() -> Run:
    """The cells that a command line describes."""

    def run(*words: str) -> list[Cell]:
        found: list[Cell] = []

        @click.command()
        @cell_options(architecture_option("all"), *SLO, *ENGINE)
        def command(asked: Asked) -> None:
            found.extend(asked.cells(pair(asked.pair), asked.executor))

        result = CliRunner().invoke(command, list(words), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return found

    return run


def test_a_cell_for_each_concurrency_and_architecture(cells: Run) -> None:
    found = cells("--concurrency", "1,8", "--architecture", "plain,PD@prefill_batch=8")
    assert [(cell.concurrency, cell.architecture) for cell in found] == [
        (1, "plain"),
        (1, "pd"),
        (8, "plain"),
        (8, "pd"),
    ]
    assert found[1].parameters == {"prefill_batch": 8}


def test_without_options_it_is_the_cell_of_the_defaults(cells: Run) -> None:
    (cell,) = cells("--architecture", "pd")
    assert cell == Cell("tinyllama-1.1b:llama-2-7b", "graph", "pd", 32)


@pytest.mark.parametrize(
    ("words", "acceptance"),
    [
        ([], (0.7,) * 4),
        (["--draft-tokens", "2"], (0.7,) * 2),
        (["--acceptance", "0.9"], (0.9,) * 4),
        (["--acceptance", "0.8,0.7,0.6"], (0.8, 0.7, 0.6)),
        (["--acceptance", "0.8,0.7", "--draft-tokens", "2"], (0.8, 0.7)),
        (["--acceptance", "real"], "real"),
    ],
)
def test_acceptance_is_a_number_or_one_for_each_position(
    words: list[str], acceptance: Any, cells: Run
) -> None:
    (cell,) = cells("--architecture", "pd", *words)
    assert cell.acceptance == acceptance
    assert acceptance == "real" or cell.draft_tokens == len(acceptance)


def test_every_field_has_its_option(cells: Run, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:00,4,5\n")
    trace = ["--protocol", "trace", "--trace", str(path), "--trace-speed", "2", "--requests", "1"]
    slo = ["--slo-ttft-ms", "1", "--slo-tpot-ms", "2", "--slo-e2el-ms", "3"]
    pair = ["--pair", PAIR, "--executor", "eager", "--seed", "7"]
    (cell,) = cells("--architecture", "pd", *trace, "--max-context-tokens", "64", *slo, *pair)
    assert (cell.pair, cell.executor, cell.seed, cell.requests) == (PAIR, "eager", 7, 1)
    assert (cell.time_scale, cell.max_context_tokens) == (2.0, 64)
    assert cell.trace is not None and cell.trace.path == str(path) and cell.trace.sha256
    assert (cell.slo_ttft_ms, cell.slo_tpot_ms, cell.slo_e2el_ms) == (1.0, 2.0, 3.0)
    (drawn,) = cells("--architecture", "pd", "--lengths-from", str(path))
    assert drawn.lengths_from is not None and drawn.lengths_from.sha256
    assert (drawn.prompt_tokens, drawn.output_tokens) == (4, 5)
    (wide,) = cells("--architecture", "pd", "--output-spread", "lognormal:0.80")
    assert (wide.spread, wide.output_spread) == (0.0, "lognormal:0.8")
    (warm,) = cells(
        *("--architecture", "pd", "--acceptance", "real", "--temperature", "0.5"),
        *("--spread", "0.5", "--prompt-tokens", "9", "--output-tokens", "8", "--cycles", "3"),
    )
    assert (warm.temperature, warm.spread, warm.cycles) == (0.5, 0.5, 3)
    assert (warm.prompt_tokens, warm.output_tokens) == (9, 8)


def test_parameters_go_to_the_architectures_that_have_them(cells: Run) -> None:
    found = cells("--architecture", "pd,pdv,pdv@admission_factor=2", "--admission-factor", "1.5")
    assert [dict(cell.parameters) for cell in found] == [
        {},
        {"admission_factor": 1.5},
        {"admission_factor": 2.0},
    ]


def test_a_reference_holds_parameters_of_the_architecture_and_of_the_cell() -> None:
    first, second = references("pdv@admission_factor=1.2,prefill_batch=4,pd@draft_tokens=2")
    assert first.parameters == Values({"admission_factor": 1.2, "prefill_batch": 4})
    assert (second.architecture, second.draft_tokens) == ("pd", 2)
    assert second.fixed == {"draft_tokens"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nope", "unknown architecture 'nope'"),
        ("pdv@nope=1", "pdv has no parameter 'nope'; known are"),
        ("pd@verify_batch=1", "pd has no parameter 'verify_batch'"),
        ("pdv@prefill_batch=x", "prefill_batch is 'x'; it must be a whole number"),
        ("pdv@batch_cap", "'batch_cap' is no PARAMETER=VALUE"),
        ("pdv@prefill_batch=0", "prefill_batch is 0"),
    ],
)
def test_bad_references(text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Reference.parse(text)


TRACE = "--protocol trace --trace TRACE"
IGNORED = [
    ("--rate 3", "--rate is only for the protocol poisson"),
    (f"{TRACE} --cycles 3", "--cycles is only for the protocol closed-loop"),
    (f"{TRACE} --spread 0.1", "only for the protocols closed-loop, poisson and pdverify"),
    ("--protocol poisson --rate 2 --cycles 3", "--cycles is only for the protocol closed-loop"),
    ("--requests 30 --cycles 3", "leave --cycles out"),
    (f"{TRACE} --lengths-from TRACE", "--lengths-from is only for the protocols closed-loop"),
    ("--lengths-from TRACE --spread 0.2", "--lengths-from brings its own lengths; leave --spread"),
    ("--trace-speed 1", "--trace-speed is only for the protocol trace"),
    ("--acceptance 0.8,0.7 --draft-tokens 3", "--acceptance has 2 positions, but --draft-tokens"),
    ("--architecture plain --draft-tokens 2", "plain drafts nothing; leave --draft-tokens out"),
    ("--architecture pd --admission-factor 2", "none of pd has the parameter admission_factor"),
]


@pytest.mark.parametrize(("words", "complaint"), IGNORED)
def test_an_option_without_effect_is_refused(
    words: str, complaint: str, cells: Run, tmp_path: Path
) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:00,4,5\n")
    with pytest.raises(InputError) as refused:
        cells(*words.replace("TRACE", str(path)).split())
    assert complaint in str(refused.value)


EDGES = [
    ("--seed -1", "--seed is -1; it must be between 0 and"),
    ("--seed 99999999999999999999", "--seed is 99999999999999999999; it must be between"),
    ("--draft-tokens 99999999999999999999", "--draft-tokens is 99999999999999999999; it must be"),
    ("--draft-tokens 1000000000", "--draft-tokens is 1000000000; it must be between 1 and 16"),
    ("--concurrency 0", "--concurrency is 0; it must be between 1 and 100000"),
    ("--concurrency x", "--concurrency is 'x'; write whole numbers"),
    ("--protocol poisson --rate 1e-300", "--rate is 1e-300; it must be between"),
    ("--acceptance nan", "--acceptance is nan; it must be between"),
    ("--prompt-tokens 0", "--prompt-tokens is 0; it must be between"),
    ("--acceptance some", "--acceptance is 'some'; write a number from 0 to 1"),
]


@pytest.mark.parametrize(("words", "complaint"), EDGES)
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_edges_in_one_sentence(
    name: str, words: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if name in ENGINES:
        pytest.importorskip("torch")
    sides = ["pd", "pdv", "--over", "output-tokens"] if name == "crossover" else []
    assert cli.run([name, *sides, *words.split()]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"pdvsim: {complaint}")
    assert printed.err.count("\n") == 1
    assert printed.out == ""


@pytest.mark.parametrize("words", ["--seed -1", "--seed 99999999999999999999", "--draft-tokens 0"])
def test_calibrate_refuses_edges_too(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    assert cli.run(["calibrate", "--device", "cpu", *words.split()]) == 2
    assert capsys.readouterr().err.startswith(f"pdvsim: {words.replace(' ', ' is ')}; it must be")


def test_commands_have_the_same_defaults_and_help() -> None:
    pytest.importorskip("torch")
    described: dict[str, set[tuple[str, Any, str]]] = {}
    for name in (*COMMANDS, "calibrate"):
        for parameter in cli.load(name).command.params:
            if isinstance(parameter, click.Option) and parameter.name in Cell.__slots__:
                about = (str(parameter.opts), parameter.default, str(parameter.help))
                described.setdefault(str(parameter.name), set()).add(about)
    assert all(len(found) == 1 for name, found in described.items() if name != "architecture"), (
        described
    )


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_option_says_what_it_does(name: str) -> None:
    if name in (*ENGINES, "calibrate"):
        pytest.importorskip("torch")
    options = [one for one in cli.load(name).command.params if isinstance(one, click.Option)]
    assert [one.name for one in options if not one.help] == []


def test_the_help_of_crossover_names_every_axis() -> None:
    assert tuple(AXES) == OVER


BENCH = "--bench results/eager/h100_bench_0_c16.json"
OTHERS = [
    (f"validate {BENCH} --concurrency 3 --prompt-tokens 9", "leave --concurrency, --prompt-tokens"),
    (f"validate {BENCH} --device cpu", "leave --device out"),
    (f"explain {BENCH} --acceptance 0.1", "--bench brings its own cells; leave --acceptance out"),
    (f"explain {BENCH} --records x", "leave --records out"),
    ("explain --records results/x --prompt-tokens 9", "leave --prompt-tokens out"),
    ("crossover pd pdv --concurrency 0", "concurrency is varied; leave --concurrency out"),
    ("crossover pd pdv --to inf", "both must be finite"),
    (
        "crossover pd pdv --over prompt-tokens --lengths-from tests/cases/T01_sorted.csv",
        "prompt-tokens is varied; leave --lengths-from out",
    ),
    (
        "crossover pd pdv --over acceptance --acceptance-from results/eager/h100_bench_0_c16.json",
        "acceptance is varied; leave --acceptance-from out",
    ),
    ("crossover pd pdv --metric output_throughput --slo-ttft-ms 3", "output_throughput knows no"),
    ("crossover pd pdv --metric request_goodput", "request_goodput counts requests within an SLO"),
    ("crossover pd pdv --over rate --concurrency 1,2", "give one: vary it with"),
    ("ablate --concurrency 1,2", "--concurrency is 1,2; give one"),
    ("crossover pd pdv --acceptance real", "a simulation has no tokens to compare"),
    ("predict --acceptance real", "a simulation has no tokens to compare"),
    ("predict --acceptance 0.8,0.7 --formulas", "--formulas knows one acceptance"),
    ("validate --profile nope --device cpu", "no profile 'nope'"),
    ("validate --acceptance real --device cpu", "a simulation has no tokens to compare"),
    ("bench --device cpu --pair tiny:tiny --prompt-tokens 9000", "do not fit the context of tiny"),
    (
        "bench --device cpu --pair tiny:tiny --protocol trace --trace tests/cases/T03_too_long.csv",
        "do not fit the context of tiny",
    ),
    ("bench --device cpu --protocol poisson --rate 1e-6", "a run lasts a day at most"),
    ("bench --device cpu --protocol trace --trace no.csv", "cannot read the trace no.csv"),
]


@pytest.mark.parametrize(("words", "complaint"), OTHERS)
def test_what_a_command_cannot_use_is_refused_before_the_work(
    words: str, complaint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    if words.split()[0] in ENGINES:
        pytest.importorskip("torch")
    assert cli.run(words.split()) == 2
    printed = capsys.readouterr()
    assert complaint in printed.err
    assert printed.err.count("\n") == 1
