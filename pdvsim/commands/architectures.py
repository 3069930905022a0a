"""`pdvsim architectures`: what each is, how it is drawn, and what can be set and switched off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pdvsim import output
from pdvsim.architectures import ARCHITECTURES, architecture
from pdvsim.cell import spoken

if TYPE_CHECKING:
    from rich.console import Console

    from pdvsim.architectures import Architecture


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME or FILE.py]...")
@output.json_option
def command(names: tuple[str, ...], as_json: bool) -> None:
    """What each architecture is: its lanes, parameters and mechanisms. All, or those named."""
    chosen = [architecture(name) for name in names or ARCHITECTURES]
    if as_json:
        described = [describe(one) for one in chosen]
        output.print_json({"command": "architectures", "architectures": described})
        return
    page = output.console()
    for one in chosen:
        show(one, page)


def describe(one: Architecture) -> dict[str, Any]:
    """What there is to know of an architecture, as JSON."""
    return {
        "name": one.name,
        "summary": one.summary,
        "speculative": one.speculative,
        "lanes": [
            {
                "name": lane.name,
                "takes": list(lane.takes),
                "work": {str(work): str(stream) for work, stream in lane.work.items()},
                "puts": list(lane.puts),
            }
            for lane in one.sketch
        ],
        "parameters": {
            name: {"default": field.default, **field.metadata}
            for name, field in one.fields().items()
        },
        "mechanisms": list(one.switches),
        "colour": one.colour,
    }


def show(one: Architecture, page: Console) -> None:
    """Print an architecture: sentence, lanes, parameters, mechanisms."""
    from rich.markup import escape

    page.print(f"[bold]{one.name}[/bold]: {one.summary}")
    for line in one.drawing().splitlines():
        page.print(escape(f"  {line}"))
    for name, field in one.fields().items():
        about = field.metadata
        page.print(
            f"  {name} = {spoken(one.checked({})[name])} ({about['low']:g} to {about['high']:g}): "
            f"{about['meaning']}"
        )
    if one.switches:
        page.print(f"  mechanisms for ablate: {', '.join(one.switches)}")
    page.print()
