"""How much machines of one kind differ: host and device times of the same work on several hosts.

    python benchmarks/machine_spread.py -o results/machine_spread.json

Nothing is run: it reads what was measured on different H100s of different hosts. *Host*: seconds
of undisturbed launches over those of the shipped profile (`pdvsim.measured.host_speed`), cell by
cell; a session's own host is as far from the calibrated one as any user's. *Device*: mean seconds
of a stage in `plain` cells, where nothing else is on the device, and of stages timed alone. A
calibrated machine and a user's are two draws, so what counts is how far *two* of them lie apart:
the root mean square of log ratios over all pairs of hosts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np

from pdvsim.core import Stage
from pdvsim.documents import read
from pdvsim.documents.benchmark import Benchmark
from pdvsim.measured.benched import bench_of
from pdvsim.measured.host_speed import host_factors
from pdvsim.profile import load_profile

# Sessions by host; the files of one were measured beside each other within minutes.
GRAPH = {
    "2026-11-24 19:42": ("earlier/1/graph_c8.json", "earlier/1/graph_c1_c32_c128.json"),
    "2026-11-24 20:14": ("earlier/2/graph_c8.json",),
    "2026-11-24 20:28": ("h100_bench_c1.json", "h100_bench_c8.json", "h100_bench_c32_c128.json"),
    "2026-11-25 05:38": ("h100_bench_seed_7.json",),
}
EAGER = {
    "2026-11-24 03:59": (
        *("h100_bench_0_c16.json", "h100_bench_1_c16.json"),
        *("h100_bench_0_c32_64.json", "h100_bench_1_c32_64.json"),
    ),
    "2026-11-24 04:42": ("h100_bench_0_c1_c4_c8.json", "h100_bench_1_c1_c4_c8.json"),
}
# That host seconds are put in units of, of the engine that ran.
PROFILES = {
    "graph": "results/graph/earlier/2/profile.json",
    "eager": "h100_tinyllama-1.1b_llama-2-7b_eager",
}
# The last two are of one engine; its kernels were a little slower in the first.
STAGES = ("h100_stages_81c411a.json", "h100_stages_b750653.json", "h100_stages.json")
TIMED = ("draft_ms", "verify_ms", "decode_ms", "prefill_verifier_ms")
Values = dict[str, dict[str, float]]  # by what was done, then by host


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args()
    graph = sessions(options.results / "graph", GRAPH)
    eager = sessions(options.results / "eager", EAGER)
    hosts = {name: factors(found, name) for name, found in (("graph", graph), ("eager", eager))}
    device = {
        "stages of plain": device_ms(graph),
        "stages alone": timed(options.results / "graph"),
    }
    own = {"graph": "2026-11-24 20:14", "eager": ""}
    document = {
        "what": "root mean square of the log ratio of two machines; ratios in per cent",
        "host factor of another host": {
            name: spread_of(
                log(factor)
                for by in found.values()
                for host, factor in by.items()
                if host != own[name]
            )
            for name, found in hosts.items()
        },
        "host, two hosts apart": {"graph": apart(hosts["graph"])},
        "device, two hosts apart": {name: apart(found) for name, found in device.items()},
        "host factors": hosts,
        "device ms": device,
    }
    options.output.write_text(json.dumps(document, indent=1) + "\n")
    found = {name: value for name, value in document.items() if " of " in name or "apart" in name}
    print(json.dumps(found, indent=1))


def sessions(folder: Path, files: Mapping[str, Sequence[str]]) -> dict[str, list[Any]]:
    """Pairs of (document, bench) by host."""
    found: dict[str, list[Any]] = {}
    for host, names in files.items():
        for name in names:
            document = read(folder / name)
            assert isinstance(document, Benchmark)
            found.setdefault(host, []).append((document, bench_of(document, folder)))
    return found


def factors(found: Mapping[str, Sequence[Any]], executor: str) -> Values:
    """Host seconds over those of the profile, median over spans, by cell and host."""
    profile = load_profile(PROFILES[executor])
    table: dict[str, dict[str, list[float]]] = {}
    for host, documents in found.items():
        for _, bench in documents:
            for cell in bench.cells:
                where = f"{cell.cell.architecture} C={cell.cell.concurrency}"
                for run in cell.runs:
                    spans = host_factors(run, profile)
                    table.setdefault(where, {}).setdefault(host, []).extend(spans)
    return {
        where: {host: float(np.median(spans)) for host, spans in by.items() if spans}
        for where, by in table.items()
        if any(by.values())
    }


def device_ms(found: Mapping[str, Sequence[Any]]) -> Values:
    """Mean device milliseconds of a stage in `plain` cells."""
    table: Values = {}
    for host, documents in found.items():
        for document, _ in documents:
            for row in document.cells:
                if row.cell.architecture != "plain":
                    continue
                for stage, seconds in row.stages.items():
                    where = f"{Stage(stage)} C={row.concurrency}"
                    table.setdefault(where, {})[host] = 1e3 * seconds.device / seconds.count
    return table


def timed(folder: Path) -> Values:
    """Milliseconds of stages timed alone, by file."""
    table: Values = {}
    for name in STAGES:
        sections = json.loads((folder / name).read_text())
        for section, content in sections.items():
            if " batch " in section and "context" in section:
                for stage in TIMED:
                    table.setdefault(f"{section} {stage}", {})[name] = content[stage]
    return table


def spread_of(logs: Any) -> dict[str, float]:
    values = np.array(list(logs))
    rms = float(np.sqrt((values**2).mean()))
    return {"count": len(values), "log_rms": rms, "typical_ratio_percent": 100.0 * (exp(rms) - 1.0)}


def apart(table: Values) -> dict[str, float]:
    """Over all pairs of hosts that did the same."""
    return spread_of(
        log(by[one] / by[other]) for by in table.values() for one, other in combinations(by, 2)
    )


if __name__ == "__main__":
    main()
