"""How the simulated world does what a lane asks to `Run`.

While nothing else happens, in one step and without an event. A stage that starts on an idle
device, launched by the only thread that is awake, ends when arithmetic says so. As long as nothing
is due before that, its lane, its locks, its stream and the clock need no simulating: the times are
the sums that the events would have come to, added in the same order, so that records are equal to
the last bit (`tests/test_runs.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, TypeAlias

from pdvsim.architectures.lane import Run, Streams
from pdvsim.core import Request, Stage, settle, unfinished
from pdvsim.records import STAGE_CODE, STREAM_CODE

if TYPE_CHECKING:
    from pdvsim.des.gpu import Operation
    from pdvsim.des.world import Lane, SimulatedWorld, Steps


Chain: TypeAlias = tuple[tuple[Stage, float, float], ...]  # stages, with their codes in records
Part: TypeAlias = tuple[Sequence[Request], Chain]


class Runs:
    """Does what lanes ask to `Run`, at once where the lane is alone."""

    def __init__(self, world: SimulatedWorld) -> None:
        self._world = world
        self._clock, self._executor = world.env, world.executor
        self._locks = list(world.locks.values())
        self._launching, self._device = world.interpreter.server, world.gpu.server

    def run(self, lane: Lane, run: Run) -> Steps:
        """`run`, and again as long as nothing but it happens; yields what it has to wait for."""
        world = self._world
        drafts = world.config.draft_tokens if run.draft_tokens is None else run.draft_tokens
        parts = self._parts(run)
        while parts:
            coming, undisturbed, done = len(world.coming), True, 0
            while (done := self._at_once(lane, parts, done, drafts)) < len(parts):
                undisturbed = False
                yield from self._by_events(lane, run.streams, *parts[done], drafts)
                done += 1
            undisturbed = undisturbed and len(world.coming) == coming
            if not (run.again and undisturbed and self._steady(run)):
                return
            if run.via is not None:
                lane.take = world.next_take()

    def _parts(self, run: Run) -> list[Part]:
        """What of `run` ends in a wait, in order: whole chains, or each stage where the
        host waits after each."""
        streams = run.streams
        stages = [
            (stage, STAGE_CODE[stage], STREAM_CODE[streams[stage.model]]) for stage in run.stages
        ]
        chains = [(stage,) for stage in stages] if self._executor.synchronous else [tuple(stages)]
        groups = self._world.lanes.launches(run.batch)
        return [(group, chain) for group in groups for chain in chains if chain]

    def _by_events(
        self, lane: Lane, streams: Streams, batch: Sequence[Request], chain: Chain, drafts: int
    ) -> Steps:
        """Run one part as `plainly` says it, without a verb for each step."""
        world, synchronous = self._world, self._executor.synchronous
        model = chain[0][0].model
        if synchronous and (pause := world.acquire(lane, model)) is not None:
            yield pause
        after: tuple[Operation, ...] = ()
        for stage, _, _ in chain:
            pause = world.launch(lane, stage, batch, streams[stage.model], after, drafts)
            if pause is not None:
                yield pause
            after = (lane.result,)
        if (pause := world.wait(lane, after[0])) is not None:
            yield pause
        if synchronous:
            world.release(lane, model)
        lane.result = None

    def _at_once(self, lane: Lane, parts: Sequence[Part], done: int, drafts: int) -> int:
        """Run parts from the one at `done` on, as far as nothing else is due before the end of
        each; where that led to. Requests may come meanwhile where nobody waits for them."""
        world, device = self._world, self._device
        if self._launching.jobs or device.jobs or lane.queued_s >= 0.0:
            return done
        executor = self._executor
        synchronous = executor.synchronous
        if synchronous and not all(lock.idle for lock in self._locks):
            return done
        ask, record, wake_s = world.ask, world.recorder.row, world.host.event_wake_s
        comes_s, due_s, now = world.arrival.key[0], self._clock.due_s, self._clock.now
        if world.waiters:
            due_s = min(due_s, comes_s)
        for batch, chain in parts[done:]:
            rows = []
            ended_s = -inf
            for stage, code, stream in chain:
                if now >= due_s:  # something else may ask for a cost before this stage does
                    break
                query, context, launch_s, device_s = ask(stage, batch, drafts)
                launched_s, now = now, now + launch_s
                left_s = device_s
                if synchronous:
                    left_s = max(0.0, device_s - (now - launched_s))
                started_s = now if now > ended_s else ended_s
                ended_s = started_s + left_s
                moments = launched_s, launched_s, now, started_s, ended_s
                rows.append((stage, code, stream, query, context, moments, launch_s, device_s))
            if ended_s > now:
                now = ended_s + wake_s
            if now >= due_s or (comes_s <= now and not self._let_come(now)):
                lane.asked.extend([(row[3], row[4], row[6], row[7]) for row in rows])
                break
            comes_s = world.arrival.key[0]
            self._clock.go_to(now)
            world.forget_count()
            take, count = lane.take, len(batch)
            for stage, code, stream, query, context, moments, launch_s, device_s in rows:
                device.busy_s += moments[4] - moments[3]
                start = code, lane.index, stream, take, count, query, context
                emitted = settle(executor, stage, batch, drafts, now)
                record(batch, emitted, (*start, *moments, now, launch_s, device_s))
            done += 1
        return done

    def _let_come(self, until_s: float) -> bool:
        """Release all that comes before `until_s`, unless something comes just then: whether it is
        before or after is for the clock to say."""
        world = self._world
        if world.arrival.key[0] > until_s:
            return True
        for request in world.coming:
            if request.arrival_s >= until_s:
                if request.arrival_s == until_s:
                    return False
                break
        while world.arrival.key[0] < until_s:
            self._clock.go_to(world.arrival.key[0])
            world.arrive()
        return True

    def _steady(self, run: Run) -> bool:
        """Whether all of the batch goes on, and nobody else would do anything if it were put back
        and taken again."""
        world, via = self._world, run.via
        if via or len(unfinished(run.batch)) < len(run.batch):
            return False
        if not (world.waiters or world.lanes.prefill):
            return True
        if self._somebody_acts():
            return False
        if via is None:
            return True
        via.push(run.batch)
        acts = self._somebody_acts()
        via.take(len(run.batch))
        return not acts

    def _somebody_acts(self) -> bool:
        world = self._world
        if world.lanes.prefill and world.admits(world.lanes):
            return True
        return any(waiter.ready() for waiter in world.waiters)
