"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from pdvsim.core import EXECUTORS
from pdvsim.workload import PROTOCOLS

CELL = (
    click.option("--pair", default=None, help="DRAFT:VERIFIER [tinyllama-1.1b:llama-2-7b]"),
    click.option(
        "--executor",
        type=click.Choice(list(EXECUTORS)),
        default=None,
        help="[graph, or that of the profile or records]",
    ),
    click.option("--profile", "profile_name", default=None, help="A shipped name, or a file."),
    click.option(
        "--protocol", type=click.Choice(PROTOCOLS), default="closed-loop", show_default=True
    ),
    click.option("--rate", type=float, default=None, help="Requests/s of the poisson protocol."),
    click.option("--prompt-tokens", type=int, default=128, show_default=True),
    click.option("--output-tokens", type=int, default=64, show_default=True),
    click.option("--acceptance", type=float, default=0.7, show_default=True, help="Per position."),
    click.option("--draft-tokens", type=int, default=4, show_default=True),
    click.option("--admission-factor", type=float, default=None, help="Where there is one. [1]"),
    click.option("--prefill-batch", type=int, default=None, help="Prompts a prefill stage. [1]"),
    click.option("--seed", type=int, default=0, show_default=True),
)


def cell_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say what a simulated cell is: models, profile, load and seed."""
    for option in reversed(CELL):
        command = option(command)
    return command
