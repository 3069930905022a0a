"""Mixed passes whose rounds have long contexts, as rows to add to a calibration's samples.

    python benchmarks/mixed_contexts.py -o h100_..._mixed.parquet [--pair DRAFT:VERIFIER]

An engine of one draft length; about a minute on an H100, most of it for building.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import polars as pl

from calibration.stages import blocker
from calibration.trains import Samples, measure_mixed
from pdvsim.cell import DEFAULT_PAIR
from pdvsim.core import GRAPH
from realengine.build import Demand, open_engine

CONTEXTS = (64, 256, 512, 1024, 1800)
BATCHES = (8, 24, 64, 120)
CHUNKS = (128, 1024)
ROOM = 76_000
REPEATS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pair", default=DEFAULT_PAIR)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    began_s = time.perf_counter()
    demand = Demand(4, 128, 2048, ROOM if options.device == "cuda" else 4096)
    engine = open_engine(options.pair, GRAPH, options.device, demand).engine
    block = blocker(engine, 4) if options.device == "cuda" else None
    print(f"built in {time.perf_counter() - began_s:.0f} s", file=sys.stderr)
    engine.start()
    rows: Samples = []
    first = 0
    for chunk in CHUNKS:
        for context in CONTEXTS:
            for batch in BATCHES:
                room = ROOM if options.device == "cuda" else 2048
                late = time.perf_counter() - began_s > options.seconds
                if batch * (context + 48) + chunk > room or late:
                    continue
                try:
                    rows += measure_mixed(
                        engine, batch, 4, chunk, 0, context, REPEATS, first, block
                    )
                except Exception as error:  # one point less is not the end
                    print(f"{batch} at {context} with {chunk}: {error}", file=sys.stderr)
                first += batch + 1
    pl.DataFrame([row | {"pass": 0} for row in rows]).write_parquet(options.output)
    print(f"{len(rows)} rows in {time.perf_counter() - began_s:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
