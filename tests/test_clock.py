"""The clock stands on private parts of SimPy: these are the ones, and this is the version."""

from __future__ import annotations

from importlib.metadata import version

import simpy

from pdvsim.des.clock import NEVER, Clock, Moment

WRITTEN_FOR = "4.1"


def test_simpy_is_the_version_that_the_clock_was_written_for() -> None:
    """With a later one read pdvsim/des/clock.py beside simpy/core.py, then raise the number."""
    assert version("simpy").rpartition(".")[0] == WRITTEN_FOR
    environment = simpy.Environment(initial_time=3.0)
    environment.timeout(2.0)
    (key,) = environment._queue
    assert environment._now == 3.0
    assert key[:3] == (5.0, simpy.events.NORMAL, 0)
    assert next(environment._eid) == 1


def test_what_is_due_at_one_instant_happens_in_the_order_of_its_making() -> None:
    clock = Clock()
    seen: list[str] = []

    def moment(name: str) -> Moment:
        def call() -> None:
            seen.append(name)
            made.key = NEVER

        made = clock.moment(call)
        return made

    def event(name: str, delay_s: float) -> None:
        clock.timeout(delay_s).callbacks.append(lambda _: seen.append(name))

    first, second = moment("first moment"), moment("second moment")
    second.set(1.0)
    event("event", 1.0)
    first.set(1.0)
    event("early event", 0.5)
    clock.run(until=2.0)
    assert seen == ["early event", "second moment", "event", "first moment"]
    assert clock.now == 2.0
