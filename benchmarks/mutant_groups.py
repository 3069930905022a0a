"""What the mutants of `mutants.py` are made of: whole inputs of every kind, and the commands that
read them. Each group makes one mutant at a time in an empty folder, from a random generator."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import stat
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import click
import mutations
import polars as pl

from pdvsim import cli
from pdvsim.acceptance import Acceptance
from pdvsim.errors import PdvsimError
from pdvsim.profile import save_profile
from pdvsim.profile_file import ProfileFile
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


# ---------------------------------------------------------------------------- files


def document(name: str, seeds: Path, *commands: str) -> Make:
    """Mutants of one JSON file, read by one of `commands` as FILE."""

    def make(rng: Random, folder: Path) -> Mutant:
        (folder / "m.json").write_bytes(mutations.json_mutant(rng, seed_text(seeds / name)))
        words = rng.choice(commands).replace("FILE", "m.json").replace("SEEDS", str(seeds))
        return Mutant(words.split())

    return make


def profile(name: str, seeds: Path) -> Make:
    """Half of them signed again, so that more than the digest is asked."""

    def make(rng: Random, folder: Path) -> Mutant:
        text = seed_text(seeds / name)
        content = mutations.json_mutant(rng, text)
        if rng.random() < 0.6:
            plain = json.loads(text)
            plain.pop("digest")
            try:
                file = ProfileFile.model_validate(mutations.changed(rng, plain))
                save_profile(file, folder / "m.json")
                content = (folder / "m.json").read_bytes()
            except (ValueError, OverflowError, PdvsimError):
                pass
        (folder / "m.json").write_bytes(content)
        tail = "--replications 1 --prompt-tokens 8 --output-tokens 4 --profile m.json"
        command = rng.choice(("predict --concurrency 2", "explain --concurrency 2 --threads"))
        return Mutant(f"{command} --architecture pd,pdv {tail} --json".split(), finite_output)

    return make


def finite_output(code: int, out: str) -> str | None:
    """A prediction has positive, finite throughput and shares of latency from 0 to 1."""
    if code != 0:
        return None
    for share in re.findall(r'"share": \{"value": (-?[0-9.e+-]+)', out):
        if not -1e-9 <= float(share) <= 1.0 + 1e-9:
            return f"a share of {share}"
    return None


def table(name: str, seeds: Path, command: str) -> Make:
    def make(rng: Random, folder: Path) -> Mutant:
        for other in ("summary.csv", "detailed.csv"):
            shutil.copy(seeds / other, folder / other)
        (folder / name).write_bytes(mutations.csv_mutant(rng, seed_text(seeds / name)))
        return Mutant(command.replace("SEEDS", str(seeds)).split())

    return make


NUMBERS = ("Throughput (TPS)", "Latency P50 (ms)", "Latency P99 (ms)", "GPU Util %", "GPU Mem (MB)")


def impossible_table(seeds: Path) -> Make:
    """A column of a published table negative or not finite: an error, or a refusal."""

    def make(rng: Random, folder: Path) -> Mutant:
        frame = pl.read_csv(io.StringIO(seed_text(seeds / "summary.csv")), infer_schema=False)
        name = rng.choice(NUMBERS)
        sign = rng.choice(("-", "inf", "nan", "-inf"))
        values = [f"-{v}" if sign == "-" and float(v) > 0 else sign for v in frame[name]]
        frame = frame.with_columns(pl.Series(name, ["-5" if v == "-" else v for v in values]))
        frame.write_csv(folder / "m.csv")
        return Mutant(["audit", "m.csv"], believed(f"{name} {sign}"))

    return make


def trace(seeds: Path) -> Make:
    def make(rng: Random, folder: Path) -> Mutant:
        (folder / "t.csv").write_bytes(mutations.csv_mutant(rng, TRACE))
        words = "predict --concurrency 2 --architecture pd --protocol trace --trace t.csv"
        tail = "--replications 1 --requests 20"
        return Mutant([*words.split(), "--profile", f"{seeds}/profile.json", *tail.split()])

    return make


def export(seeds: Path) -> Make:
    """Results of other benchmarks: those of `tests/cases`."""
    files = sorted(p for p in (ROOT / "tests" / "cases").iterdir() if p.suffix[:5] == ".json")

    def make(rng: Random, folder: Path) -> Mutant:
        path = rng.choice(files)
        text = seed_text(path).strip()
        if path.suffix == ".jsonl":
            lines = text.split("\n")
            at = rng.randrange(len(lines))
            lines[at] = mutations.json_mutant(rng, lines[at]).decode("latin-1")
            content = "\n".join(lines).encode()
        else:
            content = mutations.json_mutant(rng, text)
        (folder / f"m{path.suffix}").write_bytes(content)
        return Mutant(["audit", f"m{path.suffix}"])

    return make


def checkpoint(name: str, seeds: Path, engine: bool) -> Make:
    """A mutated config.json or index of a checkpoint, or a model given by its config alone."""

    def make(rng: Random, folder: Path) -> Mutant:
        (folder / "model").mkdir()
        for file in (seeds / name).iterdir():
            (folder / "model" / file.name).symlink_to(file)
        jsons = [f.name for f in (seeds / name).iterdir() if "token" not in f.name]
        chosen = rng.choice([n for n in jsons if n.endswith(".json")] + ["config.json"] * 3)
        path = folder / "model" / chosen
        content = mutations.json_mutant(rng, seed_text(path.resolve()))
        path.unlink()
        path.write_bytes(content)
        if engine and rng.random() < 0.7:
            executor = rng.choice(("graph", "graph", "eager"))
            words = f"bench --device cpu --pair model:model --executor {executor} "
            words += "--architecture plain --concurrency 1 --requests 1 --prompt-tokens 4 "
            return Mutant((words + "--output-tokens 2").split())
        words = "audit SEEDS/summary.csv --pair m=model/config.json:m=model/config.json"
        return Mutant(words.replace("SEEDS", str(seeds)).split())

    return make


def partial_file(seeds: Path) -> Make:
    """A killed bench whose partial file was damaged. What the result says was either in the whole
    file or is measured now: nothing that stands in the damaged file alone is in it."""

    def make(rng: Random, folder: Path) -> Mutant:
        whole = seed_text(seeds / "bench.out.partial.jsonl")
        lines = whole.rstrip("\n").split("\n")
        if rng.random() < 0.5:
            at = rng.randrange(len(lines))
            lines[at] = mutations.json_mutant(rng, lines[at]).decode("latin-1")
            content = ("\n".join(lines) + "\n").encode()
        else:
            content = mutations.bytes_mutant(rng, whole.encode())
        (folder / "bench.out.partial.jsonl").write_bytes(content)

        def check(code: int, out: str) -> str | None:
            if code != 0:
                return None
            found = set(re.findall(r'"elapsed_s": ([0-9.e+-]+)', out))
            damaged = set(re.findall(rb'"elapsed_s": ([0-9.e+-]+)', content))
            wrong = {one for one in found if one.encode() in damaged and one not in whole}
            return f"elapsed_s {wrong}" if wrong else None

        return Mutant(f"bench {BENCH} -o bench.out --json".split(), check)

    return make


def records(seeds: Path) -> Make:
    stem = "records/pd-eager-closed-loop-c8-0"

    def make(rng: Random, folder: Path) -> Mutant:
        (folder / "records").mkdir()
        changed = rng.choice(("stages", "requests"))
        for kind in ("stages", "requests"):
            content = seed_bytes(seeds / f"{stem}_{kind}.parquet")
            if kind == changed:
                content = mutations.parquet_mutant(rng, content)
            (folder / f"{stem}_{kind}.parquet").write_bytes(content)
        if rng.random() < 0.5:
            sign_again(folder / stem)
        if rng.random() < 0.2:
            return Mutant(["audit", f"{stem}_requests.parquet"])
        return Mutant(["explain", "--records", stem, "--threads", "--json"], finite_output)

    return make


def sign_again(stem: Path) -> None:
    """Give a changed record the digest that fits it, where it still has one."""
    from pdvsim import record_files

    try:
        tables = [pl.read_parquet(path) for path in record_files.paths(stem)]
        about = json.loads(pl.read_parquet_metadata(record_files.paths(stem)[0])["pdvsim"])
        del about["digest"]
        about["digest"] = record_files._digest(record_files._record(*tables, about), about)
        for path, table in zip(record_files.paths(stem), tables, strict=True):
            path.write_bytes(mutations.parquet_bytes(table, {"pdvsim": json.dumps(about)}))
    except (Exception, pl.exceptions.PanicException):
        return  # too damaged for one


def impossible_records(seeds: Path) -> Make:
    """One column that breaks a law of every run, so that no number of it can be believed."""
    stem = "records/pd-eager-closed-loop-c8-0"
    breaks: dict[str, dict[str, Callable[[pl.Expr], pl.Expr]]] = {
        "stages": {
            "settled_s": lambda c: c - 1e3,
            "started_s": lambda c: -c,
            "ended_s": lambda c: -c - 1.0,
            "launched_s": lambda c: c + 1e6,
            "launch_end_s": lambda c: c * float("nan"),
            "batch": lambda c: -c,
            "lane": lambda c: pl.lit(None, pl.String),
            "stage": lambda c: pl.lit("x"),
            "tokens": lambda c: c + 7,
            "device_alone_s": lambda c: c - 1e3,
        },
        "requests": {
            "completed_s": lambda c: c * 0.0,
            "arrival_s": lambda c: c + 1e6,
            "first_token_s": lambda c: c * float("inf"),
            "produced_tokens": lambda c: c + 1,
            "accepted_tokens": lambda c: c + 1000,
            "id": lambda c: c * 0,
        },
    }

    def make(rng: Random, folder: Path) -> Mutant:
        (folder / "records").mkdir()
        broken = rng.choice(list(breaks))
        tables = {}
        for kind in breaks:
            content = io.BytesIO(seed_bytes(seeds / f"{stem}_{kind}.parquet"))
            tables[kind] = (pl.read_parquet(content), pl.read_parquet_metadata(content))
        frame, _ = tables[broken]
        name = rng.choice([n for n in breaks[broken] if n in frame.columns])
        at = rng.randrange(len(frame)) if rng.random() < 0.5 else None
        new = breaks[broken][name](pl.col(name))
        if at is not None:
            row = pl.int_range(pl.len()) == at
            new = pl.when(row).then(new).otherwise(pl.col(name))
        for kind, (table_, metadata) in tables.items():
            plain = {k: v for k, v in metadata.items() if not k.startswith("ARROW")}
            written = table_.with_columns(new.alias(name)) if kind == broken else table_
            path = folder / f"{stem}_{kind}.parquet"
            path.write_bytes(mutations.parquet_bytes(written, plain))
        sign_again(folder / stem)
        same = tables[broken][0].with_columns(new.alias(name)).equals(frame)
        check = None if same else believed(f"{name} of {broken}, row {at}")
        return Mutant(["explain", "--records", stem, "--json"], check)

    return make


LARGE = ("table", "systems", "trace", "details", "lines", "sparse", "numbers", "spaces")


def large(seeds: Path) -> Make:
    """Inputs of a size that people have, or that nobody has."""

    def make(rng: Random, folder: Path) -> Mutant:
        kind, rows = rng.choice(LARGE), rng.choice((5_000, 20_000))
        head, *body = PLAIN_TABLE.rstrip("\n").split("\n")
        if kind in ("table", "systems"):
            tails = [rng.choice(body).partition(",")[2] for _ in range(rows)]
            names = [f"s{i % (1 if kind == 'table' else rows)}" for i in range(rows)]
            lines = [f"{name},{tail}" for name, tail in zip(names, tails, strict=True)]
            (folder / "m.csv").write_text("\n".join([head, *lines]))
            return Mutant(["audit", "m.csv"])
        if kind == "trace":
            times = [
                f"2023-11-16 {i // 3600 % 24:02}:{i // 60 % 60:02}:{i % 60:02}" for i in range(rows)
            ]
            lines = [f"{time},{rng.randrange(1, 900)},4" for time in times]
            (folder / "m.csv").write_text("\n".join([TRACE.split("\n")[0], *lines]))
            words = "predict --concurrency 2 --architecture pd --protocol trace --trace m.csv"
            words += f" --requests 50 --replications 1 --profile {seeds}/profile.json"
            return Mutant(words.split())
        if kind == "details":
            head, *body = seed_text(seeds / "detailed.csv").rstrip("\n").split("\n")
            (folder / "detailed.csv").write_text("\n".join([head, *rng.choices(body, k=rows)]))
            return Mutant(["audit", f"{seeds}/summary.csv", "detailed.csv"])
        text = {
            "lines": lambda: '{"a": [1, 2]}\n' * rows,
            "sparse": lambda: "",
            "numbers": lambda: "[" + "0," * (rows * 600) + "0]",
            "spaces": lambda: '{"cells":' + " " * (rows * 1000) + "[]}",
        }[kind]()
        (folder / "m.json").write_text(text)
        if kind == "sparse":
            os.truncate(folder / "m.json", rows << 20)
        commands = ("audit m.json", "report m.json -o out.html")
        return Mutant(rng.choice((*commands, "predict --concurrency 1 --profile m.json")).split())

    return make


# ---------------------------------------------------------------------------- options, places

WORDS = (
    *("", " ", "-1", "0", "1", "2", "3.5", "1e308", "-1e308", "nan", "inf", "-inf", "1e-300"),
    *("99999999999999999999", "2147483648", "9223372036854775807", "4097", "65", "17", "٣", "0x10"),
    *("abc", "a" * 300, "/", "..", "None", "1,2", "1,,2", ",", "x:y", ":", "a=b", "@", "all", "-"),
    *("pdv@verify_lead=-1", "pd@x=1", "pd@prefill_batch=nan", "pd,pd", "tiny:tiny", "tiny", "%s"),
    *(
        "\n",
        "😀",
        "\udcff",
        "five",
        "1;2",
        "plain",
        "real",
        "cpu",
        "cuda:99",
        "graph",
        "acceptance",
    ),
    *(
        "name=x.json:tiny",
        "profile.json",
        "summary.csv",
        "trace.csv",
        "/dev/null",
        "/proc/self/mem",
    ),
)
NUMBERS_SAID = (
    *("0", "1", "2", "3", "4", "8", "16", "17", "64", "100", "0.5", "1.0", "0.999999", "1e-9"),
    *("-1", "-0.5", "1.0000001", "1e6", "1e9", "1e15", "33.3", "2048", "4096", "4097", "65536"),
    *("1000001", "nan", "inf", "1e-300", "9223372036854775808"),
)
# More of these is more honest work, which takes its time and is no hang.
ENGINE_COMMANDS = ("bench", "validate", "calibrate")
SIZES = ("--replications", "--requests", "--cycles", "--output-tokens", "--concurrency")
BASES = {
    **DOCUMENTS,
    "report": "predict.json -o out.html",
    "bench": f"{BENCH} -o out.json",
    "validate": "--bench bench.json --profile tiny.json --predictions 1 -o out.json",
    "calibrate": f"{TINY} --quick -o out.json",
}


def copy_seeds(seeds: Path, folder: Path) -> None:
    """Whole inputs where the words of options may meet them, and write over them."""
    for path in seeds.iterdir():
        if path.is_file() and not path.name.startswith("old_"):
            shutil.copy(path, folder)


def options(name: str, seeds: Path) -> Make:
    """One or two options of a command with odd values; those of its base come first."""
    command = cli.load(name).command
    assert isinstance(command, click.Command)
    known = [p for p in command.params if isinstance(p, click.Option) and not p.is_flag]

    def make(rng: Random, folder: Path) -> Mutant:
        copy_seeds(seeds, folder)
        words = BASES[name].split()
        for option in rng.sample(known, min(len(known), rng.choice((1, 1, 2)))):
            numeric = isinstance(
                option.type, (click.types.IntParamType, click.types.FloatParamType)
            )
            pool = NUMBERS_SAID if numeric and rng.random() < 0.7 else WORDS
            if option.opts[0] in SIZES:
                most = 4 if name in ENGINE_COMMANDS else 4097
                pool = tuple(w for w in pool if not w.isdecimal() or not most < int(w) < 2**31)
            words += [option.opts[0], *rng.choices(pool, k=option.nargs)]
        if rng.random() < 0.1:
            words[rng.randrange(len(words))] = rng.choice(WORDS)
        return Mutant([name, *words])

    return make


OUTPUTS = ("null", "link", "dangling", "loop", "folder", "x" * 300, "none/x", "file", "full", "ro")


def outputs(seeds: Path) -> Make:
    """Results to devices, links, and places that can't be."""
    commands = (
        f"predict --concurrency 1 --architecture plain {ONCE} --report OUT",
        "report predict.json -o OUT",
        "validate --bench bench.json --profile tiny.json --predictions 1 -o OUT",
    )

    def make(rng: Random, folder: Path) -> Mutant:
        copy_seeds(seeds, folder)
        (folder / "file").write_text("kept")
        (folder / "folder").mkdir()
        for name, target in (("link", "file"), ("dangling", "new"), ("loop", "loop")):
            (folder / name).symlink_to(target)
        (folder / "ro").symlink_to("/sys/kernel/x")
        for name, minor in (("null", 3), ("full", 7)):
            os.mknod(folder / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        words = rng.choice(commands[: 3 if (seeds / "tiny.json").exists() else 2])
        return Mutant(
            words.replace("OUT", rng.choice(OUTPUTS)).split(),
            nodes=("null", "full", "link", "dangling", "loop", "ro"),
        )

    return make


VARIABLES = ("HOME", "TMPDIR", "COLUMNS", "LINES", "TERM", "LANG", "LC_ALL", "PYTHONIOENCODING")
VARIABLES += ("PDVSIM_GIT_REVISION", "CUDA_VISIBLE_DEVICES", "NO_COLOR", "PATH", "XDG_CACHE_HOME")
SETTINGS = ("", "0", "-5", "1", "abc", "²", "/no/such", "ascii", "C", "utf-16", "99999999999")
SHELLS = (
    *("RUN", "RUN", "RUN", "RUN >&-", "RUN > /dev/full", "RUN 2>&-", "RUN 2> /dev/full", "RUN <&-"),
    *("RUN | head -c 10", "RUN | true", "RUN --json | head -c 1", "RUN --json > /dev/full"),
    *("mkdir gone; cd gone; rmdir ../gone; RUN", "ulimit -f 0; RUN", "ulimit -n 16; RUN"),
    *("ulimit -u 1; RUN", "chmod 0 .; RUN", "RUN >&- 2>&- <&-", "umask 777; RUN"),
)


def environment(seeds: Path) -> Make:
    """Whole processes in odd surroundings."""

    def make(rng: Random, folder: Path) -> Mutant:
        name = rng.choice(("predict", "audit", "explain", "report"))
        words = [
            str(seeds / word) if (seeds / word).is_file() else word for word in BASES[name].split()
        ]
        run = f"$PYTHON -m pdvsim {name} {shlex.join(words)}"
        shell = rng.choice(SHELLS).replace("RUN", run)
        changed = {rng.choice(VARIABLES): rng.choice(SETTINGS) for _ in range(rng.randrange(3))}
        return Mutant([], shell=shell, environment=changed)

    return make
