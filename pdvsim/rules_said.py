"""How many prompts are prefilled, and requests verified, at once, in words."""

from __future__ import annotations

from collections.abc import Sequence

from pdvsim.architectures.lane import PREFILL_TOKENS
from pdvsim.cell import AUTO, Cell, Value, flag, labels

# By parameter: what it limits, what is done without a limit, and what published systems do.
RULES = {
    "prefill_batch": (
        "Prompts are prefilled",
        f"together as far as {PREFILL_TOKENS:,} tokens hold them",
        "published systems prefill 1 at a time",
    ),
    "verify_batch": (
        "Requests are verified",
        "together as far as they wait",
        "the published system verifies 8 at a time",
    ),
}


def rules_said(cells: Sequence[Cell]) -> list[str]:
    """How many prompts are prefilled, and requests verified, at once: a sentence for each rule."""
    of = dict(zip(labels(cells), cells, strict=True))
    lines = []
    for name, (what, by_itself, published) in RULES.items():
        found: dict[Value, list[str]] = {}
        for label, cell in of.items():
            config = cell.config()
            asked = config.parameters.get(name)
            if asked is not None and (asked != AUTO or config.executor.batched):
                found.setdefault(asked, []).append(label)
        for asked, names in found.items():
            where = f" in {', '.join(names)}" if len(names) < len(of) else ""
            if asked == AUTO:
                lines.append(f"{what} {by_itself}{where}; {published} ({flag(name)}).")
            else:
                count = "one" if asked == 1 else f"up to {asked:,}"
                lines.append(f"{what} {count} at a time{where}: see {flag(name)}.")
    return lines
