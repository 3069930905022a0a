"""How many planted faults `pdvsim audit` finds, and how often it cries wolf.

Tables come from the simulated world (`audit_tables.py`). A clean one is what a benchmark
writes when it does everything right. A faulty one gets one of six faults in the way they
happen: cut at a time limit, slow requests dropped, the wrong model pair named, a handful of
requests in a cell, rows copied, times divided. Each is planted where the file still holds
numbers that contradict it; what leaves no trace nobody can find.

A fault counts as found if a rule meant for it reports an error or warning. A clean table with
any error or warning is a false alarm.

    python benchmarks/audit_faults.py --json > results/audit_faults.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from audit_tables import GPU_MIB, VERIFIERS, Bench, build, write_csv, write_vllm

from pdvsim.audit import Limits, Severity, audit, read
from pdvsim.models import Pair, shape

LIMITS = Limits(gpu_memory_mib=GPU_MIB, bytes_per_s=3.35e12, flops_per_s=989e12)
COUNTED_AS = {
    "truncated": {"truncation"},
    "survivors_only": {"survivorship", "littles_law"},
    "wrong_pair": {"memory", "floors"},
    "few_samples": {"samples"},
    "doubled_rows": {"duplicates", "identical"},
    "impossible_speed": {"floors"},
}
FAULTS = tuple(COUNTED_AS)


def spoil(bench: Bench, fault: str) -> None:
    """Plant the faults that happen after measuring."""
    rng = bench.rng
    cells = bench.cells
    if fault == "survivors_only":
        bench.with_detail = bench.with_detail or not bench.with_offered
        share = rng.uniform(0.15, 0.4)
        for cell in cells[int(rng.integers(2)) * 2 :]:
            limit = np.quantile(cell["latencies"], 1 - share)
            keep = [i for i, latency in enumerate(cell["latencies"]) if latency <= limit]
            cell["requests"] = [cell["requests"][i] for i in keep]
            cell["latencies"] = [cell["latencies"][i] for i in keep]
    elif fault == "wrong_pair":
        others = [name for name in VERIFIERS if name != bench.pair.verifier.name]
        bench.claimed = Pair(bench.pair.draft, shape(str(rng.choice(others))))
    elif fault == "few_samples":
        for i in rng.choice(len(cells), int(rng.integers(1, 4)), replace=False):
            cell, few = cells[i], int(rng.integers(1, 6))
            cell["requests"], cell["latencies"] = cell["requests"][:few], cell["latencies"][:few]
            cell["offered"] = few
            cell["elapsed_s"] = max(r.completed_s or 0.0 for r in cell["requests"])
    elif fault == "doubled_rows":
        cell = cells[int(rng.integers(len(cells)))]
        copied = dict(cell)
        if rng.random() < 0.5:  # under another load: the numbers of one run shown as two
            copied["load"] = 2 * cell["load"]
        cells.append(copied)
    elif fault == "impossible_speed":
        for cell in cells:
            tokens = sum(r.produced_tokens for r in cell["requests"])
            drafts = sum(r.drafted_tokens for r in cell["requests"])
            per_round = tokens / (drafts / bench.draft_tokens)
            verify_s = bench.pair.verifier.weight_bytes / 3.35e12
            draft_s = bench.draft_tokens * bench.pair.draft.weight_bytes / 3.35e12
            floor_s = (verify_s + draft_s) / per_round
            decode_s = sum(
                (r.completed_s or 0.0) - (r.first_token_s or 0.0) for r in cell["requests"]
            ) / (tokens - len(cell["requests"]))
            cell["divide"] = decode_s / (floor_s * rng.uniform(0.3, 0.8))


@dataclass(frozen=True)
class Verdict:
    """What the audit said of one table."""

    seed: int
    fault: str | None
    format: str
    found: bool
    alarms: tuple[str, ...]


def judge(task: tuple[int, str | None]) -> Verdict:
    """Make one table, write it, audit it."""
    seed, fault = task
    bench = build(seed, fault)
    if fault is not None:
        spoil(bench, fault)
    with tempfile.TemporaryDirectory() as name:
        write = write_csv if bench.format == "csv" else write_vllm
        table, detail = write(bench, Path(name))
        report = audit(read(table, detail, models=bench.claimed), LIMITS)
    alarms = tuple(
        f"{f.rule} ({f.severity}): {f.message}"
        for f in report.findings
        if f.severity is not Severity.NOTE
    )
    rules = {f.rule for f in report.findings if f.severity is not Severity.NOTE}
    found = bool(rules & COUNTED_AS[fault]) if fault else False
    return Verdict(seed, fault, bench.format, found, alarms)


def revision() -> str:
    """The git revision, with a mark if the tree was changed."""
    root = Path(__file__).parent
    git = ["git", "-C", str(root)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    dirty = subprocess.run([*git, "status", "--short"], capture_output=True, text=True, check=False)
    return head.stdout.strip() + (" and uncommitted changes" if dirty.stdout.strip() else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=200, help="faulty tables, and clean ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--misses", action="store_true", help="explain them on stderr")
    args = parser.parse_args()
    first = args.seed * 100_000
    tasks: list[tuple[int, str | None]] = [
        (first + i, FAULTS[i % len(FAULTS)]) for i in range(args.tables)
    ]
    tasks += [(first + 50_000 + i, None) for i in range(args.tables)]
    with ProcessPoolExecutor(args.workers) as pool:
        verdicts = list(pool.map(judge, tasks, chunksize=4))
    faulty = [v for v in verdicts if v.fault]
    clean = [v for v in verdicts if not v.fault]
    if args.misses:
        for v in verdicts:
            if (v.fault and not v.found) or (not v.fault and v.alarms):
                print(v.seed, v.fault or "clean", v.format, v.alarms, file=sys.stderr)
    planted = Counter(v.fault for v in faulty)
    found = Counter(v.fault for v in faulty if v.found)
    alarmed = [v for v in clean if v.alarms]
    document = {
        "benchmark": "audit_faults",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": "python " + " ".join(sys.argv),
        "git_revision": revision(),
        "seed": args.seed,
        "faulty_tables": len(faulty),
        "found": sum(found.values()),
        "found_share": sum(found.values()) / len(faulty),
        "by_fault": {
            str(name): {"planted": planted[name], "found": found[name]} for name in FAULTS
        },
        "clean_tables": len(clean),
        "false_alarms": len(alarmed),
        "false_alarm_share": len(alarmed) / len(clean),
        "formats": dict(Counter(v.format for v in verdicts)),
    }
    if args.json:
        print(json.dumps(document, indent=2))
    else:
        print(
            f"found {document['found']} of {len(faulty)} planted faults; false alarms on "
            f"{len(alarmed)} of {len(clean)} clean tables"
        )
        for name in FAULTS:
            print(f"  {name}: {found[name]} of {planted[name]}")


if __name__ == "__main__":
    main()
