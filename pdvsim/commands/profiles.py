"""`pdvsim profiles`: which there are, what is in one, how two differ, if one can be true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from pdvsim import output

if TYPE_CHECKING:
    from rich.console import Console

    from pdvsim.profile import Profile
    from pdvsim.profiles.compared import Difference
    from pdvsim.statistics import Interval

Cells = Sequence[str]


@click.group(invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Calibrated machines: those that ship, by name, and any other, by its file."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@command.command("list")
@output.json_option
def list_(as_json: bool) -> None:
    """The profiles that ship with pdvsim."""
    from pdvsim.profile import load_profile, shipped_profiles

    rows = [about(load_profile(name)) for name in shipped_profiles()]
    if as_json:
        output.print_json({"command": "profiles list", "profiles": rows})
        return
    head = ("name", "GPU", "measured", "requests up to")
    lines = [
        (row["name"], row["gpu"], row["created"][:10], str(row["most_requests"])) for row in rows
    ]
    _table(output.console(), head, lines)


@command.command()
@click.argument("name", metavar="NAME or FILE.json")
@output.json_option
def show(name: str, as_json: bool) -> None:
    """What stands in a profile: machine, stages with ranges, costs, floors and misses, host."""
    from pdvsim.profile import load_profile

    profile = load_profile(name)
    shown = {**about(profile), **_machine(profile), "stages": stages(profile)}
    if as_json:
        output.print_json({"command": "profiles show", **shown})
        return
    page = output.console()
    for key, value in shown.items():
        if key != "stages":
            page.print(f"{key.replace('_', ' ')}: {value}")
    head = ("stage", "batch", "measured", "host ms", "device ms", "over floor", "fit misses")
    seen: set[str] = set()
    _table(page, head, [_stage(row, seen) for row in shown["stages"]])
    page.print(
        "Costs: with 95 % of what bootstrap and misses of the fit leave open, at "
        "256 tokens and 4 drafts or the nearest measured."
    )


@command.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@output.json_option
def compare(first: str, second: str, as_json: bool) -> None:
    """How two profiles differ, stage by stage, where both were measured."""
    from pdvsim.profile import load_profile
    from pdvsim.profiles.compared import apart, differences

    sides = load_profile(first), load_profile(second)
    found, said = list(differences(*sides)), apart(*sides)
    if as_json:
        rows = [{**asdict(one), "certain": one.certain} for one in found]
        names = {"first": sides[0].name, "second": sides[1].name}
        document = {"command": "profiles compare", **names, "said": said, "differences": rows}
        output.print_json(document)
        return
    page = output.console()
    for sentence in said:
        page.print(sentence)
    head = ("stage", "part", "batch", "A ms", "B ms", "B / A", "")
    _table(page, head, [_difference(one) for one in found])


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME or FILE.json]...")
@output.json_option
@click.pass_context
def check(ctx: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """Hold profiles against physics: floors, order, ranges, rates, age. All that ship, or those
    named; exit code 1 if predictions from one of them are wrong."""
    from pdvsim.profile import load_profile, shipped_profiles
    from pdvsim.profiles.checks import findings

    found = {name: findings(load_profile(name)) for name in names or shipped_profiles()}
    if as_json:
        rows = {name: [asdict(finding) for finding in each] for name, each in found.items()}
        output.print_json({"command": "profiles check", "profiles": rows})
    else:
        page = output.console()
        for name, each in found.items():
            page.print(f"[bold]{name}[/bold]: {'nothing is wrong' if not each else ''}")
            for finding in each:
                page.print(f"  {'FAULT' if finding.fault else 'care'}: {finding.sentence}")
    if any(finding.fault for each in found.values() for finding in each):
        ctx.exit(1)


def about(profile: Profile) -> dict[str, Any]:
    """What a list says of a profile."""
    file = profile.file
    return {
        "name": profile.name,
        "pair": profile.pair.name,
        "executor": file.executor,
        "gpu": file.provenance.gpu,
        "created": file.provenance.created,
        "most_requests": min(fit.measured.batch[1] for fit in file.stages.values()),
    }


def _machine(profile: Profile) -> dict[str, Any]:
    file = profile.file
    rates = file.ceilings
    return {
        "host": file.provenance.host_cpu,
        "driver": file.provenance.driver,
        "torch": file.provenance.torch,
        "copy_rate_tb_per_s": None if rates is None else round(rates.copy_bytes_per_s / 1e12, 3),
        "matrix_rate_tflops": None if rates is None else round(rates.matmul_flops_per_s / 1e12, 1),
        "host_run_spread": round(file.host.run_spread, 4),
        "wake_us": round(1e6 * file.host.wake_s.value, 1),
        "speeds_of_launching_threads": [round(one.value, 3) for one in file.host.gil_speeds],
        "pairs_of_stages_measured_together": len(file.contention),
        "measurements": file.provenance.measurements,
        "command": file.provenance.command,
    }


def stages(profile: Profile) -> list[dict[str, Any]]:
    """A row for each stage and usual batch."""
    from pdvsim.core import Stage
    from pdvsim.profiles.stages import batches, cost, launch

    rows = []
    for stage, fit in profile.file.stages.items():
        if stage is Stage.MIXED:
            continue
        for batch in batches(fit.measured.batch):
            found = cost(profile, stage, launch(stage, fit.measured, batch))
            rows.append(
                {
                    "stage": str(stage),
                    "batch": batch,
                    "measured": fit.measured.model_dump(),
                    "host_s": asdict(found.host),
                    "device_s": asdict(found.device),
                    "floor_s": found.floor_s,
                    "missed": fit.device.missed,
                    "residual_rms": fit.device.residual_rms,
                    "left_out_rms": fit.device.left_out_rms,
                }
            )
    return rows


def _stage(row: dict[str, Any], seen: set[str]) -> Cells:
    """A line; what was measured stands in the first of each stage, which `seen` notes."""
    from pdvsim.statistics import Interval

    measured, floor_s = {} if row["stage"] in seen else row["measured"], row["floor_s"]
    seen.add(row["stage"])
    device = Interval(**row["device_s"])
    return (
        row["stage"],
        str(row["batch"]),
        ", ".join(
            f"{name.replace('_', ' ')} {_ends(ends)}"
            for name, ends in measured.items()
            if ends is not None
        ),
        _ms(Interval(**row["host_s"])),
        _ms(device),
        f"{device.value / floor_s:.2f}" if floor_s else "n/a",
        f"{100 * row['missed']:.1f} %",
    )


def _ends(ends: Sequence[int]) -> str:
    return str(ends[0]) if ends[0] == ends[1] else f"{ends[0]}-{ends[1]}"


def _difference(one: Difference) -> Cells:
    return (
        str(one.stage),
        one.part,
        str(one.batch),
        output.number(1e3 * one.first_s),
        output.number(1e3 * one.second_s),
        _interval(one.ratio),
        "differ" if one.certain else "",
    )


def _ms(found: Interval) -> str:
    return _interval(found, 1e3)


def _interval(found: Interval, scale: float = 1.0) -> str:
    from pdvsim.documents.cells import told

    value, ends = told(found, scale)
    return f"{value} ({ends})"


def _table(page: Console, head: Cells, rows: Sequence[Cells]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(*head, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    page.print(table)
