"""docs/architecture.md describes the tree as it is: no module missing, none that has gone."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("pdvsim", "realengine", "calibration", "reports")
# Rooms whose files the page need not name one by one: what the room is for is said.
ROOMS = ("reports",)


def rows() -> list[str]:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.split("## Modules", 1)[1].split("\n## ", 1)[0]
    return [line for line in table.splitlines() if line.startswith("| `")]


def named() -> set[Path]:
    """Files and folders of the first column; a bare name stands in the folder before it."""
    found = set()
    for row in rows():
        folder = ROOT
        for name in re.findall("`([^`]+)`", row.split("|")[1]):
            whole = name.split("/")[0] in PACKAGES
            path = (ROOT if whole else folder) / name
            found.add(path)
            if path.suffix == ".py" and name.count("/"):
                folder = path.parent
    return found


def test_every_module_that_the_page_names_exists() -> None:
    assert len(rows()) > 20
    assert [str(path) for path in sorted(named()) if not path.exists()] == []


def test_every_module_and_room_at_the_top_of_a_package_is_named() -> None:
    said = "\n".join(rows())
    unnamed = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).iterdir()):
            if path.name.startswith("__") or package in ROOMS:
                continue
            if path.suffix == ".py" or (path / "__init__.py").exists():
                word = rf"\b{path.stem}\b"
                if not re.search(word, said):
                    unnamed.append(f"{package}/{path.name}")
    assert unnamed == []
