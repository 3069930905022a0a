"""What is promised in Python: the documentation runs, and imports are lazy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import pdvsim
from pdvsim.errors import InputError
from tests.kinds import ROOT

BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
HEAVY = ("numpy", "scipy", "simpy", "polars", "pydantic", "rich", "altair", "torch", "click")


def blocks(name: str) -> str:
    """The Python of a page, as one script."""
    found = BLOCK.findall((ROOT / name).read_text(encoding="utf-8"))
    assert found, f"{name} holds no Python"
    return "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "docs/python.md"])
def test_the_python_of_the_documentation_runs_as_a_plain_script(name: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(blocks(name), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_readme_shows_ten_lines() -> None:
    assert len(blocks("README.md").splitlines()) <= 12


def test_importing_imports_nothing_heavy() -> None:
    code = "import sys, pdvsim; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {name.partition(".")[0] for name in done.stdout.split()} & set(HEAVY)


def test_functions_are_not_hidden_by_the_packages_of_their_names() -> None:
    import pdvsim.ablate.shapley
    import pdvsim.crossover.curve
    import pdvsim.explain.causes

    for name in pdvsim.__all__:
        assert callable(getattr(pdvsim, name)), name
    from pdvsim.crossover import Pairs

    assert Pairs
    assert set(pdvsim.__all__) <= set(dir(pdvsim))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        pdvsim.nonsense  # noqa: B018


def test_the_draft_length_comes_from_the_acceptance() -> None:
    profile = pdvsim.load_profile("h100_tinyllama-1.1b_llama-2-7b_graph")
    load = pdvsim.closed_loop(2, acceptance=[0.8, 0.6])
    (cell,) = load.cells(profile, "pd")
    assert (cell.draft_tokens, cell.acceptance) == (2, (0.8, 0.6))
    assert (cell.pair, cell.executor) == ("tinyllama-1.1b:llama-2-7b", "graph")
    for draft_tokens in (3, 4):  # 4 is what one number would draft
        load = pdvsim.closed_loop(2, acceptance=[0.8, 0.6], draft_tokens=draft_tokens)
        with pytest.raises(InputError, match="has 2 positions, but"):
            load.cells(profile, "pd")


def test_a_load_says_what_was_given() -> None:
    assert repr(pdvsim.poisson(3.0)) == "Load(protocol=poisson, rate_per_s=3.0, concurrency=32)"
