"""The graph executor's own tiles on a GPU: which are right, and which are fastest.

    python benchmarks/engine_tiles.py --json OUT.json

Products of few rows (`realengine/graph/thin.py`): every tile against float64, beside cuBLAS, and
what `fastest` would choose, for the matrices of a Llama-2-7B and of an EAGLE-3 head. Decode
attention of a Llama-2-7B layer, 320 cached tokens, for 5 new tokens and for 1: tiles and splits by
batch, beside the time to copy as many bytes. Nothing is found in the L2 cache.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from engine_stages import GPU, Report, ceilings
from thin_linear import SHAPES

from pdvsim.models import ModelShape, shape
from realengine.graph import thin
from realengine.graph.ops import TorchOps, Uniform, Use
from realengine.graph.paged import paged_cache
from realengine.graph.triton_ops import DecodeTile, TritonOps

CONTEXT = 320
DECODE_TILES = (
    DecodeTile(32, 4, 5),
    DecodeTile(32, 4, 4),
    DecodeTile(32, 4, 3),
    DecodeTile(32, 2, 4),
    DecodeTile(64, 4, 4),
    DecodeTile(64, 4, 3),
    DecodeTile(64, 8, 3),
    DecodeTile(128, 8, 3),
)


def check_products() -> dict[str, Any]:
    """Largest error of each matrix's products, in standard deviations, and cuBLAS's."""
    worst: dict[str, Any] = {}
    for name, (columns, width) in SHAPES.items():
        use = use_of(name)
        weight = torch.randn(columns, width, device=GPU, dtype=torch.bfloat16) * 0.02
        for most, tiles in thin.TILES.items():
            x = torch.randn(most - 3, width, device=GPU, dtype=torch.bfloat16)
            form = TorchOps().gated if use is Use.GATED else F.linear
            exact = form(x.double(), weight.double())
            library = float((form(x, weight).double() - exact).abs().max() / exact.std())
            for tile in tiles:
                if width % tile.width == 0 and (tile.parts == 1 or use is Use.ADDED):
                    ours = thin.product(x, weight, use, tile).double()
                    ours = ours.sum(0) if tile.parts > 1 else ours
                    error = float((ours - exact).abs().max() / exact.std())
                    worst[f"{name} {most} {tile}"] = [error, library]
    ok = all(ours <= 1.5 * library + 0.01 for ours, library in worst.values())
    return {"ok": ok, "worst": max(worst.values()), "errors": worst}


def choose_products() -> dict[str, Any]:
    """What `fastest` finds."""
    chosen: dict[str, Any] = {}
    ops = TritonOps(1)
    for name, (columns, width) in SHAPES.items():
        weight = torch.randn(columns, width, device=GPU, dtype=torch.bfloat16)
        ops.tune([(weight, use_of(name))])
        found = ops.products.ways[columns, width, use_of(name)]
        chosen[name] = {str(most): str(tile) for most, tile in found.items()}
    return chosen


def use_of(name: str) -> Use:
    uses = {"gate_up": Use.GATED, "output": Use.ADDED, "down": Use.ADDED}
    return uses.get(name, Use.PLAIN)


def attention(
    batch: int,
    query: int,
    copy_rate: float,
    tiles: Sequence[DecodeTile] = DECODE_TILES,
    model: str = "llama-2-7b",
    programs: Sequence[int] = (2, 4, 8),
) -> dict[str, Any]:
    """Microseconds of one layer by tile, and by `programs` to a multiprocessor as shipped."""
    one = shape(model)
    layer_bytes = batch * CONTEXT * one.kv_bytes_per_token // one.layers
    layers = max(2, -(-(200 << 20) // layer_bytes))
    some = ModelShape("some", layers, one.hidden, one.heads, one.kv_heads, 64, 64, 4096)
    width = CONTEXT // 16 + 2
    order = torch.randperm(batch * width, device=GPU) + 1
    table = order.int().view(batch, width)
    lengths = torch.full((batch,), CONTEXT + 1, device=GPU)
    cache = paged_cache(some, batch * width + 1, 16, table, lengths, torch.bfloat16)
    for layer in cache.layers:
        layer.normal_()
    columns = one.query_width + 2 * one.kv_width
    qkv = torch.randn(batch * query, columns, device=GPU, dtype=torch.bfloat16)
    view = Uniform(torch.arange(batch, device=GPU), query, -1)
    count = torch.cuda.get_device_properties(GPU).multi_processor_count

    def microseconds(ops: TritonOps) -> float:
        seconds = thin.cold_s(
            lambda layer: ops.attend(qkv, one.heads, cache, layer, view), list(range(layers)), GPU
        )
        return float(seconds * 1e6)

    row: dict[str, Any] = {"floor_us": layer_bytes / copy_rate * 1e6}
    expected = None
    for tile in tiles:
        ops, name = TritonOps(count, tile), tile_name(tile)
        try:
            out = ops.attend(qkv, one.heads, cache, 0, view).float()
            expected = out if expected is None else expected
            off = float((out - expected).abs().max() / expected.std())
            row[name] = [microseconds(ops), off]
        except Exception as problem:
            row[name] = [1e9, str(problem)[:100]]
    for more in programs if batch <= 32 else ():
        row[f"programs x {more}"] = [microseconds(TritonOps(more * count)), 0.0]
    return row


def tile_name(tile: DecodeTile) -> str:
    return f"{tile.tokens} {tile.warps} {tile.stages}"


def best_tile(rows: list[dict[str, Any]]) -> str:
    """The tile whose times, as shares of those of the first, are least on average."""
    names = [tile_name(tile) for tile in DECODE_TILES]
    first = names[0]
    return min(names, key=lambda n: sum(row[n][0] / row[first][0] for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="where results go")
    options = parser.parse_args()
    report = Report(options.json)
    copy_rate = report.section("ceilings", ceilings)["copy_bytes_per_s"]
    checked = report.section("products against float64", check_products)
    print(checked.get("ok"), checked.get("worst"))
    print(report.section("products chosen", choose_products))
    rows = []
    for query, batch in itertools.product((5, 1), (1, 8, 32, 128, 256)):
        row = report.section(
            f"attention, {query} new, batch {batch}",
            lambda q=query, b=batch: attention(b, q, copy_rate),
        )
        print({key: value[0] if isinstance(value, list) else value for key, value in row.items()})
        if batch >= 32:
            rows.append(row)
    print("best", report.section("best decode tile", lambda: best_tile(rows)))


if __name__ == "__main__":
    main()
