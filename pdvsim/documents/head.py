"""How a document begins: who wrote it, when, and as it was called."""

from __future__ import annotations

import datetime
import os
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from pdvsim import __version__
from pdvsim.documents.base import SCHEMA_VERSION, Calibration
from pdvsim.profile import Profile

ROOT = Path(__file__).parents[2]


def head(kind: str, command: str | None = None) -> dict[str, Any]:
    """The fields that every document begins with.

    Args:
        command: as it was called; None for a call from Python.
    """
    return {
        "kind": kind,
        "schema_version": SCHEMA_VERSION,
        "pdvsim": __version__,
        "created": now(),
        "git_revision": revision(),
        "command": command or f"pdvsim.{kind}(...)",
    }


def command_line() -> str:
    """What was typed."""
    return shlex.join(["pdvsim", *sys.argv[1:]])


def now() -> str:
    """The moment, ISO 8601 in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@cache
def revision() -> str | None:
    """PDVSIM_GIT_REVISION where the checkout travels without its history, else git's; None outside
    a checkout."""
    given = os.environ.get("PDVSIM_GIT_REVISION")
    if given or not (ROOT / ".git").exists():
        return given or None
    command = ["git", "-C", str(ROOT), "rev-parse", "--verify", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # no git
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def calibration(profile: Profile) -> Calibration:
    """Where a profile's numbers come from."""
    return Calibration(**profile.provenance)


def valid_for(profile: Profile) -> str:
    """The engine whose behaviour a profile describes."""
    gpu = profile.file.provenance.gpu
    return f"pdvsim's {profile.executor.name} executor, {profile.pair.name}, on {gpu}"
