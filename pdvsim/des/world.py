"""The simulated world: runs lane programs in virtual time on SimPy.

Events at one instant happen in SimPy's total order (time, priority, insertion), so the same
seed gives the same bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from itertools import count, repeat
from typing import Any, TypeAlias

from simpy.events import Event, Timeout

from pdvsim.architectures import Config, architecture
from pdvsim.architectures.lane import (
    Acquire,
    Complete,
    Launch,
    PollUntil,
    Program,
    Put,
    Release,
    Run,
    Take,
    Wait,
    WaitUntil,
    no_verb,
    plainly,
)
from pdvsim.core import DraftTokens, Model, Request, Stage, Stream, settle
from pdvsim.des.clock import NEVER, Clock
from pdvsim.des.contention import Contention
from pdvsim.des.costs import StageCosts
from pdvsim.des.gpu import Gpu, Operation
from pdvsim.des.host import Alarm, HostCosts, Interpreter, Lock
from pdvsim.des.runs import Runs
from pdvsim.errors import InvariantError
from pdvsim.kv_cache import KvCache, Pages
from pdvsim.records import Recorder, RunRecord
from pdvsim.source import Source
from pdvsim.work import Works, contexts_of
from pdvsim.workload import Workload

MOST_AT_ONCE = 1_000_000  # verbs of one lane while no time passes
Steps: TypeAlias = Generator[Event, Any, None]


@dataclass(slots=True, eq=False)
class Lane:
    """One simulated thread's program.

    Attributes:
        queued_s: when it began to wait for the lock that it now holds; else negative.
        take: the number of its last take.
        asked: what `ask` said of its next launches, where it has been asked already.
    """

    index: int
    name: str
    program: Program
    result: Any = None
    queued_s: float = -1.0
    take: int = -1
    asked: deque[tuple[int, int, float, float]] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class Waiter:
    """A lane that waits until `ready`, and looks every `interval_s` if it polls."""

    ready: Callable[[], object]
    alarm: Alarm
    since_s: float
    interval_s: float | None


class SimulatedWorld:
    """One run of one configuration. `run()` once."""

    def __init__(
        self,
        config: Config,
        workload: Workload,
        costs: StageCosts,
        host: HostCosts | None = None,
        contention: Contention | None = None,
        kv_cache: KvCache | None = None,
    ) -> None:
        """`kv_cache`: limits which requests are in service together."""
        self.env = Clock()
        self.config = config
        self.executor = config.executor
        self._draft_tokens = config.draft_tokens
        self.costs = costs
        self.host = host or HostCosts()
        shape = architecture(config.architecture)
        self.lanes = shape.lanes(config)
        self._prefill = self.lanes.prefill
        self.admits = shape.admits
        self.next_take = count().__next__
        self.source = Source(workload)
        self._pages = None if kv_cache is None else Pages(kv_cache, self.source.longest)
        if self._pages is not None:
            self.lanes.room = self._pages.room
        programs = shape.programs(self.lanes)
        self.recorder = Recorder(list(programs))
        self.interpreter = Interpreter(self.env, self.host)
        self.gpu = Gpu(
            self.env, contention or {}, self.host.event_wake_s, self.executor.synchronous
        )
        self.locks = {model: Lock(self.env, self.host.lock_wake_s) for model in Model}
        # Bound once: they are called for every stage.
        self._works = Works(self.executor)
        self._cost, self._occupy = costs.cost, self.interpreter.run
        self._submit, self._advance = self.gpu.submit, self.gpu.advance
        self._record = self.recorder.stage
        self._counted_batch: Sequence[Request] = ()
        self._counted_tokens = 0
        self.waiters: list[Waiter] = []
        self._stop = Alarm(self.env)
        self._stopped = False
        self._handlers: dict[type, Callable[[Lane, Any], Event | None]] = {
            Take: self._take,
            Put: self._put,
            Acquire: lambda lane, verb: self.acquire(lane, verb.lock),
            Release: lambda lane, verb: self.release(lane, verb.lock),
            Launch: self._launch,
            Wait: lambda lane, verb: self.wait(lane, verb.event),
            WaitUntil: self._wait_until,
            PollUntil: self._poll_until,
            Complete: self._complete,
        }
        self._runs = Runs(self)
        self.coming: deque[Request] = deque()
        self.arrival = self.env.moment(self.arrive)
        for index, (name, program) in enumerate(programs.items()):
            self.env.process(self._run_lane(Lane(index, name, program)))

    def run(self) -> RunRecord:
        """Run to the workload's end.

        Raises:
            InvariantError: nothing can happen any more while requests are unfinished, or a lane
                goes on for ever while no time passes.
        """
        self.coming.extend(self.source.initial())
        self.arrive()
        deadline_s = self.source.workload.deadline_s
        if deadline_s is not None:
            Timeout(self.env, deadline_s).callbacks.append(lambda _: self._end())
        try:
            self.env.run(until=self._stop)
        except RuntimeError as error:
            raise InvariantError(
                f"the run is stuck at {self.env.now:.6f} s with "
                f"{self.source.released - self.lanes.completed} requests unfinished"
            ) from error
        end_s = self.env.now
        busy_s = {"device": self.gpu.server.busy_until(end_s)}
        return self.recorder.finish(
            self.source.released_requests,
            end_s,
            busy_s,
            self.config,
            self.source.workload,
            "simulated",
        )

    def _run_lane(self, lane: Lane, program: Program | None = None) -> Steps:
        """Do what `program`, or the lane's own, asks for; yields what it has to wait for."""
        send, handlers = (program or lane.program).send, self._handlers
        began_s = -1.0
        while began_s < self.env.now:
            began_s = self.env.now
            for _ in repeat(None, MOST_AT_ONCE):
                try:
                    verb = send(lane.result)
                except StopIteration:
                    return
                lane.result = None
                if type(verb) is Run:
                    yield from self._runs.run(lane, verb)
                    continue
                try:
                    handler = handlers[type(verb)]
                except KeyError:
                    raise no_verb(verb) from None
                pause = handler(lane, verb)
                if pause is not None:
                    yield pause
        raise InvariantError(
            f"time stands still at {began_s:.6f} s: lane {lane.name} of {self.config.name} has "
            f"asked for {MOST_AT_ONCE:,} things in a row meanwhile"
        )

    def plainly(self, lane: Lane, run: Run) -> Steps:
        """`run` with an event for whatever happens."""
        return self._run_lane(lane, plainly(self.lanes, run))

    def arrive(self) -> None:
        """Release what is due, and be called again when the next is."""
        coming = self.coming
        while coming and coming[0].arrival_s <= self.env.now:
            self._prefill.push((coming.popleft(),))
            self._look()
            self._notify()
        if coming:
            self.arrival.set_at(coming[0].arrival_s)
        else:
            self.arrival.key = NEVER

    def _end(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._stop.ring()

    # Queues

    def _take(self, lane: Lane, verb: Take) -> None:
        if verb.queue is self._prefill:
            batch = self.lanes.pop_admissible(verb)
            self.lanes.active += len(batch)
            if self._pages is not None:
                self._pages.take(batch)
            for request in batch:
                request.admitted_s = self.env.now
        else:
            batch = verb.queue.take(verb.limit)
        lane.result = batch
        if batch:
            lane.take = self.next_take()
            if self._prefill or self.recorder.shut:
                self._look()
            if self.waiters:
                self._notify()

    def _put(self, lane: Lane, verb: Put) -> None:
        verb.queue.push(verb.requests)
        if self._prefill or self.recorder.shut:
            self._look()
        if self.waiters:
            self._notify()

    def _complete(self, lane: Lane, verb: Complete) -> None:
        verb.request.completed_s = self.env.now
        self.lanes.completed += 1
        self.lanes.active -= 1
        if self._pages is not None:
            self._pages.give_back(verb.request)
        following = self.source.next(self.env.now)
        if following is not None:
            self._prefill.push((following,))
        if self.source.over(self.lanes.completed):
            self._end()
        if self._prefill or self.recorder.shut:
            self._look()
        if self.waiters:
            self._notify()

    def _look(self) -> None:
        """Some queue or count has changed: note if admission shuts or opens with that."""
        recorder, lanes = self.recorder, self.lanes
        shut = bool(self._prefill) and not self.admits(lanes)
        if shut or recorder.shut:
            recorder.admission(shut, shut and lanes.full(self.admits), self.env.now)

    # Waiting

    def _notify(self) -> None:
        """Some queue or count has changed: wake whoever waited for that."""
        woken = [waiter for waiter in self.waiters if waiter.ready()]
        for waiter in woken:
            self.waiters.remove(waiter)
            if waiter.interval_s is None:
                waiter.alarm.ring(self.host.wake_s)
            else:
                waited = self.env.now - waiter.since_s
                waiter.alarm.ring(waiter.interval_s - waited % waiter.interval_s)

    def _wait_until(self, lane: Lane, verb: WaitUntil) -> Event | None:
        # The time-out needs no event here: every change that can make `ready` true notifies.
        ready = verb.ready
        return None if ready() else self._block(ready, None)

    def _poll_until(self, lane: Lane, verb: PollUntil) -> Event | None:
        # Idle polls change nothing, so they are skipped up to the first that finds work.
        ready = verb.ready
        if ready():
            return None
        return self._block(ready, verb.interval_s + self.host.poll_overhead_s)

    def _block(self, ready: Callable[[], object], interval_s: float | None) -> Event:
        waiter = Waiter(ready, Alarm(self.env), self.env.now, interval_s)
        self.waiters.append(waiter)
        return waiter.alarm

    def acquire(self, lane: Lane, model: Model) -> Event | None:
        lane.queued_s = self.env.now
        return self.locks[model].acquire() if model in self.host.locks else None

    def release(self, lane: Lane, model: Model) -> None:
        lane.queued_s = -1.0
        if model in self.host.locks:
            self.locks[model].release()

    # The device

    def _launch(self, lane: Lane, verb: Launch) -> Event | None:
        drafts = self._draft_tokens if verb.draft_tokens is None else verb.draft_tokens
        return self.launch(lane, verb.stage, verb.batch, verb.stream, verb.after, drafts)

    def launch(
        self,
        lane: Lane,
        stage: Stage,
        batch: Sequence[Request],
        stream: Stream,
        after: Sequence[Operation],
        drafts: DraftTokens,
    ) -> Event | None:
        """Launch a stage; the lane's result is its operation."""
        now = self.env.now
        lane.result = op = Operation(stage, batch, stream, after, drafts)
        asked = lane.asked.popleft() if lane.asked else self.ask(stage, batch, drafts)
        op.query_tokens, op.context_tokens, launch_s, device_s = asked
        op.launch_alone_s = launch_s
        op.device_alone_s = op.remaining_s = device_s
        op.take = lane.take
        op.queued_s = lane.queued_s if lane.queued_s >= 0.0 else now
        op.launched_s = now
        return self._occupy(launch_s, self._submit, op)

    def ask(
        self, stage: Stage, batch: Sequence[Request], drafts: DraftTokens
    ) -> tuple[int, int, float, float]:
        """(new tokens, context tokens, host seconds, device seconds) of a launch."""
        if batch is not self._counted_batch:  # the stages of a turn share one
            self._counted_batch = batch
            self._counted_tokens = contexts_of(batch)
        context = self._counted_tokens
        work = self._works.of(stage, batch, drafts, context)
        return work.new_tokens, context, *self._cost(stage, work)

    def forget_count(self) -> None:
        """Tokens are about to be produced."""
        self._counted_batch = ()

    def wait(self, lane: Lane, op: Operation) -> Event | None:
        if op.done or (self._advance(op) and self.env.skip(self.host.event_wake_s)):
            self._settle(lane, op)
            return None
        alarm = Alarm(self.env)
        alarm.callbacks.append(lambda _: self._settle(lane, op))
        if op.done:
            alarm.ring(self.host.event_wake_s)
        else:
            op.alarm = alarm
        return alarm

    def _settle(self, lane: Lane, op: Operation) -> None:
        if op.settled:
            return
        op.settled = True
        if op.after:
            for earlier in op.after:  # a lane waits for the last of a chain only
                self._settle(lane, earlier)
            op.after = ()
        now = self.env.now
        self.forget_count()
        emitted = settle(self.executor, op.stage, op.batch, op.draft_tokens, now)
        self._record(op, lane.index, now, emitted)


def simulate(
    config: Config,
    workload: Workload,
    costs: StageCosts,
    host: HostCosts | None = None,
    contention: Contention | None = None,
    kv_cache: KvCache | None = None,
) -> RunRecord:
    """Run `workload` on `config` in virtual time."""
    return SimulatedWorld(config, workload, costs, host, contention, kv_cache).run()
