"""What a lane runs while nothing else happens: the same numbers in one step, without an event.

A stage that starts on an idle device, launched by the only thread that is awake, ends when
arithmetic says so. As long as nothing is due before that, its lane, its locks, its stream and the
clock need no simulating: the times are the sums that the events would have come to, added in the
same order, so that records are equal to the last bit (`tests/test_alone.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING

from pdvsim.architectures.lane import Run
from pdvsim.core import settle, unfinished
from pdvsim.records import STAGE_CODE, STREAM_CODE

if TYPE_CHECKING:
    from pdvsim.des.world import Lane, SimulatedWorld, Steps


class Alone:
    """Does what lanes ask to `Run`, at once where the lane is alone."""

    def __init__(self, world: SimulatedWorld) -> None:
        self._world = world
        self._clock, self._executor = world.env, world.executor
        self._locks = list(world.locks.values())
        self._launching, self._device = world.interpreter.server, world.gpu.server

    def run(self, lane: Lane, run: Run) -> Steps:
        """`run`, and again as long as nothing but it happens; yields what it has to wait for."""
        world = self._world
        parts = list(self._parts(run))
        while parts:
            coming, undisturbed = len(world.coming), True
            for part in parts:
                if not self._at_once(lane, part):
                    undisturbed = False
                    yield from world.plainly(lane, part)
            undisturbed = undisturbed and len(world.coming) == coming
            if not (run.again and undisturbed and self._steady(run)):
                return
            if run.via is not None:
                lane.take = world.next_take()

    def _parts(self, run: Run) -> Iterator[Run]:
        """What of `run` ends in a wait, in order: whole chains, or each stage where the host waits
        after each."""
        for group in self._world.lanes.launches(run.batch):
            if not self._executor.synchronous:
                yield Run(run.stages, group, run.streams, run.draft_tokens)
                continue
            for stage in run.stages:
                yield Run((stage,), group, run.streams, run.draft_tokens)

    def _at_once(self, lane: Lane, run: Run) -> bool:
        """Run a chain of stages if nothing else is due before its end; whether it was so.

        Requests may come meanwhile where nobody waits for them.
        """
        world, clock, batch = self._world, self._clock, run.batch
        if self._launching.jobs or self._device.jobs or lane.queued_s >= 0.0 or not run.stages:
            return False
        synchronous = self._executor.synchronous
        if synchronous and not all(lock.idle for lock in self._locks):
            return False
        due_s = clock.due_s
        if world.waiters:
            due_s = min(due_s, world.arrival.key[0])
        drafts = world.config.draft_tokens if run.draft_tokens is None else run.draft_tokens
        now, ended_s = clock.now, -inf
        rows = []
        for stage in run.stages:
            if now >= due_s:  # something else may ask for a cost before this stage does
                return False
            asked = world.ask(stage, batch, drafts)
            lane.asked.append(asked)
            query, context, launch_s, device_s = asked
            launched_s, now = now, now + launch_s
            left_s = max(0.0, device_s - (now - launched_s)) if synchronous else device_s
            started_s = max(now, ended_s)
            ended_s = started_s + left_s
            moments = (launched_s, launched_s, now, started_s, ended_s)
            rows.append((stage, query, context, moments, launch_s, device_s))
        if ended_s > now:
            now = ended_s + world.host.event_wake_s
        if now >= due_s or not self._let_come(now):
            return False
        lane.asked.clear()
        clock.go_to(now)
        world.forget_count()
        for stage, query, context, moments, launch_s, device_s in rows:
            self._device.busy_s += moments[4] - moments[3]
            world.recorder.row(
                batch,
                settle(self._executor, stage, batch, drafts, now),
                STAGE_CODE[stage],
                lane.index,
                STREAM_CODE[run.streams[stage.model]],
                lane.take,
                len(batch),
                query,
                context,
                *moments,
                now,
                launch_s,
                device_s,
            )
        return True

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
