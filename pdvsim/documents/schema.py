"""JSON schemas of all kinds of document: `python -m pdvsim.documents.schema docs/schema`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pdvsim.documents.reading import KINDS, model


def schema(kind: str) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a kind of document."""
    found = model(kind).model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def text(kind: str) -> str:
    """As it stands in its file."""
    return json.dumps(schema(kind), indent=1) + "\n"


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        (folder / f"{kind}.json").write_text(text(kind), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
