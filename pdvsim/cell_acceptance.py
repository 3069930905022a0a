"""What a cell may say of acceptance, and how that reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pdvsim.errors import InputError

if TYPE_CHECKING:
    from pdvsim.acceptance import Outcomes
    from pdvsim.cell import Cell

LEAST_SPREAD = 0.001
FIELDS_OF_INJECTED = ("acceptance_spread", "acceptance_lasts", "acceptance_from")


def check_acceptance(cell: Cell) -> None:
    """Refuse what does not go together.

    Raises:
        InputError: in a sentence.
    """
    from pdvsim.cell import FIELDS, REAL, flag
    from pdvsim.protocols import protocols

    if cell.acceptance == REAL:
        if protocols()[cell.protocol].open_loop:
            raise InputError(f"--acceptance real is only for a closed loop, not {cell.protocol}")
        if cell.temperature and cell.executor != "graph":
            raise InputError("--temperature is only for the graph executor")
        for name in FIELDS_OF_INJECTED:
            if getattr(cell, name) != FIELDS[name].default:
                raise InputError(f"{flag(name)} is only for injected acceptance, which is not real")
        return
    if cell.temperature:
        raise InputError("--temperature is only for --acceptance real")
    if len(cell.acceptance) != cell.draft_tokens:
        raise InputError(
            f"--acceptance has {len(cell.acceptance)} positions, but --draft-tokens is "
            f"{cell.draft_tokens}"
        )
    _check_spread(cell)


def _check_spread(cell: Cell) -> None:
    spread = cell.acceptance_spread
    if cell.acceptance_lasts is not None and not spread:
        raise InputError(
            "--acceptance-lasts is of what differs between requests; give --acceptance-spread too"
        )
    if cell.acceptance_from is not None and spread:
        raise InputError(
            "--acceptance-from brings what differs between requests; leave --acceptance-spread out"
        )
    if 0.0 < spread < LEAST_SPREAD:  # the quantiles of narrower distributions are not computed
        raise InputError(
            f"--acceptance-spread is {spread:g}; it must be 0, or at least {LEAST_SPREAD:g}"
        )
    for mean in cell.acceptance:
        most = (float(mean) * (1.0 - float(mean))) ** 0.5
        if spread and 0.0 < most <= spread:
            raise InputError(
                f"--acceptance-spread is {spread:g}; of probabilities round {mean:g} it must be "
                f"below {most:.3g}"
            )


def injected(cell: Cell) -> Outcomes | None:
    """Where the accepted drafts of a cell come from; None for real tokens."""
    from pdvsim.acceptance import Acceptance, Replayed
    from pdvsim.cell import REAL

    if cell.acceptance == REAL:
        return None
    if cell.acceptance_from is not None:
        from pdvsim.acceptance_file import measured_acceptance

        found = measured_acceptance(cell.acceptance_from)
        return Replayed(found.rounds, cell.draft_tokens)
    return Acceptance(cell.acceptance, cell.acceptance_spread, cell.acceptance_lasts)


def acceptance_text(cell: Cell) -> str:
    """Where acceptance comes from, in words."""
    from pdvsim.acceptance_forms import tokens_per_round
    from pdvsim.cell import REAL

    if cell.acceptance == REAL:
        return "real tokens"
    kept, drafts = cell.acceptance, cell.draft_tokens
    each = ", ".join(f"{p:.3g}" for p in kept)
    if cell.acceptance_from is not None:
        name = Path(cell.acceptance_from.path).name
        return f"replayed from {name}, where {each} were kept by draft position"
    if len(set(kept)) == 1:
        said = f"injected, {kept[0]:.3g} at each of {drafts} draft positions"
    else:
        said = f"injected, {each} by draft position"
    tokens = tokens_per_round(kept, cell.acceptance_spread, cell.acceptance_lasts)
    said += f" ({100 * (tokens - 1) / drafts:.3g} % of drafts, {tokens:.3g} tokens a round)"
    if cell.acceptance_spread:
        said += f", with a deviation of {cell.acceptance_spread:g} between requests"
    if cell.acceptance_lasts is not None:
        said += f" that lasts for {cell.acceptance_lasts} rounds"
    return said
