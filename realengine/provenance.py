"""Where a measurement comes from: machine, versions, revision, command."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

import pdvsim

MACHINE = ("gpu", "driver", "torch", "transformers", "python", "host_cpu", "git_revision")
PACKAGES = ("pdvsim", "realengine", "calibration")


def provenance(device: torch.device, seed: int, acceptance: str) -> dict[str, Any]:
    """Everything that a reader needs to repeat or to doubt a measurement."""
    cuda = device.type == "cuda"
    return {
        "gpu": torch.cuda.get_device_name(device) if cuda else "none (CPU)",
        "driver": _driver() if cuda else "none",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "host_cpu": f"{_cpu_name()}, {os.cpu_count()} cores",
        "git_revision": _revision(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["pdvsim", *sys.argv[1:]]),
        "seed": seed,
        "acceptance": acceptance,
    }


def identity(about: Mapping[str, Any], *references: str | None) -> dict[str, Any]:
    """What a measurement depends on beside its options: machine, versions, our own code, and the
    contents of the files and folders among `references` (a pair, a trace)."""
    parts = [part for reference in references if reference for part in reference.split(":")]
    paths = [Path(part.rpartition("=")[2]) for part in parts]
    home = Path(pdvsim.__file__).parents[1]
    return {
        **{key: about[key] for key in MACHINE},
        "code": [_content(home / package, "*.py") for package in PACKAGES],
        "contents": {str(path): _content(path) for path in paths if path.exists()},
    }


def _content(path: Path, pattern: str = "*") -> str:
    """A digest of a file, or of the names and contents of a folder's files."""
    files = sorted(p for p in path.rglob(pattern) if p.is_file()) if path.is_dir() else [path]
    digests = []
    for file in files:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        digests.append(f"{file.relative_to(path)} {digest}")
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:16]


def _driver() -> str:
    try:
        import pynvml

        pynvml.nvmlInit()
        version = pynvml.nvmlSystemGetDriverVersion()
    except Exception:  # no NVML is no reason to lose a measurement
        return "unknown"
    return version.decode() if isinstance(version, bytes) else str(version)


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _revision() -> str:
    """PDVSIM_GIT_REVISION where the checkout travels without its history, else git's."""
    given = os.environ.get("PDVSIM_GIT_REVISION")
    if given:
        return given
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--verify", "HEAD"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else "unknown"
