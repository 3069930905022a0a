"""Devices: which there are, when work ends, by what clock, and running out of memory."""

from __future__ import annotations

import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

import torch

from pdvsim.core import Stream
from pdvsim.errors import CapacityError, InputError
from realengine import device as devices
from realengine.device import CpuDevice, open_device, torch_device


@pytest.mark.parametrize("name", ["tpu", "", "cuda:x", "cpu:zero", "cuda:-1"])
def test_devices_that_are_none(name: str) -> None:
    with pytest.raises(InputError, match="unknown device"):
        open_device(name)


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert torch_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(CapacityError, match="cuda:2 was asked for, but this machine has 2 CUDA"):
        torch_device("cuda:2")


def test_work_on_the_cpu_is_done_when_it_was_launched() -> None:
    before_s = time.perf_counter()
    execution = CpuDevice().run("work", Stream.MAIN, (), lambda: time.sleep(0.01) or "result")
    assert execution.done() and execution.result == "result"
    start_s, end_s = execution.span_s()
    assert before_s <= start_s and end_s - start_s >= 0.01 and end_s <= time.perf_counter()


@pytest.mark.parametrize("error", [MemoryError("no\nroom"), torch.OutOfMemoryError("no room")])
def test_running_out_of_memory_is_one_sentence_with_the_numbers(error: Exception) -> None:
    def work() -> None:
        raise error

    with pytest.raises(CapacityError, match=r"in stage draft: [\d,]+ bytes are free on cpu; no"):
        CpuDevice().run("stage draft", Stream.MAIN, (), work)


def test_the_clock_keeps_the_alignment_that_was_seen_in_the_shortest_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The host sees each of nine reference events some time late; the fourth almost at once."""
    widths_s = [5e-3, 8e-3, 4e-3, 1e-5, 6e-3, 7e-3, 2e-3, 9e-3, 3e-3]
    now_s, made = [100.0], []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            made.append(self)
            self.recorded_s = 0.0

        def record(self) -> None:
            self.recorded_s = now_s[0]

        def synchronize(self) -> None:
            now_s[0] += widths_s[len(made) - 1]

        def elapsed_time(self, other: Event) -> float:
            return 1e3 * (other.recorded_s - self.recorded_s)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(devices, "time", SimpleNamespace(perf_counter=lambda: now_s[0]))
    clock = devices._Clock.aligned(torch.device("cuda", 0))
    assert len(made) == 9 and clock.event is made[3]
    later = Event(True)
    later.recorded_s = made[3].recorded_s + 0.25
    assert clock.at_s(later) == pytest.approx(made[3].recorded_s + 0.25, abs=1e-5)
