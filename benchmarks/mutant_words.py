"""Groups of mutants: odd words for options, places for results that can't be, odd surroundings."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from pathlib import Path
from random import Random

import click
from mutant_seeds import BENCH, DOCUMENTS, ONCE, TINY, Make, Mutant

from pdvsim import cli

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
                most = min(most, 100) if option.opts[0] == "--replications" else most
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
