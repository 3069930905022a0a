"""How long `import pdvsim` and `pdvsim --help` take, interpreter and all: the best of ten.

    python benchmarks/startup.py

Bars: 0.2 s and 0.4 s. `tests/test_cli.py` asserts what makes it so: neither imports a big library.
"""

from __future__ import annotations

import subprocess
import sys
import time

CASES = {
    "python alone": ("pass", None),
    "import pdvsim": ("import pdvsim", 0.2),
    "pdvsim --help": ("from pdvsim.cli import run; run(['--help'])", 0.4),
}


def best_of_ten(code: str) -> float:
    """Seconds of the quickest of ten processes."""
    seconds = []
    for _ in range(10):
        began_s = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        seconds.append(time.perf_counter() - began_s)
    return min(seconds)


def main() -> None:
    for name, (code, bar_s) in CASES.items():
        bar = "" if bar_s is None else f" (bar {bar_s} s)"
        print(f"{name}: {best_of_ten(code):.3f} s{bar}")


if __name__ == "__main__":
    main()
