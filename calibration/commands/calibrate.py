"""`pdvsim calibrate`: measure this machine and write its profile."""

from __future__ import annotations

from pathlib import Path

import click

from pdvsim import output
from pdvsim.cell import DEFAULT_EXECUTOR, DEFAULT_PAIR, check_bounds
from pdvsim.core import EXECUTORS
from pdvsim.options import draft_tokens_option, executor_option, pair_option, seed_option


@click.command()
@click.option("--device", default="cuda", show_default=True, help="cuda, cuda:N or cpu.")
@pair_option
@executor_option
@draft_tokens_option
@seed_option
@click.option("--quick", is_flag=True, help="Fewer points and passes: a look, not a profile.")
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    default=Path("profile.json"),
    show_default=True,
    help="The profile; its measurements are written beside it.",
)
@output.json_option
def command(
    device: str,
    pair: str | None,
    executor: str | None,
    draft_tokens: int,
    seed: int,
    quick: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Measure stages, threads and contention; fit and write a profile.

    Finished measurements are kept beside the output file; call again to go on after a kill."""
    from calibration import plan as plans
    from calibration.calibrate import cache_tokens, calibrate
    from pdvsim.models import pair as pair_of
    from pdvsim.profile import save_profile
    from pdvsim.result_file import write_parquet
    from pdvsim.store import Store, partial_path
    from pdvsim.work import uniform_work
    from realengine.build import Demand, open_engine
    from realengine.device import free_bytes, torch_device
    from realengine.provenance import identity, provenance

    output.check_writable(out)
    check_bounds("draft_tokens", draft_tokens)
    check_bounds("seed", seed)
    pair, executor = pair or DEFAULT_PAIR, executor or DEFAULT_EXECUTOR
    synchronous = EXECUTORS[executor].synchronous
    plan = plans.EAGER_PLAN if synchronous else plans.GRAPH_PLAN
    plan = plans.quick(plan) if quick else plan
    where = torch_device(device)
    free = free_bytes(where) if where.type == "cuda" else None
    models = pair_of(pair)
    most_tokens = cache_tokens(models, plan, free)
    reach = min(decoder.longest_context_tokens for decoder in models.decoders)
    if synchronous:
        longest = max(plan.prompts) + plan.growth
        demand = Demand(max(draft_tokens, *plan.lengths), 1, longest, most_tokens, seed)
    else:
        largest = max(point.batch for point in plan.points(most_tokens, reach))
        others = tuple(each for each in plan.lengths if each != draft_tokens)
        demand = Demand(draft_tokens, largest, reach, most_tokens, seed, draft_lengths=others)
    opened = open_engine(pair, EXECUTORS[executor], device, demand)
    about = provenance(opened.device, seed, "injected, 0.7 at each draft position")
    same = {
        "pair": pair,
        "executor": executor,
        "draft_tokens": draft_tokens,
        "seed": seed,
        "quick": quick,
        "cache_tokens": most_tokens,
        **identity(about, pair),
    }
    store = Store(partial_path(out), same)
    name = out.name.removesuffix(".json")
    with output.progress("measuring", as_json) as update:
        done = 0

        def on_step(steps: int) -> None:
            nonlocal done
            done += 1
            update(done, steps)

        profile, samples, pairs = calibrate(opened, plan, most_tokens, store, about, name, on_step)
    import polars as pl

    write_parquet(out.with_name(profile.provenance.measurements), pl.DataFrame(samples))
    if pairs:
        write_parquet(out.with_name(f"{name}_beside.parquet"), pl.DataFrame(pairs))
    save_profile(profile, out)
    store.remove()
    document = profile.model_dump(mode="json")
    if as_json:
        output.print_json(document)
        return
    console = output.console()
    console.print(f"Profile [bold]{profile.name}[/bold] written to {out} ({about['gpu']})")
    for stage, fit in profile.stages.items():
        new = fit.measured.new_tokens[0] * fit.measured.passes[1]
        host_s, device_s = profile.seconds(
            stage, uniform_work(opened.engine.executor, stage, 1, new, 256)
        )
        console.print(
            f"{stage:18} host {1e3 * host_s:8.3f} ms   device {1e3 * device_s:8.3f} ms   "
            f"(one request, {new} new tokens, context 256)"
        )
    speeds = ", ".join(f"{speed.value:.2f}" for speed in profile.host.gil_speeds)
    console.print(f"speed of each of 1, 2, 3 launching threads: {speeds}")
