"""Draws docs/predicted_measured.svg from the committed validations.

python benchmarks/readme_figure.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt
import polars as pl

from pdvsim.documents import read
from pdvsim.documents.validation import Validation

ROOT = Path(__file__).parent.parent
SOURCES = {"eager": "results/eager/validate.json", "graph": "results/graph/validate.json"}
ORDER = ["plain", "baseline", "pd", "three_lane", "pdv"]


def points() -> pl.DataFrame:
    """One row per validated cell: output tokens/s, measured and predicted with its interval."""
    rows: list[dict[str, Any]] = []
    for executor, source in SOURCES.items():
        document = read(ROOT / source)
        assert isinstance(document, Validation)
        for row in document.cells:
            predicted, measured = row.output_throughput, row.measured["output_throughput"]
            assert measured is not None
            rows.append(
                {
                    "executor": executor,
                    "architecture": row.label,
                    "C": row.concurrency,
                    "measured": measured.value,
                    "predicted": predicted.value,
                    "low": max(predicted.low, 0.3 * predicted.value),
                    "high": predicted.high,
                }
            )
    return pl.DataFrame(rows)


def panel(table: pl.DataFrame, executor: str) -> alt.LayerChart:
    rows = table.filter(pl.col("executor") == executor)
    ends = [0.9 * rows["measured"].min(), 1.1 * rows["measured"].max()]  # type: ignore[operator]
    scale = alt.Scale(type="log", domain=ends, nice=False, clamp=True)
    x = alt.X("measured:Q", scale=scale, title="measured output tokens/s")
    color = alt.Color("architecture:N", sort=ORDER, scale=alt.Scale(scheme="tableau10"))
    base = alt.Chart(rows)
    diagonal = (
        alt.Chart(pl.DataFrame({"at": ends}))
        .mark_line(color="#999", strokeDash=[4, 4])
        .encode(x=alt.X("at:Q", scale=scale), y=alt.Y("at:Q", scale=scale))
    )
    bars = base.mark_rule(opacity=0.5).encode(
        x=x, y=alt.Y("low:Q", scale=scale, title="predicted"), y2="high:Q", color=color
    )
    dots = base.mark_point(filled=True, size=55, opacity=0.9).encode(
        x=x, y=alt.Y("predicted:Q", scale=scale, title="predicted"), color=color
    )
    return (diagonal + bars + dots).properties(width=300, height=260, title=f"{executor} executor")


def main() -> None:
    table = points()
    chart = alt.hconcat(*(panel(table, executor) for executor in SOURCES)).properties(
        title="One H100, TinyLlama -> Llama-2-7B, closed loop; lines are 95 % intervals for one run"
    )
    chart.save(ROOT / "docs" / "predicted_measured.svg")


if __name__ == "__main__":
    main()
