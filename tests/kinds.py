"""Documents of every kind for tests: the committed ones, and a small audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pdvsim.documents import Document, read
from pdvsim.documents.reading import parse

ROOT = Path(__file__).parent.parent
COMMITTED = {
    "predict": "results/case_study/predict_prefill_batch_8_c128.json",
    "bench": "results/graph/h100_bench_c1.json",
    "validate": "results/graph/prefill_batch_8/validate.json",
    "explain": "results/explain_h100_eager.json",
    "crossover": "results/graph/break_even.json",
    "ablate": "results/case_study/ablate_h100_graph_c128.json",
    "reproduce": "results/reproduce_pdverify.json",
}

OLD_AUDIT: dict[str, Any] = {
    "command": "audit",
    "source": "runs/vllm.json",
    "format": "vllm",
    "cells": 2,
    "verdict": "claims fail",
    "findings": [
        {
            "rule": "littles_law",
            "severity": "error",
            "cells": ["vllm at 8"],
            "message": "11.8 in flight at a cap of 8",
            "evidence": {"in_flight": 11.8, "names": ["a", "b"]},
            "settle": "the time stamps of the requests",
        }
    ],
    "rules": [
        {"rule": "littles_law", "checked": 2, "needs": "throughput and latency"},
        {"rule": "memory", "checked": 0, "needs": "a model pair"},
    ],
}
KINDS = (*COMMITTED, "audit")


def old(kind: str) -> dict[str, Any]:
    """The content of a document from before they were typed."""
    if kind == "audit":
        copied: dict[str, Any] = json.loads(json.dumps(OLD_AUDIT))
        return copied
    content: dict[str, Any] = json.loads((ROOT / COMMITTED[kind]).read_text())
    return content


def document(kind: str) -> Document:
    """A document of today."""
    return parse(old(kind), "old") if kind == "audit" else read(ROOT / COMMITTED[kind])


def plain(document: Document) -> dict[str, Any]:
    """Its JSON."""
    content: dict[str, Any] = json.loads(document.to_json())
    return content
