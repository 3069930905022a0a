"""A hundred of the mutants of `benchmarks/mutants.py`: refused or run, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_what_is_wrong_in_one_place_is_refused_or_run(tmp_path: Path) -> None:
    # In a process of its own: it forks, which threads of other tests would not survive.
    out = tmp_path / "mutants.json"
    script = str(ROOT / "benchmarks" / "mutants.py")
    command = [sys.executable, script, "--core-only", "--count", "100", "--json", str(out)]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    document = json.loads(out.read_text())
    assert document["bad"] == []
    assert document["outcomes"].keys() == {"refused", "ran"}
    assert document["mutants"] >= 95
