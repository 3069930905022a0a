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
from typing import TYPE_CHECKING, Any, TypeAlias

from pdvsim.architectures.lane import Run, Streams
from pdvsim.core import Request, Stage, settle, unfinished
from pdvsim.records import STAGE_CODE, STREAM_CODE
from pdvsim.work import Counts, Works, contexts_of, with_context

if TYPE_CHECKING:
    from pdvsim.des.gpu import Operation
    from pdvsim.des.world import Lane, SimulatedWorld, Steps


# Stages, their codes and their streams' in records, and their counts where these are known.
Chain: TypeAlias = tuple[tuple[Stage, float, float, Counts | None], ...]
Part: TypeAlias = tuple[Sequence[Request], Chain]
Timed: TypeAlias = tuple[Stage, tuple[Any, ...], float, float]


class Runs:
    """Does what lanes ask to `Run`, at once where the lane is alone."""

    def __init__(self, world: SimulatedWorld) -> None:
        self._world = world
        self._clock, self._executor = world.env, world.executor
        self._locks = list(world.locks.values())
        self._launching, self._device = world.interpreter.server, world.gpu.server
        self._works, self._cost = Works(world.executor), world.costs.cost

    def run(self, lane: Lane, run: Run) -> Steps:
        """`run`, and again as long as nothing but it happens; yields what it has to wait for."""
        world = self._world
        drafts = world.config.draft_tokens if run.draft_tokens is None else run.draft_tokens
        parts = self._parts(run, drafts)
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

    def _parts(self, run: Run, drafts: int) -> list[Part]:
        """What of `run` ends in a wait, in order: whole chains, or each stage where the
        host waits after each."""
        streams, stages, counts = run.streams, run.stages, self._works.counts
        codes = [(STAGE_CODE[stage], STREAM_CODE[streams[stage.model]]) for stage in stages]
        parts: list[Part] = []
        for group in self._world.lanes.launches(run.batch):
            chain = [
                (stage, *code, counts(stage, group, drafts))
                for stage, code in zip(stages, codes, strict=True)
            ]
            if self._executor.synchronous:
                parts.extend([(group, (one,)) for one in chain])
            elif chain:
                parts.append((group, tuple(chain)))
        return parts

    def _by_events(
        self, lane: Lane, streams: Streams, batch: Sequence[Request], chain: Chain, drafts: int
    ) -> Steps:
        """Run one part as `plainly` says it, without a verb for each step."""
        world, synchronous = self._world, self._executor.synchronous
        model = chain[0][0].model
        if synchronous and (pause := world.acquire(lane, model)) is not None:
            yield pause
        after: tuple[Operation, ...] = ()
        for stage, *_ in chain:
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
        if not self._alone(lane):
            return done
        executor, record = self._executor, self._world.recorder.row
        for batch, chain in parts[done:]:
            rows = self._timed(lane, batch, chain, drafts, contexts_of(batch))
            if not rows:
                break
            now = self._clock.now
            for stage, start, launch_s, device_s in rows:
                emitted = settle(executor, stage, batch, drafts, now)
                record(batch, emitted, start, now, launch_s, device_s)
            done += 1
        self._world.forget_count()
        return done

    def _alone(self, lane: Lane) -> bool:
        """Whether nothing runs on the host or the device, and no lock is taken."""
        if self._launching.jobs or self._device.jobs or lane.queued_s >= 0.0:
            return False
        return not self._executor.synchronous or all(lock.idle for lock in self._locks)

    def _timed(
        self, lane: Lane, batch: Sequence[Request], chain: Chain, drafts: int, context: int
    ) -> list[Timed]:
        """Let the time of a part pass, if nothing else is due in it. Of each of its stages what a
        row of the record begins with, and host and device seconds; empty if something is."""
        world, clock, busy_s = self._world, self._clock, self._device.busy_s
        comes_s, due_s, now = world.arrival.key[0], clock.due_s, clock.now
        if world.waiters and comes_s < due_s:
            due_s = comes_s
        synchronous, works_of, cost = self._executor.synchronous, self._works.of, self._cost
        index, take, count = lane.index, lane.take, len(batch)
        rows: list[Timed] = []
        ended_s = -inf
        for stage, code, stream, counts in chain:
            if now >= due_s:  # something else may ask for a cost before this stage does
                break
            if counts is None:
                work = works_of(stage, batch, drafts, context)
                new = work.new_tokens
            else:
                work, new = with_context(counts, context), counts[5]
            launch_s, device_s = cost(stage, work)
            launched_s, now, left_s = now, now + launch_s, device_s
            if synchronous:
                left_s = max(0.0, device_s - (now - launched_s))
            started_s = now if now > ended_s else ended_s
            ended_s = started_s + left_s
            start = (
                code,
                index,
                stream,
                take,
                count,
                new,
                context,
                launched_s,
                launched_s,
                now,
                started_s,
                ended_s,
            )
            rows.append((stage, start, launch_s, device_s))
            busy_s += ended_s - started_s
        if ended_s > now:
            now = ended_s + world.host.event_wake_s
        if now >= due_s or (comes_s <= now and not self._let_come(now)):
            lane.asked.extend([(start[5], start[6], *alone) for _, start, *alone in rows])
            return []
        clock.go_to(now)
        self._device.busy_s = busy_s
        return rows

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
