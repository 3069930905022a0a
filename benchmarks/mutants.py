"""Runs the command line on thousands of inputs that are wrong in one place; counts what it does.

    python benchmarks/mutants.py --count 10000 --json results/mutants.json
    python benchmarks/mutants.py --group records --only 17    # one mutant again, with its files

Whole inputs of every kind are made first, by the commands themselves. A mutant is one of them with
one change (`mutations.py`), run in a forked process with 20 s of processor time. Bars: no
traceback, nothing over 20 s, nothing above 2 GB, no device or link replaced, nothing believed that
can't be.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import mutant_files as files  # noqa: E402
import mutant_words as words  # noqa: E402
from mutant_seeds import DOCUMENTS, OLD, Make, Mutant, write_seeds  # noqa: E402

from pdvsim import cli  # noqa: E402

CPU_S, WALL_S, BYTES = 20, 120, 2 << 30
BATCH = 40  # mutants to a forked process
GOOD = ("refused", "ran")


class Hang(BaseException):
    """The mutant has had its time."""


def all_groups(seeds: Path, engine: bool) -> dict[str, tuple[float, Make]]:
    """Share of the mutants and maker, by name; those that need an engine only with one."""
    found: dict[str, tuple[float, Make]] = {
        "profile": (13, files.profile("profile.json", seeds)),
        "trace": (7, files.trace(seeds)),
        "published": (4, files.table("summary.csv", seeds, "audit summary.csv detailed.csv")),
        "detail": (3, files.table("detailed.csv", seeds, "audit summary.csv detailed.csv")),
        "reproduce": (
            2,
            files.table(
                "summary.csv",
                seeds,
                "reproduce summary.csv detailed.csv --profile SEEDS/profile.json --replications 2",
            ),
        ),
        "plain_csv": (4, files.table("plain.csv", seeds, "audit plain.csv")),
        "impossible_table": (3, files.impossible_table(seeds)),
        "export": (12, files.export(seeds)),
        "records": (8, files.records(seeds)),
        "impossible_records": (4, files.impossible_records(seeds)),
        "large": (0.5, files.large(seeds)),
        "outputs": (2, words.outputs(seeds)),
        "environment": (2, words.environment(seeds)),
    }
    report = "report FILE -o out.html"
    for name in DOCUMENTS:
        commands = (report, report, "audit FILE") if name == "predict" else (report,)
        found[f"{name}_document"] = (2, files.document(f"{name}.json", seeds, *commands))
        found[f"{name}_options"] = (2, words.options(name, seeds))
    found["report_options"] = (0.5, words.options("report", seeds))
    bench = (
        *(report, "audit FILE", "explain --bench FILE --profile SEEDS/tiny.json --replications 1"),
        *("validate --bench FILE --profile SEEDS/tiny.json --predictions 1",),
    )
    for name in OLD:
        if (seeds / f"old_{Path(name).name}").exists():
            found[f"old_{Path(name).stem}"] = (
                1,
                files.document(f"old_{Path(name).name}", seeds, report),
            )
    if engine:
        found |= {
            "bench_document": (7, files.document("bench.json", seeds, *bench)),
            "validate_document": (2, files.document("validate.json", seeds, report)),
            "tiny_profile": (2, files.profile("tiny.json", seeds)),
            "partial": (7, files.partial_file(seeds)),
            "bench_options": (2, words.options("bench", seeds)),
            "validate_options": (2, words.options("validate", seeds)),
            "calibrate_options": (1, words.options("calibrate", seeds)),
            "checkpoint": (5, files.checkpoint("llama-2", seeds, engine)),
            "checkpoint_qwen": (3, files.checkpoint("qwen3", seeds, engine)),
        }
    return found


# ------------------------------------------------------------------------------- one mutant


def run_mutant(group: str, make: Make, index: int, folder: Path) -> dict[str, Any]:
    """Make and run one mutant in `folder`; what it did."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mutant = make(Random(f"{group}-{index}"), folder)
    os.chdir(folder)
    before = nodes(mutant, folder)
    began_s = time.monotonic()
    spent_s = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    result = in_shell(mutant, folder) if mutant.shell else in_process(mutant, folder)
    result |= {
        "cpu_s": sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - spent_s,
        "group": group,
        "index": index,
        "words": mutant.words or [mutant.shell],
        "wall_s": time.monotonic() - began_s,
    }
    if result["kind"] in GOOD:
        if nodes(mutant, folder) != before:
            result["kind"] = "replaced"
        elif list(folder.rglob("*.part")):
            result |= {"kind": "leftover", "what": "a .part file"}
        elif mutant.check and (what := mutant.check(result["code"], result.pop("out"))):
            result |= {"kind": "believed", "what": what}
    result.pop("out", None)
    return result


def nodes(mutant: Mutant, folder: Path) -> list[int]:
    """What kinds of thing stand where no result may take their place."""
    paths = [folder / name for name in mutant.nodes] + [Path("/dev/null"), Path("/dev/full")]
    return [stat.S_IFMT(path.lstat().st_mode) if os.path.lexists(path) else 0 for path in paths]


def in_process(mutant: Mutant, folder: Path) -> dict[str, Any]:
    Path("/proc/self/clear_refs").write_text("5")  # the highest memory so far is forgotten
    spent_s = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    limit_s = int(spent_s) + CPU_S + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, resource.RLIM_INFINITY))
    signal.alarm(WALL_S)
    result: dict[str, Any] = {"code": None}
    with standard_streams(folder):
        try:
            result["code"] = cli.run(mutant.words)
        except Hang as hang:
            result |= {"kind": "hang", "what": site(hang)}
        except MemoryError as error:
            result |= {"kind": "memory", "what": site(error)}
        except BaseException as error:
            result |= {"kind": "traceback", "what": site(error)}
        signal.alarm(0)
    result["out"] = (folder / ".out").read_text(errors="replace")
    result["err"] = (folder / ".err").read_text(errors="replace")
    peak = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    result["peak_bytes"] = 1024 * int(peak[1]) if peak else 0
    if result["peak_bytes"] > BYTES or "not enough memory" in result["err"]:
        result["kind"] = "memory"
    return classified(result)


def in_shell(mutant: Mutant, folder: Path) -> dict[str, Any]:
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    environment |= mutant.environment
    (folder / "scratch").mkdir()
    try:
        done = subprocess.run(
            ["/bin/bash", "-c", mutant.shell],
            cwd=folder / "scratch",
            env=environment,
            capture_output=True,
            timeout=WALL_S,
        )
    except subprocess.TimeoutExpired:
        return {"kind": "hang", "what": "a process"}
    err = done.stderr.decode(errors="replace")
    result = {"code": done.returncode, "out": "", "err": err}
    if "Traceback" in err or "Exception ignored" in err:
        lines = [line for line in err.split("\n") if line]
        result |= {"kind": "traceback", "what": lines[-1][:200]}
    return classified(result)


def classified(result: dict[str, Any]) -> dict[str, Any]:
    """`result` with its kind; a refusal is exit code 2 and a sentence of ours."""
    if "kind" not in result:
        if result["code"] == 2 and not sentence(result["err"]):
            result |= {"kind": "silent", "what": "exit code 2 without one sentence"}
        else:
            result["kind"] = "refused" if result["code"] == 2 else "ran"
    result["err"] = result["err"][-600:]
    return result


def sentence(err: str) -> bool:
    lines = [line for line in err.split("\n") if line and not line.startswith("/bin/bash: ")]
    return not lines or lines[-1].startswith("pdvsim: ")


def site(error: BaseException) -> str:
    """The innermost line of ours that an exception passed, and what it was."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if str(ROOT) in frame.filename and "mutants" not in frame[0]]
    last = (ours or frames)[-1]
    where = f"{Path(last.filename).relative_to(ROOT) if ours else last.filename}:{last.lineno}"
    return f"{where} {type(error).__name__}: {error}"[:300]


@contextlib.contextmanager
def standard_streams(folder: Path) -> Iterator[None]:
    """stdout and stderr into files of `folder`, whoever writes."""
    kept, streams = [os.dup(1), os.dup(2)], (sys.stdout, sys.stderr)
    for stream in streams:
        stream.flush()
    for descriptor, name in ((1, ".out"), (2, ".err")):
        target = os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(target, descriptor)
        os.close(target)
    sys.stdout = os.fdopen(os.dup(1), "w", errors="backslashreplace")
    sys.stderr = os.fdopen(os.dup(2), "w", errors="backslashreplace")
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        sys.stdout, sys.stderr = streams
        for descriptor, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)


# ------------------------------------------------------------------------------ all of them


def in_child(work: Any, limit_s: float) -> bool:
    """Run `work()` in a fork; whether it came to its end in time."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def prepare_process() -> None:
    """Limits end a mutant, not the process; and nothing helps it."""

    def stop(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGXCPU, stop)
    signal.signal(signal.SIGALRM, stop)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def run_batch(group: str, make: Make, indices: range, log: Path, scratch: Path) -> None:
    """Run mutants in forked processes; a process that dies is replaced by another for the rest."""
    start = indices.start

    def some() -> None:
        prepare_process()
        with log.open("a") as file:
            for index in range(start, indices.stop):
                file.write(json.dumps(run_mutant(group, make, index, scratch)) + "\n")
                file.flush()

    while start < indices.stop:
        whole = in_child(some, WALL_S + 30 + 5 * CPU_S * len(indices))
        done = sum(json.loads(line)["group"] == group for line in log.read_text().splitlines())
        if not whole and start + 0 <= done < indices.stop:
            lost = {"kind": "died", "group": group, "index": done, "what": "the process", "code": 0}
            with log.open("a") as file:
                file.write(json.dumps(lost) + "\n")
            done += 1
        start = done


def run_all(count: int, only: str | None, engine: bool, folder: Path) -> list[dict[str, Any]]:
    """Seeds, then every group's share of `count` mutants, groups spread over the cores."""
    seeds = folder / "seeds"
    seeds.mkdir()
    if not in_child(lambda: write_seeds(seeds, engine), 300):
        raise SystemExit("the whole inputs could not be made")
    found = all_groups(seeds, engine)
    shares = {name: share for name, (share, _) in found.items() if only is None or only in name}
    cores = sorted(os.sched_getaffinity(0))
    logs, runners = [folder / f"log{core}.jsonl" for core in cores], []
    for number, (core, log) in enumerate(zip(cores, logs, strict=True)):
        log.touch()
        if runner := os.fork():
            runners.append(runner)
            continue
        os.sched_setaffinity(0, {core})
        for name in list(shares)[number :: len(cores)]:
            most = max(1, round(count * shares[name] / sum(shares.values())))
            for begin in range(0, most, BATCH):
                batch = range(begin, min(begin + BATCH, most))
                run_batch(name, found[name][1], batch, log, folder / f"scratch{core}")
        os._exit(0)
    for runner in runners:
        os.waitpid(runner, 0)
    return [json.loads(line) for log in logs for line in log.read_text().splitlines()]


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts by outcome and group, and every bad one."""
    kinds = Counter(result["kind"] for result in results)
    by_group: dict[str, Counter[str]] = {}
    for result in results:
        by_group.setdefault(result["group"], Counter())[result["kind"]] += 1
    cpu_s = {
        name: sum(r.get("cpu_s", 0.0) for r in results if r["group"] == name) / sum(counts.values())
        for name, counts in by_group.items()
    }
    slowest = sorted(results, key=lambda r: r.get("wall_s", 0.0), reverse=True)
    bad = [result for result in results if result["kind"] not in GOOD]
    return {
        "mutants": len(results),
        "outcomes": dict(kinds),
        "longest_s": round(slowest[0].get("wall_s", 0.0), 1),
        "slowest": [
            {key: result.get(key) for key in ("group", "index", "cpu_s", "wall_s")}
            for result in slowest[:5]
        ],
        "most_bytes": max(result.get("peak_bytes", 0) for result in results),
        "groups": {name: dict(counts) for name, counts in by_group.items()},
        "mean_cpu_s": {name: round(value, 3) for name, value in cpu_s.items()},
        "bad": bad,
    }


def import_all(engine: bool) -> None:
    """Imported once, here, so that a fork costs nothing; nothing runs before it."""
    for name, entry in cli.COMMANDS.items():
        if engine or entry.extra == "":
            cli.load(name)
    import altair  # noqa: F401
    import scipy.stats  # noqa: F401

    import pdvsim.audit
    import pdvsim.sweep  # noqa: F401
    import reports.page  # noqa: F401

    if engine:
        import torch

        import realengine.graph  # noqa: F401

        torch.set_num_threads(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--group", help="of groups with this in their names only")
    parser.add_argument("--only", type=int, help="this one of the group, and leave its files")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--core-only", action="store_true", help="without torch")
    options = parser.parse_args()
    engine = not options.core_only
    import_all(engine)
    folder = Path(tempfile.mkdtemp(prefix="mutants-"))
    began_s = time.monotonic()
    if options.only is not None:
        (folder / "seeds").mkdir()
        in_child(lambda: write_seeds(folder / "seeds", engine), 300)
        make = all_groups(folder / "seeds", engine)[options.group][1]
        prepare_process()
        print(json.dumps(run_mutant(options.group, make, options.only, folder / "m"), indent=1))
        print(folder)
        return
    results = run_all(options.count, options.group, engine, folder)
    shutil.rmtree(folder)
    revision = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    document = {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", *sys.argv]),
        "git_revision": subprocess.run(revision, capture_output=True, text=True).stdout.strip(),
        "elapsed_s": round(time.monotonic() - began_s, 1),
        **summary(results),
    }
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps({k: v for k, v in document.items() if k != "bad"}, indent=1))
    sites = Counter((bad["kind"], bad["group"], bad.get("what", "")) for bad in document["bad"])
    for (kind, group, what), times in sites.most_common():
        first = next(
            b["index"]
            for b in document["bad"]
            if (b["kind"], b["group"], b.get("what", "")) == (kind, group, what)
        )
        print(f"{times:5} {kind:10} {group} (--only {first}): {what}")


if __name__ == "__main__":
    main()
