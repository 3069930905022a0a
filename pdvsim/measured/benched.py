"""What a document of `pdvsim bench` says: which cells ran, and on what host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pdvsim.acceptance import Acceptance
from pdvsim.architectures import Config, architecture
from pdvsim.errors import InputError
from pdvsim.json_file import read_json
from pdvsim.measured.host_speed import gil_speed, host_factors
from pdvsim.models import pair
from pdvsim.profile import HostState, Profile
from pdvsim.sweep import Load
from pdvsim.workload import Lengths

Bench = Mapping[str, Any]
_OF_BENCH = {"arguments", "seed", "replications", "cells"}
_OF_RUN = {"undisturbed", "launched", "launching_s"}


def read_bench(path: Path) -> dict[str, Any]:
    """A document that `pdvsim bench -o` wrote.

    Raises:
        InputError: it is not one, or it is of a version that did not record what is needed here.
    """
    document = read_json(path, "a document of pdvsim bench")
    if not isinstance(document, dict) or document.get("command") != "bench":
        raise InputError(f"{path}: not a document of pdvsim bench")
    missing = _OF_BENCH - set(document)
    for cell in document.get("cells", []):
        for run in cell.get("runs", [{}]):
            missing |= _OF_RUN - set(run)
    if missing:
        raise InputError(
            f"{path}: lacks {', '.join(sorted(missing))}; write it again with pdvsim bench -o"
        )
    return document


def check_bench(bench: Bench, profile: Profile) -> None:
    """Refuse what `profile` cannot predict.

    Raises:
        InputError: another pair or executor, or acceptance without drawn outcomes.
    """
    arguments = bench["arguments"]
    ran, executor = arguments["pair"], arguments["executor"]
    if ran != profile.pair.name and (difference := profile.pair.difference(pair(ran))):
        raise InputError(
            f"the bench ran pair {ran}, the profile is for {profile.pair.name} ({difference})"
        )
    if executor != profile.executor.name:
        raise InputError(
            f"the bench ran executor {executor}, the profile is for {profile.executor.name}"
        )
    if arguments["acceptance"] == "real":
        raise InputError("a bench with real acceptance has no outcomes to predict with")


def cell_of(measured: Bench, arguments: Bench, profile: Profile) -> tuple[Config, Load]:
    """The configuration and the load of a measured cell."""
    draft_tokens = int(arguments["draft_tokens"])
    trace = arguments.get("trace")
    load = Load(
        measured["protocol"],
        int(measured["concurrency"]),
        Lengths(arguments["prompt_tokens"], arguments["output_tokens"]),
        Acceptance.constant(float(arguments["acceptance"]), draft_tokens),
        rate_per_s=arguments.get("rate"),
        requests=arguments["requests"],
        trace=None if trace is None else Path(trace),
        cycles=arguments["cycles"],
    )
    config = Config(
        measured["architecture"],
        profile.executor,
        batch_cap=load.concurrency,
        draft_tokens=draft_tokens,
        parameters=architecture(measured["architecture"]).own(
            {"prefill_batch": int(arguments["prefill_batch"])}
        ),
    )
    return config, load


class Hosts:
    """The host during measured runs of a synchronous executor, whose time is the host's.

    How fast it was comes from a run's own undisturbed launches. What the GIL took comes from the
    runs of all *other* cells: a run's own would say much about its throughput.
    """

    def __init__(self, benches: Sequence[Bench], profile: Profile) -> None:
        self._profile = profile
        self._speeds = [
            (id(cell), speed)
            for bench in benches
            for cell in bench["cells"]
            for run in cell["runs"]
            if profile.executor.synchronous and (speed := gil_speed(run, profile)) is not None
        ]

    def of(self, cell: Bench, runs: Sequence[Bench]) -> HostState:
        """The host during `runs`, some or all of those of `cell`."""
        if not self._profile.executor.synchronous:
            return HostState()
        factors = [factor for run in runs for factor in host_factors(run, self._profile)]
        others = [speed for owner, speed in self._speeds if owner != id(cell)]
        return HostState(tuple(factors), tuple(others))
