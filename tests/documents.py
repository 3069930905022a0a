"""Pieces of documents, and what to look for in the pages made from them."""

from __future__ import annotations

import re
from typing import Any

from pdvsim.documents import Document
from pdvsim.documents.reading import parse
from pdvsim.verdict import judged

Interval = dict[str, float | None]

CALIBRATION = {
    **dict.fromkeys(("driver", "torch", "transformers", "python", "host_cpu"), "some"),
    **dict.fromkeys(("git_revision", "created", "command", "acceptance", "measurements"), "some"),
    **{"name": "made up", "pair": "a:b", "executor": "eager", "gpu": "none", "seed": 0},
}


def made(kind: str, **fields: Any) -> Document:
    """A document of a kind, with its verdict."""
    head = {
        "kind": kind,
        "schema_version": 2,
        "pdvsim": "0.1",
        "created": "2026-11-25T00:00:00+00:00",
        "git_revision": None,
        "command": f"pdvsim {kind}",
        "subject": "made up",
        "valid_for": "nothing",
        "interval": "95 %",
        "verdict": {"sentence": "", "validity": "valid", "caveats": []},
        "notes": [],
    }
    return judged(parse({**head, **fields}, "it"))


def interval(value: float, half: float | None = None) -> Interval:
    if half is None:
        return {"value": value, "low": None, "high": None}
    return {"value": value, "low": value - half, "high": value + half}


def body(page: str) -> str:
    """The page without the JavaScript libraries, whose sources hold HTML in strings."""
    return page.split("</main>")[0]


def headings(page: str) -> set[str]:
    return set(re.findall(r"<h2>(.*?)</h2>", body(page)))


def offline(page: str) -> bool:
    """Whether the page names nothing to fetch, and its policy refuses the network."""
    fetched = re.findall(r"<(?:link|img|iframe|script)[^>]*(?:src|href)=|@import", body(page))
    # A specification says which schema it follows; nobody fetches that.
    addresses = re.findall(r"https?://(?!vega\.github\.io/schema/)", body(page))
    return not fetched and not addresses and "default-src 'none'" in page
