"""What a calibration knows about one pair of models, one executor and one machine.

`Profile.draw` draws one plausible machine from the document that `profile_file` describes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from pdvsim.architectures import architecture
from pdvsim.cell import DEFAULT_EXECUTOR, DEFAULT_PAIR, Cell
from pdvsim.core import EXECUTORS, Executor, Stage
from pdvsim.des.contention import SpeedPoint, Speeds
from pdvsim.des.host import HostCosts
from pdvsim.drawn_costs import DrawnCost, DrawnCosts
from pdvsim.errors import InputError, ProfileError
from pdvsim.extrapolation import extrapolations, too_long
from pdvsim.gpu_memory import GpuMemory
from pdvsim.gpus import called
from pdvsim.json_file import read_json
from pdvsim.machine import Machine
from pdvsim.models import ModelShape, Pair, pair
from pdvsim.profile_file import Estimate, ProfileFile
from pdvsim.profile_upgrade import upgraded
from pdvsim.protocols import protocols
from pdvsim.records import RunRecord
from pdvsim.result_file import write_text
from pdvsim.strata import Strata

# How far another machine of the kind lies from the calibrated one, as the standard deviation of a
# logarithm: host seconds by executor, and device seconds (results/machine_spread.json).
HOST_SPREAD = {"graph": 0.36, "eager": 0.21}
DEVICE_SPREAD = 0.008
# How far the device time of a run lies from what its stages, timed by themselves, add up to: from
# the median error of throughput of 35 cells (results/graph/validate.json, validate_seed_7.json).
RUN_SPREAD = 0.02

SHIPPED = Path(__file__).parent / "data" / "profiles"
DEFAULT_MACHINE = "h100"


@dataclass(frozen=True, slots=True)
class HostState:
    """What is known of the host at the time of a run; where empty: as calibrated.

    Attributes:
        factors: host seconds relative to the calibrated mean, in equal spans of the run.
        gil_speeds: of each of two launching threads, relative to one alone, as seen in some runs.
    """

    factors: tuple[float, ...] = ()
    gil_speeds: tuple[float, ...] = ()


class Profile:
    """A validated profile."""

    def __init__(self, file: ProfileFile) -> None:
        self.file = file
        self.name = file.name
        self.pair: Pair = file.pair
        self.executor: Executor = EXECUTORS[file.executor].with_drafter(file.pair.drafter)

    # The GPU that was measured, where this is another, and what has to be known of it then
    # (`pdvsim.transfer`).
    transferred_from: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the numbers come from, for output."""
        return {
            "name": self.name,
            "pair": self.pair.name,
            "executor": self.file.executor,
            "transferred_from": self.transferred_from,
            **self.file.provenance.model_dump(),
        }

    def draw(self, seed: np.random.SeedSequence, state: HostState | None = None) -> Machine:
        """One plausible machine: parameters drawn from their bootstrap and intervals, and how far
        a machine lies from the calibrated one.

        Args:
            seed: draws of one family, i = 0, 1, ..., are spread evenly; see `Strata`.
            state: of the host, where it is known: resampled, as it changes while a run goes on.
                Else its speed is drawn from the run-to-run and the host-to-host spread.
        """
        state = state or HostState()
        luck = Strata(seed)
        host = self.file.host
        spread = float(np.hypot(host.run_spread, HOST_SPREAD[self.executor.name]))
        factor = float(np.exp(luck.normal(spread)))
        device_factor = float(np.exp(luck.normal(float(np.hypot(DEVICE_SPREAD, RUN_SPREAD)))))
        if state.factors:
            # Of spans of equal length, speeds average, which are the factors' inverses.
            speed = np.mean(1.0 / luck.rng.choice(state.factors, len(state.factors)))
            factor = float(1.0 / speed)
        # A run stays near one point of a stage, where what the fit of the device misses does not
        # average out as noise does. How far the host is off is drawn once, for all stages.
        stages = {
            stage: (
                DrawnCost(fit.host, luck, factor),
                DrawnCost(fit.device, luck, device_factor, fit.device.missed),
                fit,
                self.file.floor(stage),
            )
            for stage, fit in self.file.stages.items()
        }
        speeds = [max(_draw(speed, luck), 1e-3) for speed in host.gil_speeds]
        if state.gil_speeds:
            speeds = [1.0, float(luck.rng.choice(state.gil_speeds))]
        host_costs = HostCosts(
            wake_s=factor * _draw(host.wake_s, luck),
            lock_wake_s=factor * _draw(host.lock_wake_s, luck),
            event_wake_s=factor * _draw(host.event_wake_s, luck),
            poll_overhead_s=factor * _draw(host.poll_overhead_s, luck),
            gil_speeds=tuple(speeds),
        )
        beside: dict[tuple[Stage, Stage], list[SpeedPoint]] = {}
        for entry in sorted(self.file.contention, key=lambda one: (one.rows, one.prompt_tokens)):
            point = entry.rows, entry.prompt_tokens, max(_draw(entry.speed, luck), 1e-3)
            beside.setdefault((entry.stage, entry.other), []).append(point)
        contention = {pair: Speeds(points) for pair, points in beside.items()}
        costs = DrawnCosts(stages, self.executor.settles_round)
        return Machine(costs, host_costs, contention, self.memory)

    @property
    def memory(self) -> GpuMemory | None:
        """Of the GPU that was measured; None where its size is not known."""
        gpu = self.file.provenance.gpu
        card, total = called(gpu), self.file.gpu_bytes
        if total is None and card is not None:
            total = card.memory_bytes
        return None if total is None else GpuMemory(gpu, total, self.pair, self.executor)

    def host_costs(self) -> HostCosts:
        """The host's figures as estimated, without their uncertainty."""
        host = self.file.host
        return HostCosts(
            wake_s=host.wake_s.value,
            lock_wake_s=host.lock_wake_s.value,
            event_wake_s=host.event_wake_s.value,
            poll_overhead_s=host.poll_overhead_s.value,
            gil_speeds=tuple(speed.value for speed in host.gil_speeds),
        )

    def extrapolations(self, record: RunRecord) -> list[str]:
        """Where `record` left what was measured, a sentence each."""
        return extrapolations(self.file, record)

    def check(self, cell: Cell) -> None:
        """Refuse a cell whose requests, as long as they are on average, no engine can take.

        Raises:
            InputError: they are beyond the contexts of the models.
            CapacityError: they, or the weights, are beyond the GPU's memory.
        """
        prompt, output = cell.prompt_tokens, cell.output_tokens
        if "prompt_tokens" not in protocols()[cell.protocol].fields:
            return
        models = self._models(cell.architecture)
        short = [one for one in models if one.max_context_tokens < prompt + output]
        if short:
            reach = " and ".join(f"{one.name} ({one.max_context_tokens:,})" for one in short)
            raise InputError(
                f"requests of {prompt:,} prompt and {output:,} output tokens do not fit the "
                f"context of {reach}: no engine can run them"
            )
        if self.memory is not None:
            load = cell.batch_cap or cell.concurrency
            self.memory.check(load, cell.draft_tokens, prompt, output)

    def holds(self, cell: Cell) -> bool:
        """Whether the GPU's memory holds C requests of average length together."""
        if self.memory is None:
            return True
        load, prompt, output = cell.concurrency, cell.prompt_tokens, cell.output_tokens
        cache = self.memory.check(load, cell.draft_tokens, prompt, output)
        if cache is None:
            return True
        return load * cache.pages_for(prompt + output + cache.overrun_tokens) <= cache.pages

    def _models(self, reference: str) -> Sequence[ModelShape]:
        """Those that an architecture runs."""
        drafts = architecture(reference).speculative
        return self.pair.decoders if drafts else (self.pair.verifier,)

    def impossible(self, record: RunRecord) -> list[str]:
        """Why the models cannot do what `record` holds, a sentence each."""
        return too_long(record.requests, self._models(record.config.architecture))


def _draw(estimate: Estimate, luck: Strata) -> float:
    """A normal draw whose 95 % interval is the estimate's, each side by itself, never below 0."""
    z = luck.normal()
    half = (estimate.high - estimate.value) if z > 0 else (estimate.value - estimate.low)
    return max(0.0, estimate.value + z * half / 1.96)


def save_profile(file: ProfileFile, path: Path) -> None:
    """Write `file` with a digest of its content, so that later edits are noticed."""
    content = file.model_dump(mode="json")
    document = {**content, "digest": _digest(content)}
    write_text(path, json.dumps(document, indent=1) + "\n")


def shipped_profiles() -> dict[str, Path]:
    """Profiles inside the package, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.json"))}


def default_profile_name(pair_name: str, executor: str) -> str:
    """The shipped profile of a pair and executor: `h100_tinyllama-1.1b_llama-2-7b_eager`."""
    return f"{DEFAULT_MACHINE}_{pair_name.replace(':', '_')}_{executor}"


def load_profile(name_or_path: str) -> Profile:
    """Load a shipped profile by name, or any profile by path.

    Raises:
        ProfileError: absent, truncated, of another schema version, or edited by hand.
    """
    shipped = shipped_profiles()
    path = shipped.get(name_or_path, Path(name_or_path))
    if path.is_dir() or not path.exists():
        known = ", ".join(shipped) or "none"
        raise ProfileError(
            f"no profile {name_or_path!r}: neither a file nor one of those shipped ({known})"
        )
    try:
        document = read_json(path, "a pdvsim profile")
    except InputError as error:
        raise ProfileError(str(error)) from None
    if not isinstance(document, dict) or "schema_version" not in document:
        raise ProfileError(f"{path}: not a pdvsim profile (it has no schema_version)")
    digest = document.pop("digest", None)
    try:
        file = ProfileFile.model_validate(upgraded(document))
    except InputError as error:
        raise ProfileError(f"{path}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ProfileError(f"{path}: {where}: {first['msg']}") from None
    if digest != _digest(document):
        raise ProfileError(
            f"{path}: changed since it was written (its digest does not match); calibrate again"
        )
    if file.executor not in EXECUTORS:
        raise ProfileError(f"{path}: unknown executor {file.executor!r}")
    return Profile(file)


def select_profile(
    name_or_path: str | None, models: Pair | str | None, executor: str | None
) -> Profile:
    """The profile asked for, or the shipped one for a pair and an executor.

    Args:
        models: a pair, or a reference to one.

    Raises:
        InputError: the profile is for another pair or executor than asked for.
        ProfileError: there is no such profile.
    """
    wanted = pair(models) if isinstance(models, str) else models
    if name_or_path is None:
        return _shipped_for(wanted or pair(DEFAULT_PAIR), executor or DEFAULT_EXECUTOR)
    profile = load_profile(name_or_path)
    if wanted is not None and (difference := profile.pair.difference(wanted)):
        raise InputError(
            f"profile {profile.name} is for pair {profile.pair.name}, not {wanted.name} "
            f"({difference})"
        )
    if executor not in (None, profile.executor.name):
        raise InputError(
            f"profile {profile.name} is for executor {profile.executor.name}, not {executor}"
        )
    return profile


def _shipped_for(wanted: Pair, executor: str) -> Profile:
    """The shipped profile of a pair, or of another one of the same dimensions."""
    likely = default_profile_name(wanted.name, executor)
    for name in sorted(shipped_profiles(), key=lambda name: name != likely):
        if name.endswith(f"_{executor}"):
            profile = load_profile(name)
            if not profile.pair.difference(wanted):
                return profile
    raise ProfileError(
        f"no profile ships for {wanted.name} and the {executor} executor; measure one with pdvsim "
        f"calibrate, or use one of those that ship ({', '.join(shipped_profiles())})"
    )


def _digest(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
