"""Whole inputs of every kind, made by the commands themselves: what mutants are changed from."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from pdvsim import cli
from pdvsim.acceptance import Acceptance
from pdvsim.profile import save_profile
from pdvsim.workload import Lengths, closed_loop

ROOT = Path(__file__).parents[1]
SHORT = "--profile profile.json --prompt-tokens 8 --output-tokens 4"
ONCE = f"--replications 1 {SHORT}"
DOCUMENTS = {
    "predict": f"--concurrency 2 --architecture pd,pdv --slo-ttft-ms 90 --formulas {ONCE}",
    "crossover": f"plain pdv --to 4 --points 3 --replications 4 {SHORT}",
    "explain": f"--concurrency 2 --threads {ONCE}",
    "ablate": f"--concurrency 2 --mechanism GIL {ONCE}",
    "reproduce": "summary.csv detailed.csv --profile profile.json --replications 2",
    "audit": "summary.csv detailed.csv",
}
TINY = "--device cpu --pair tiny:tiny --executor graph"
BENCH = f"{TINY} --architecture pd --concurrency 2 --requests 3 --prompt-tokens 8 --output-tokens 4"
OLD = ("eager/h100_bench_0_c16.json", "explain_h100_graph.json", "reproduce_pdverify.json")
TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:15:{second:02}.50,{8 + second},{2 + second % 3}\n" for second in range(6)
)
PLAIN_TABLE = (
    "system,load,concurrency,output_throughput,request_throughput,mean_e2el_ms,p99_e2el_ms,"
    "completed\na,1,1,100,10,100,110,50\nb,1,1,150,15,66,80,50\na,4,4,300,30,133,150,200\n"
    "b,4,4,420,42,95,99,200\n"
)
Check = Callable[[int, str], "str | None"]


@dataclass(frozen=True)
class Mutant:
    """A command line on mutated input.

    Attributes:
        words: of the command, run in the mutant's folder.
        check: given exit code and stdout, says what was believed that can't be; None if nothing.
        shell: run by bash instead, with the interpreter as $PYTHON: for environments.
    """

    words: list[str]
    check: Check | None = None
    shell: str = ""
    nodes: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


Make = Callable[[Random, Path], Mutant]


def believed(what: str, codes: Iterable[int] = (0,)) -> Check:
    """A check of input that is impossible: any of these exit codes takes it for true."""
    accepted = tuple(codes)
    return lambda code, out: what if code in accepted else None


# ---------------------------------------------------------------------------- whole inputs


def write_seeds(folder: Path, engine: bool) -> None:
    """Write one whole input of each kind, made by the commands themselves."""
    from tests.fakes import config_of, profile_file
    from tests.published_table import write_published_table

    os.chdir(folder)
    save_profile(profile_file(), Path("profile.json"))
    Path("trace.csv").write_text(TRACE)
    Path("plain.csv").write_text(PLAIN_TABLE)
    summary, detailed = write_published_table(folder, (1, 2, 8))
    summary.rename("summary.csv")
    detailed.rename("detailed.csv")
    for name, words in DOCUMENTS.items():
        _document(name, words)
    _simulated_record(config_of("pd"))
    for name in OLD:
        if (ROOT / "results" / name).exists():
            shutil.copy(ROOT / "results" / name, f"old_{Path(name).name}")
    if engine:
        _engine_seeds()


def _document(name: str, words: str) -> None:
    with Path(f"{name}.json").open("w") as out:
        before, sys.stdout = sys.stdout, out
        try:
            code = cli.run([name, *words.split(), "--json"])
        finally:
            sys.stdout = before
    assert code == (name == "audit"), name


def _simulated_record(config: Any) -> None:
    from pdvsim.des.world import simulate
    from tests.fakes import FixedCosts

    plan = closed_loop(2, Lengths(8, 4), Acceptance.constant(0.7, 4), _seed(), 2)
    simulate(config, plan, FixedCosts()).write(Path("records"), "pd-eager-closed-loop-c8-0")


def _seed() -> Any:
    import numpy as np

    return np.random.SeedSequence(1)


def _engine_seeds() -> None:
    from calibration import calibrate
    from pdvsim.store import Store
    from tests.checkpoints import FAMILIES, make_checkpoint

    plan = calibrate.Plan((8, 16), (1, 2), 2, 2, race_seconds=0.02, race_rounds=2)
    calibrate.quick = lambda _: plan
    remove = Store.remove
    Store.remove = Store.close  # type: ignore[method-assign]
    _document("calibrate", f"{TINY} --quick -o tiny.json")
    _document("bench", f"{BENCH} -o bench.out --records records")
    Store.remove = remove  # type: ignore[method-assign]
    _document("validate", "--bench bench.json --profile tiny.json --predictions 1")
    for name in ("llama-2", "qwen3"):
        make_checkpoint(Path(name), FAMILIES[name])


@cache
def seed_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def seed_bytes(path: Path) -> bytes:
    return path.read_bytes()
