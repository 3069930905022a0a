"""Kills measuring commands at random moments until they end by themselves, and checks the result.

    python benchmarks/kills.py --count 200 --json results/kills.json

bench, validate and calibrate run on the toy pair, each in a forked process that SIGKILL meets
anywhere: while it opens the engine, measures, keeps a measurement, or writes the result. The same
command is then called again. Bars: of what was finished nothing is lost, repeated or mixed with
anything else, in the partial file and in the result; no process is left behind.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from pdvsim import cli  # noqa: E402

ENGINE = "--device cpu --pair toy --executor graph"
LOAD = "--architecture pd,pdv --concurrency 1,2 --requests 2 --prompt-tokens 8 --output-tokens 4"
BENCH = f"{ENGINE} {LOAD} --replications 6 -o out.json"
COMMANDS = {
    "bench": f"bench {BENCH}",
    "validate": f"validate {BENCH} --profile ../profile.json --predictions 1",
    "calibrate": f"calibrate {ENGINE} --quick -o out.json",
}
RUNS = 24  # of bench and validate: 2 architectures, 2 loads, 6 replications
EARLY = 0.15  # share of kills before the first finished measurement of a campaign
SPAN_S = 1.2  # a kill comes within it


@dataclass
class Campaign:
    """One command, called again after each kill until it ends by itself."""

    command: str
    folder: Path
    kept: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)

    @property
    def out(self) -> Path:
        return self.folder / "out.json"

    @property
    def samples(self) -> Path:
        return self.folder / "out_samples.parquet"

    @property
    def partial(self) -> Path:
        return self.folder / "out.json.partial.jsonl"

    def look(self) -> None:
        """Hold the partial file against what it held before."""
        found: dict[str, Any] = {}
        for line in self.lines()[1:]:
            content = json.loads(line)
            if content["key"] in found:
                self.faults.append(f"{content['key']} is in the file twice")
            found[content["key"]] = content["value"]
        for key, value in self.kept.items():
            if self.partial.exists() and found.get(key) != value:
                self.faults.append(f"{key} was finished, and is lost or another")
        if not self.partial.exists() and self.kept and not self.out.exists():
            self.faults.append("the partial file is gone and there is no result")
        self.kept |= found

    def lines(self) -> list[str]:
        """The whole lines of the partial file."""
        if not self.partial.exists():
            return []
        return [line for line in self.partial.read_text().split("\n")[:-1] if line]

    def check_result(self) -> None:
        """Everything that was kept stands in the result, and nothing twice."""
        if self.partial.exists():
            self.faults.append("the partial file is still there")
        left = [p.name for p in self.folder.iterdir() if ".part" in p.name]
        if left:
            self.faults.append(f"left behind: {left}")
        check = {"bench": self.check_bench, "validate": self.check_validate}
        check.get(self.command, self.check_calibrate)()

    def check_bench(self) -> None:
        text = self.out.read_text()
        said = Counter(map(float, re.findall(r'"elapsed_s": ([0-9.e+-]+)', text)))
        finished = Counter(value["elapsed_s"] for value in self.kept.values())
        if sum(said.values()) != RUNS or max(said.values()) > 1:
            self.faults.append(f"{sum(said.values())} runs in the result, of {RUNS}")
        if finished - said:
            self.faults.append("a finished run is not in the result")

    def check_validate(self) -> None:
        """A measured throughput is the mean of the finished runs of its cell."""
        text = self.out.read_text()
        json.loads(text)
        said = list(map(float, re.findall(r'"value": ([0-9.e+-]+)', text)))
        cells: dict[str, list[float]] = {}
        for key, value in self.kept.items():
            metric = value["run"]["metrics"]["output_throughput"]
            cells.setdefault(key.rpartition("-")[0], []).append(metric)
        for name, values in cells.items():
            mean = sum(values) / len(values)
            if len(values) == 6 and not any(abs(one - mean) <= 1e-9 * mean for one in said):
                self.faults.append(f"the mean throughput of {name} is not in the result")

    def check_calibrate(self) -> None:
        """Each kept sample of a stage is a row of the samples, with its number of the pass."""
        # In a process of its own: what is forked after polars has threads would wait for them.
        code = f"import polars; print(polars.read_parquet({str(self.samples)!r}).write_json())"
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
        rows = json.loads(said)
        known = Counter(self._sample(row) for row in rows)
        for key, value in self.kept.items():
            if key.startswith("rounds-") and Counter(map(self._sample, value)) - known:
                self.faults.append(f"{key} was finished, and is not among the samples")
        if max(known.values()) > 1:
            self.faults.append("a sample is there twice")

    @staticmethod
    def _sample(row: dict[str, Any]) -> str:
        return json.dumps({k: v for k, v in row.items() if k != "pass" and v is not None})


def short_calibration() -> None:
    from calibration import plan as plans

    plan = plans.Plan((8, 16), (1, 2), 2, 6, race_seconds=0.05, race_rounds=2, lengths=(1, 4))
    plans.quick = lambda _: plan


def start(words: str, folder: Path) -> int:
    """The process id of a fork that runs a command in a session of its own."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        os.setsid()
        os.chdir(folder)
        quiet = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        short_calibration()
        code = cli.run(words.split())
    finally:
        os._exit(code)


def ended(child: int, until: Callable[[], bool]) -> int | None:
    """Wait for `until()`; the exit code if the process ends before."""
    while not until():
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def alive(session: int) -> list[int]:
    """Processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(folder.name))
    return found


def one_life(campaign: Campaign, rng: Random) -> bool:
    """Call the command, and kill it at a random moment; whether the result is there."""
    child = start(COMMANDS[campaign.command], campaign.folder)
    before = len(campaign.lines())
    early = before < 2 and rng.random() < EARLY
    code = None
    if not early and (before < 2 or rng.random() < 0.6):  # else from its very start
        code = ended(child, lambda: len(campaign.lines()) > max(before, 1))
    if code is None:
        moment_s = time.monotonic() + rng.uniform(0.0, SPAN_S)
        code = ended(child, lambda: time.monotonic() >= moment_s)
    if code is None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kept = len(campaign.lines()) >= 2
        campaign.kills["on kept measurements" if kept else "before the first"] += 1
    deadline_s = time.monotonic() + 5
    while alive(child) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    for orphan in alive(child):
        campaign.faults.append("a process is left behind")
        os.kill(orphan, signal.SIGKILL)
    campaign.look()
    if code not in (None, 0):
        said = (campaign.folder / "log").read_text()[-300:]
        raise SystemExit(f"{campaign.command} ended with {code}: {said}")
    # Killed after it had written the result, while it printed, it had ended too.
    return code == 0 or (campaign.out.exists() and not campaign.partial.exists())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    import torch

    import realengine.graph  # noqa: F401

    torch.set_num_threads(1)
    for name in COMMANDS:
        cli.load(name)
    rng, began_s = Random(options.seed), time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    calibrating = start(f"calibrate {ENGINE} --quick -o profile.json", folder)
    assert ended(calibrating, lambda: False) == 0, (folder / "log").read_text()
    campaigns: list[Campaign] = []
    while sum(sum(c.kills.values()) for c in campaigns) < options.count:
        command = list(COMMANDS)[len(campaigns) % len(COMMANDS)]
        campaigns.append(campaign := Campaign(command, folder / f"{len(campaigns)}"))
        campaign.folder.mkdir()
        while not one_life(campaign, rng):
            pass
        campaign.check_result()
        print(command, dict(campaign.kills), campaign.faults, flush=True)
    shutil.rmtree(folder)
    revision = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    document = {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", *sys.argv]),
        "git_revision": subprocess.run(revision, capture_output=True, text=True).stdout.strip(),
        "elapsed_s": round(time.monotonic() - began_s, 1),
        "kills": dict(sum((c.kills for c in campaigns), Counter())),
        "kills_by_command": {
            name: sum(sum(c.kills.values()) for c in campaigns if c.command == name)
            for name in COMMANDS
        },
        "results": dict(Counter(c.command for c in campaigns)),
        "measurements_kept_at_kills": sum(len(c.kept) for c in campaigns),
        "faults": [f"{c.command}: {fault}" for c in campaigns for fault in c.faults],
    }
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
