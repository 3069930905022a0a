"""The options that say what a cell is.

Every command takes them by the same names with the same help and defaults, which are those of the
fields of `Cell`: `cell_options` hands a command one `Asked`, which makes cells of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pdvsim.asked import OTHERS, Asked
from pdvsim.cell import AUTO, DEFAULT_EXECUTOR, DEFAULT_PAIR, FIELDS, flag, spoken
from pdvsim.core import EXECUTORS
from pdvsim.errors import InputError
from pdvsim.protocols import protocols

if TYPE_CHECKING:
    from pdvsim.open_loop import Wanted

Option = Callable[[Any], Any]


def _of(name: str, kind: Any, more: str = "", **settings: Any) -> Option:
    """The option of a field of `Cell`: help text, bounds and default are the field's."""
    about = FIELDS[name].metadata
    low, high = about["low"], about["high"]
    # Bounds that are only there to stop nonsense say nothing.
    shown = low is not None and (isinstance(low, int) or low == 0.0) and high < 2**31
    bounds = f" [{spoken(low)} to {spoken(high)}]" if shown else ""
    settings.setdefault("default", FIELDS[name].default)
    if settings["default"] is not None:
        settings.setdefault("show_default", True)
    text = " ".join((about["meaning"] + more + bounds).split())
    return click.option(flag(name), name, type=kind, help=text, **settings)


def _whole_or_auto(ctx: click.Context, param: click.Parameter, text: str | None) -> Any:
    """A whole number, the word that leaves it to the architecture's rule, or nothing."""
    if text is None or text == AUTO:
        return text
    try:
        return int(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither a whole number nor {AUTO}.") from None


def _limit(flag: str, text: str) -> Option:
    """The option of a parameter that is a whole number or AUTO."""
    return click.option(flag, callback=_whole_or_auto, metavar=f"INTEGER|{AUTO}", help=text)


pair_option = click.option(
    "--pair",
    default=None,
    help="DRAFT:VERIFIER, each a shipped name (llama-3.1-8b), a checkpoint's directory or "
    "NAME=PATH/config.json; DRAFT may also be a head's directory, eagle3, ngram or none; or toy, "
    f"toy-eagle3. [{DEFAULT_PAIR}, or that of the profile]",
)
executor_option = click.option(
    "--executor",
    type=click.Choice(list(EXECUTORS)),
    default=None,
    help="eager: one request after the other, each kernel launched by the host; graph: whole "
    f"batches as CUDA graphs. [{DEFAULT_EXECUTOR}, or that of the profile]",
)
draft_tokens_option = _of("draft_tokens", int)
seed_option = _of("seed", int)
profile_option = click.option(
    "--profile",
    "profile_name",
    default=None,
    help="Name of a shipped profile, or a file that calibrate wrote. [the shipped one of the "
    "pair and executor]",
)
gpu_option = click.option(
    "--gpu",
    default=None,
    help="Predict for another GPU than the profile's, from its copy and matrix rate: h200, or "
    "h200@copy_tb_s=4.2,matrix_tflops=780 as read there.",
)
concurrency_option = _of("concurrency", str, " Or several: 1,8,32.", default="32")


def architecture_option(default: str) -> Option:
    """Which architectures, with parameters if wanted."""
    return click.option(
        "--architecture",
        default=default,
        show_default=True,
        help="all, or NAME,NAME,... each with parameters if wanted: pdv@prefill_batch=8.",
    )


def replications_option(default: int | None, help: str = "Simulated runs of each cell.") -> Option:
    """How many runs an interval rests on."""
    return click.option("--replications", type=int, default=default, show_default=True, help=help)


TAIL = (
    click.option(
        "--tail-within",
        type=float,
        default=0.2,
        show_default=True,
        help="Of poisson without --requests: runs go on until one tells the p99 of TTFT and E2E "
        "within this share of it.",
    ),
    click.option(
        "--most-requests",
        type=int,
        default=4_000,
        show_default=True,
        help="Of poisson without --requests: no run is longer.",
    ),
)


def tail_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say how long the runs of an open loop are."""
    for option in reversed(TAIL):
        command = option(command)
    return command


def tail_of(asked: Asked, tail_within: float, most_requests: int) -> Wanted:
    """What `tail_options` say.

    Raises:
        InputError: out of bounds, or without effect.
    """
    from pdvsim.open_loop import Wanted

    steady = protocols()[asked.values["protocol"]].steady
    if not steady or asked.values["requests"] is not None:
        why = "--requests says how long runs are" if steady else "only poisson goes on until then"
        refuse_given(click.get_current_context(), why, ("tail_within", "most_requests"))
    return Wanted(tail_within, most_requests)


LOAD = (
    _of("protocol", click.Choice(list(protocols()))),
    _of("rate_per_s", float),
    _of("trace", click.Path(path_type=Path)),
    click.option(
        "--trace-columns",
        default=None,
        metavar="NAME=COLUMN,...",
        help="Which columns of the trace hold what, where its format is not a known one: "
        "arrival_s (or _ms, _us, _ns), prompt_tokens, output_tokens.",
    ),
    _of("time_scale", float),
    _of("max_context_tokens", int),
    _of("requests", int),
    _of("cycles", int),
    _of("prompts", click.Path(path_type=Path)),
    _of("prompt_tokens", int),
    _of("output_tokens", int),
    _of("spread", str),
    _of("output_spread", str),
    _of("lengths_from", click.Path(path_type=Path)),
    _of("acceptance", str, default="0.7"),
    _of("acceptance_spread", float),
    _of("acceptance_lasts", int),
    _of("acceptance_from", click.Path(path_type=Path)),
    draft_tokens_option,
    _limit(
        "--prefill-batch",
        "Prompts prefilled in one stage; auto: as many as 2,048 tokens hold. [auto; under pdverify "
        "the published 1]",
    ),
    _limit(
        "--verify-batch",
        "Micro-batch of three_lane's verify lane; auto: all that wait. [auto; under pdverify the "
        "published 8]",
    ),
    click.option(
        "--admission-factor",
        type=float,
        default=None,
        help="Admission limit in units of C, of the architectures that have one. [their default]",
    ),
    seed_option,
)
SLO = (_of("slo_ttft_ms", float), _of("slo_tpot_ms", float), _of("slo_e2el_ms", float))
ENGINE = (_of("temperature", float),)


def cell_options(*more: Option) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options that say what a cell is; the command gets them all as one argument `asked`.

    Args:
        more: which architectures, the SLO, what only a real engine can do.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def with_asked(**values: Any) -> Any:
            ctx = click.get_current_context()
            names = [name for name in values if name in FIELDS or name in OTHERS]
            given = frozenset(name for name in names if _is_given(ctx, name))
            asked = Asked({name: values.pop(name) for name in names}, given)
            return command(asked=asked, **values)

        decorated: Callable[..., Any] = with_asked
        options = (*more[:1], pair_option, executor_option, concurrency_option, *LOAD, *more[1:])
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def refuse_given(ctx: click.Context, because: str, names: Iterable[str]) -> None:
    """Refuse options that are not a cell's and would have no effect.

    Raises:
        InputError: one of them was given.
    """
    found = [flag(name) for name in names if _is_given(ctx, name)]
    if found:
        raise InputError(f"{because}; leave {', '.join(found)} out")


def _is_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
