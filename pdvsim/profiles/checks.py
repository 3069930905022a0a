"""A profile held against physics and against what a prediction needs of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from pdvsim.core import PREFILLS, Stage
from pdvsim.gpus import called
from pdvsim.profile import Profile
from pdvsim.profiles.stages import launch

OLD_DAYS = 180
NEAR_FLOOR = 0.98  # of the floor: a clock and a rate are measured to about so much
DIP = 0.97  # of the cost of less work: less than that is no noise of a fit
LARGE_MISS = 0.1
FEW_DRAWS = 20
ABOVE_ALONE = 1.05  # speed beside another stage, relative to alone


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        fault: predictions from it are wrong; else they hold with care.
    """

    fault: bool
    sentence: str


def findings(profile: Profile, now: datetime | None = None) -> list[Finding]:
    """What is wrong with a profile; empty if nothing is."""
    found = [finding for check in CHECKS for finding in check(profile)]
    return [*found, *_age(profile, now or datetime.now(UTC))]


def _stages(profile: Profile) -> Iterator[Finding]:
    """An executor needs all of its stages."""
    executor = profile.executor
    needed = dict.fromkeys((*executor.prefill, *executor.speculate, *executor.check, Stage.DECODE))
    missing = [stage for stage in needed if stage not in profile.file.stages]
    if missing:
        yield Finding(True, f"It has no costs of {', '.join(missing)}; calibrate again.")


def _floors(profile: Profile) -> Iterator[Finding]:
    """No stage beats memory or arithmetic."""
    if profile.file.ceilings is None:
        yield Finding(False, "No copy and matrix rate was measured: nothing is held to a floor.")
    for stage, fit in profile.file.stages.items():
        if stage is Stage.MIXED:
            continue
        floor = profile.file.floor(stage)
        worst, where = 1.0, 0
        for batch in _sizes(fit.measured.batch):
            work = launch(stage, fit.measured, batch)
            least_s = floor.seconds(work)
            if least_s and (share := fit.device_s(work) / least_s) < worst:
                worst, where = share, batch
        if worst < NEAR_FLOOR:
            yield Finding(
                True,
                f"{stage} at batch {where} takes {100 * worst:.0f} % of what its bytes and FLOPs "
                "need at the measured rates.",
            )


def _monotonic(profile: Profile) -> Iterator[Finding]:
    """More requests never take less."""
    for stage, fit in profile.file.stages.items():
        if stage is Stage.MIXED:
            continue
        sizes = _sizes(fit.measured.batch)
        times = [fit.device_s(launch(stage, fit.measured, size)) for size in sizes]
        for (small, fast), (large, slow) in pairwise(zip(sizes, times, strict=True)):
            if slow < DIP * fast:
                yield Finding(
                    True,
                    f"{stage} takes {1e3 * fast:.3g} ms at batch {small} and only "
                    f"{1e3 * slow:.3g} ms at {large}.",
                )
                break


def _sizes(ends: tuple[int, int]) -> list[int]:
    """Batches from one end of a range to the other, each about a quarter more."""
    sizes = [ends[0]]
    while sizes[-1] < ends[1]:
        sizes.append(min(ends[1], max(sizes[-1] + 1, round(1.25 * sizes[-1]))))
    return sizes


def _fits(profile: Profile) -> Iterator[Finding]:
    """Fits that miss their own points, and too few draws for an interval."""
    for stage, fit in profile.file.stages.items():
        if (missed := fit.device.missed) > LARGE_MISS:
            yield Finding(False, f"The fit of {stage} misses its points by {100 * missed:.0f} %.")
        if len(fit.device.draws) < FEW_DRAWS:
            yield Finding(
                False, f"{stage} has {len(fit.device.draws)} draws, too few for a 95 % interval."
            )


def _ranges(profile: Profile) -> Iterator[Finding]:
    """What predictions at usual loads extrapolate from."""
    stages = profile.file.stages
    if profile.executor.batched:
        short = [str(stage) for stage, fit in stages.items() if fit.measured.batch[1] < 64]
        if short:
            yield Finding(False, f"{', '.join(short)} were measured up to fewer than 64 requests.")
    fixed = [
        name
        for stage, name in ((Stage.DRAFT, "passes"), (Stage.VERIFY, "new_tokens"))
        if (fit := stages.get(stage)) is not None
        and len(set(getattr(fit.measured, name))) == 1
        and profile.executor.batched
    ]
    if fixed:
        yield Finding(False, "Rounds were measured with one draft length only; others are a guess.")
    prompts = [fit.measured.new_tokens[1] for stage, fit in stages.items() if stage in PREFILLS]
    if prompts and min(prompts) < 1024:
        yield Finding(False, f"Prompts were measured up to {min(prompts)} tokens.")


def _host(profile: Profile) -> Iterator[Finding]:
    """Threads that share an interpreter do not speed each other up; nor do stages on a device."""
    speeds = [speed.value for speed in profile.file.host.gil_speeds]
    if any(second > first for first, second in pairwise(speeds)):
        yield Finding(True, "More launching threads are faster each than fewer: measure again.")
    fast = [
        f"{one.stage} beside {one.other}"
        for one in profile.file.contention
        if one.speed.value > ABOVE_ALONE
    ]
    if fast:
        yield Finding(True, f"Faster in company than alone: {', '.join(dict.fromkeys(fast))}.")


def _rates(profile: Profile) -> Iterator[Finding]:
    """Measured rates lie below the vendor's, and not far."""
    ceilings, sheet = profile.file.ceilings, called(profile.file.provenance.gpu)
    if ceilings is None or sheet is None:
        return
    for what, rate, peak in (
        ("copy", ceilings.copy_bytes_per_s, sheet.copy_bytes_per_s),
        ("matrix", ceilings.matmul_flops_per_s, sheet.matmul_flops_per_s),
    ):
        share = rate / peak
        if share > 1.0:
            yield Finding(True, f"Its {what} rate is {100 * share:.0f} % of the vendor's peak.")
        elif share < 0.5:
            yield Finding(
                False,
                f"Its {what} rate is {100 * share:.0f} % of the vendor's peak: was the GPU busy, "
                "hot or shared?",
            )


def _age(profile: Profile, now: datetime) -> Iterator[Finding]:
    try:
        created = datetime.fromisoformat(profile.file.provenance.created)
    except ValueError:
        yield Finding(False, "When it was measured is not known.")
        return
    created = created if created.tzinfo else created.replace(tzinfo=UTC)
    days = (now - created).days
    if days > OLD_DAYS:
        yield Finding(
            False, f"It is {days} days old; drivers, kernels and hosts have changed since."
        )


CHECKS: tuple[Callable[[Profile], Iterator[Finding]], ...] = (
    _stages,
    _floors,
    _monotonic,
    _fits,
    _ranges,
    _host,
    _rates,
)
