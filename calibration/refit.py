"""Fits a profile again from its measurements, which lie beside it or elsewhere.

    python -m calibration.refit PROFILE.json [--samples FILE.parquet ...] [--beside FILE.parquet]

Nothing is measured: what the machine did stays, the stages and their contention are fitted anew.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl

from calibration.contention import fit_contention
from calibration.stage_fits import Samples, Sizes, fit_stages, residuals
from pdvsim.core import Stage
from pdvsim.profile import Profile, load_profile, save_profile
from pdvsim.profile_file import ProfileFile


def refit(profile: Profile, samples: Samples, pairs: Samples) -> ProfileFile:
    """The profile with stages and contention fitted to `samples` and `pairs`."""
    file, stages = profile.file, profile.file.stages
    mixed = stages.get(Stage.MIXED)
    sizes = Sizes(
        tuple(stages[Stage.DECODE].buckets),
        tuple(stages[Stage.PREFILL_VERIFIER].token_buckets),
        tuple(mixed.buckets) if mixed else (),
        tuple(mixed.token_buckets) if mixed else (),
    )
    measured, kernels = parted(samples)
    rng = np.random.default_rng(file.provenance.seed)
    cuda = file.ceilings is not None
    fits = fit_stages(measured, kernels, profile.executor, sizes, cuda, rng)
    contention = fit_contention(pairs, fits, rng)
    return file.model_copy(update={"stages": fits, "contention": contention})


def parted(samples: Samples) -> tuple[Samples, Samples]:
    """(launches, kernels) of a file of samples."""
    kernels = [row for row in samples if row["pass"] < 0]
    return [row for row in samples if row["pass"] >= 0], kernels


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("profile", type=Path)
    parser.add_argument("--samples", type=Path, nargs="+", help="one file or several")
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--points", type=Path, help="where each point's errors go")
    options = parser.parse_args()
    profile = load_profile(str(options.profile))
    stem = options.profile.with_suffix("")
    beside = options.beside or Path(f"{stem}_beside.parquet")
    pairs = pl.read_parquet(beside).to_dicts() if beside.exists() else []
    samples: Samples = []
    for path in options.samples or [Path(f"{stem}_samples.parquet")]:
        samples += pl.read_parquet(path).to_dicts()
    file = refit(profile, samples, pairs)
    save_profile(file, options.profile)
    for stage, fit in file.stages.items():
        device = fit.device
        print(
            f"{stage:18} misses {100 * device.residual_rms:5.2f} %   left out: median "
            f"{100 * (device.left_out_median or 0.0):5.2f} %, rms "
            f"{100 * (device.left_out_rms or 0.0):5.2f} %"
        )
    if options.points is not None:
        rows = residuals(*parted(samples), profile.executor, file.stages)
        pl.DataFrame(rows).write_parquet(options.points)


if __name__ == "__main__":
    main()
