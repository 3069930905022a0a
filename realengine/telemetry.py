"""GPU utilisation, memory, clock and power while something runs, sampled through NVML."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, NamedTuple

INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True)
class Summary:
    """Telemetry of one run; every figure is None, with a `reason`, where nothing was sampled.

    Attributes:
        utilisation: percent of time in which at least one kernel ran.
        memory_bytes: in use on the whole GPU, by all processes.
        sm_clock_mhz_mean, power_w_mean: a GPU at its power limit lowers its clock.
    """

    samples: int = 0
    utilisation_mean: float | None = None
    utilisation_max: float | None = None
    memory_bytes_mean: float | None = None
    memory_bytes_max: float | None = None
    sm_clock_mhz_mean: float | None = None
    power_w_mean: float | None = None
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class _Sample(NamedTuple):
    utilisation: float
    memory_bytes: float
    sm_clock_mhz: float
    power_w: float


def memory_bytes(index: int) -> int | None:
    """All memory of GPU `index`, as its driver says it; None without NVML."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except Exception:  # as without telemetry
        return None


class Telemetry:
    """Samples GPU `index` from entry to exit; then `summary()` has the figures.

    Never raises for a missing GPU or NVML: a run without telemetry is still a run.
    """

    def __init__(self, index: int = 0, interval_s: float = INTERVAL_S) -> None:
        self._index = index
        self._interval_s = interval_s
        self._samples: list[_Sample] = []
        self._stop = threading.Event()
        self._reason: str | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Telemetry:
        sample = self._open()
        if sample is not None:
            self._thread = threading.Thread(
                target=self._run, args=(sample,), name="telemetry", daemon=True
            )
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def summary(self) -> Summary:
        if not self._samples:
            return Summary(reason=self._reason or "no sample was taken")
        utilisation, memory, clock, power = zip(*self._samples, strict=True)
        count = len(self._samples)
        return Summary(
            count,
            sum(utilisation) / count,
            max(utilisation),
            sum(memory) / count,
            max(memory),
            sum(clock) / count,
            sum(power) / count,
            self._reason,
        )

    def _open(self) -> Callable[[], _Sample] | None:
        """A function that takes one sample; None, with a reason kept, if there can be none."""
        try:
            import pynvml
        except ImportError:
            self._reason = "the package nvidia-ml-py is not installed"
            return None
        try:
            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(self._index)
        except pynvml.NVMLError as error:
            self._reason = f"NVML is not available: {error}"
            return None

        def sample() -> _Sample:
            return _Sample(
                float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
                float(pynvml.nvmlDeviceGetMemoryInfo(handle).used),
                float(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)),
                pynvml.nvmlDeviceGetPowerUsage(handle) * 1e-3,
            )

        return sample

    def _run(self, sample: Callable[[], _Sample]) -> None:
        while True:
            try:
                self._samples.append(sample())
            except Exception as error:  # a lost GPU ends the telemetry, not the run
                self._reason = f"NVML stopped answering: {error}"
                return
            if self._stop.wait(self._interval_s):
                return
