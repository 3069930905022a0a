"""Groups of mutants: files that are wrong in one place, and the commands that read them.

Each maker writes one mutant into an empty folder, from a random generator.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import mutations
import polars as pl
from mutant_seeds import (
    BENCH,
    PLAIN_TABLE,
    ROOT,
    TRACE,
    Make,
    Mutant,
    believed,
    seed_bytes,
    seed_text,
)

from pdvsim.errors import PdvsimError
from pdvsim.profile import save_profile
from pdvsim.profile_file import ProfileFile


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
