"""The real world: runs lane programs on real threads, locks, condition variables and streams.

One thread per lane program, one `threading.Lock` per model, and one lock over queues, counts
and records with a condition variable per lane on it. The calling thread releases arrivals and
ends the run. Times are seconds since the start of the run, on `time.perf_counter`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

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
from pdvsim.core import Model, Request, query_tokens, settle
from pdvsim.errors import InputError, InvariantError
from pdvsim.records import Recorder, RunRecord
from pdvsim.source import Source
from pdvsim.workload import Workload
from realengine.busy import busy_seconds
from realengine.engine import Engine, Ticket
from realengine.failures import FATAL, Failures
from realengine.host import Lane, NoTicket, Operation, quiet_gc

STUCK_S = 120.0
_LOOK_S = 1.0  # how often the calling thread looks whether the run still moves


class _Over(Exception):
    """The run has ended; the lane stops at this verb."""


class RealWorld:
    """One run of one configuration. `run()` once."""

    def __init__(
        self, config: Config, workload: Workload, engine: Engine, stuck_s: float = STUCK_S
    ) -> None:
        """`stuck_s`: the run fails if requests are in flight and no stage ends for so long."""
        if (
            engine.executor is not config.executor
            or config.draft_tokens not in engine.draft_lengths
        ):
            lengths = ", ".join(map(str, engine.draft_lengths))
            raise InputError(
                f"the engine is {engine.executor.name} with {lengths} draft tokens; "
                f"the configuration wants {config.executor.name} with {config.draft_tokens}"
            )
        self.config = config
        self.executor = config.executor
        self.engine = engine
        self.stuck_s = stuck_s
        shape = architecture(config.architecture)
        self.lanes = shape.lanes(config)
        self._admits = shape.admits
        self._takes = 0
        self._taken: dict[int, Request] = {}  # and not launched yet: they hold no memory
        self.lanes.room = self._room
        self.source = Source(workload)
        deadline_s = workload.deadline_s
        self._deadline_s = float("inf") if deadline_s is None else deadline_s
        programs = shape.programs(self.lanes)
        self.recorder = Recorder(list(programs))
        self.locks = {model: threading.Lock() for model in Model}
        self._state = threading.Lock()
        self._over = threading.Event()
        self._end_s: float | None = None
        self._error: BaseException | None = None
        self.failures = Failures()
        self._start_s = self._moved_s = 0.0
        self._arrived = 0
        self._lanes = [
            Lane(index, name, program, threading.Condition(self._state))
            for index, (name, program) in enumerate(programs.items())
        ]
        self._handlers: dict[type, Callable[[Lane, Any], Any]] = {
            Take: self._take,
            Put: self._put,
            Acquire: self._acquire,
            Release: self._release,
            Launch: self._launch,
            Wait: self._wait,
            Run: self._run,
            WaitUntil: self._wait_until,
            PollUntil: self._poll_until,
            Complete: self._complete,
        }

    def run(self) -> RunRecord:
        """Run to the workload's end.

        A request that the engine cannot go on with leaves, and the others go on; its record says
        when (`failed_s`), `failures` why.

        Raises:
            RequestError: a request can never be served; nothing has run.
            InvariantError: requests are in flight and nothing has happened for `stuck_s`.
            BaseException: whatever ended a lane, or Ctrl-C; what failed first, if no request
                completed.
        """
        self.engine.check(self.source.longest)
        arrivals = deque(self.source.initial())
        threads = [
            threading.Thread(target=self._run_lane, args=(lane,), name=lane.name, daemon=True)
            for lane in self._lanes
        ]
        with quiet_gc():
            self.engine.start()
            self._start_s = time.perf_counter()
            self._arrive(arrivals)
            try:
                for thread in threads:
                    thread.start()
                self._supervise(arrivals)
            finally:
                self._finish()
                self._join([thread for thread in threads if thread.ident is not None])
        if self._error is not None:
            raise self._error
        if self.failures and self.lanes.completed == len(self.failures):
            raise self.failures.first
        assert self._end_s is not None
        record = self.recorder.finish(
            self.source.released_requests,
            self._end_s,
            {},
            self.config,
            self.source.workload,
            "real",
            verbs=sum(lane.verbs for lane in self._lanes),
            verb_overhead_s=sum(lane.alive_s - lane.outside_s for lane in self._lanes),
        )
        record.busy_s.update(busy_seconds(record))
        return record

    def _now(self) -> float:
        return time.perf_counter() - self._start_s

    # The calling thread

    def _supervise(self, arrivals: deque[Request]) -> None:
        """Release arrivals on time until the run is over, its deadline has come or it is stuck."""
        while True:
            due_s = arrivals[0].arrival_s if arrivals else self._deadline_s
            pause_s = min(due_s, self._deadline_s) - self._now()
            if self._over.wait(max(0.0, min(pause_s, _LOOK_S))):
                return
            now = self._now()
            if now >= self._deadline_s:
                return
            self._arrive(arrivals)
            if self._arrived == self.lanes.completed:
                self._moved_s = now
            elif now - self._moved_s > self.stuck_s:
                raise InvariantError(
                    f"the run is stuck at {now:.3f} s: no stage has ended for {self.stuck_s:g} s "
                    f"and {self._arrived - self.lanes.completed} requests are unfinished"
                )

    def _arrive(self, arrivals: deque[Request]) -> None:
        """Release what is due."""
        with self._state:
            now = self._now()
            while arrivals and arrivals[0].arrival_s <= now:
                self.lanes.prefill.push((arrivals.popleft(),))
                self._arrived += 1
            self._notify()

    def _finish(self) -> None:
        """End the run, at its deadline if that has passed."""
        with self._state:
            if self._end_s is None:
                self._end_s = min(self._now(), self._deadline_s)
            self._over.set()
            for lane in self._lanes:
                lane.wake.notify()

    def _join(self, threads: Sequence[threading.Thread]) -> None:
        """Wait for the lanes to stop, then free what unfinished requests hold."""
        until_s = time.perf_counter() + self.stuck_s
        for thread in threads:
            thread.join(max(0.0, until_s - time.perf_counter()))
        stuck = [thread.name for thread in threads if thread.is_alive()]
        if stuck:
            raise InvariantError(
                f"lanes {stuck} did not stop within {self.stuck_s:g} s"
            ) from self._error
        for request in self.source.released_requests:
            if request.left_s is None:
                self.engine.release(request)

    # Lane threads

    def _run_lane(self, lane: Lane) -> None:
        began_s = time.perf_counter()
        try:
            self._follow(lane, lane.program)
        except _Over:
            pass
        except BaseException as error:
            self._fail(error)
        finally:
            lane.alive_s = time.perf_counter() - began_s
            self._leave(lane)

    def _follow(self, lane: Lane, program: Program) -> None:
        """Do what `program` asks for, until it ends or the run is over."""
        send, handlers, over = program.send, self._handlers, self._over.is_set
        result = None
        while not over():
            try:
                verb = send(result)
            except StopIteration:
                return
            handler = handlers.get(type(verb))
            if handler is None:
                raise no_verb(verb)
            result = handler(lane, verb)
            lane.verbs += 1
        raise _Over

    def _run(self, lane: Lane, verb: Run) -> None:
        self._follow(lane, plainly(self.lanes, verb))

    def _fail(self, error: BaseException) -> None:
        """The first error of any lane ends the run."""
        if self._error is None:
            self._error = error
        self._finish()

    def _leave(self, lane: Lane) -> None:
        """Let the device finish, then let the other lanes go on to their own ends."""
        try:
            if lane.launched is not None and self._error is None:
                lane.launched.ticket.wait()
            lane.program.close()
        except BaseException as error:
            self._fail(error)
        finally:
            for model in lane.held:
                self.locks[model].release()

    def _enter(self) -> float:
        """The time, while the run goes on; call with the state lock held."""
        now = time.perf_counter() - self._start_s
        if self._end_s is not None or now >= self._deadline_s:
            raise _Over
        return now

    # Queues

    def _take(self, lane: Lane, verb: Take) -> list[Request]:
        with self._state:
            now = self._enter()
            if verb.queue is self.lanes.prefill:
                batch = self.lanes.pop_admissible(verb)
                self.lanes.active += len(batch)
                for request in batch:
                    request.admitted_s = now
                    self._taken[request.id] = request
            else:
                batch = verb.queue.take(verb.limit)
            if batch:
                lane.take = self._takes
                self._takes += 1
                self._notify()
        return batch

    def _room(self, requests: Sequence[Request]) -> bool:
        """Asks for those too that were taken before."""
        return self.engine.can_admit(*self._taken.values(), *requests)

    def _put(self, lane: Lane, verb: Put) -> None:
        with self._state:
            verb.queue.push(verb.requests)
            self._notify()

    def _complete(self, lane: Lane, verb: Complete) -> None:
        with self._state:
            now = self._enter()
            request = verb.request
            if request in self.failures or request.produced_tokens < request.output_tokens:
                request.failed_s = now
            else:
                request.completed_s = now
            self.lanes.completed += 1
            self.lanes.active -= 1
            self._taken.pop(verb.request.id, None)
            following = self.source.next(now)
            if following is not None:
                self.lanes.prefill.push((following,))
                self._arrived += 1
            if self.source.over(self.lanes.completed):
                self._end_s = now
                self._over.set()
            # Before anyone is told: a lane may wait for what this request held.
            self.engine.release(verb.request)
            self._notify()

    # Waiting

    def _notify(self) -> None:
        """Some queue or count has changed: wake the lanes that waited for that, and note if
        admission shuts or opens with it."""
        shut = bool(self.lanes.prefill) and not self._admits(self.lanes)
        if (shut or self.recorder.shut) and self._end_s is None:
            self.recorder.admission(shut, shut and self.lanes.full(self._admits), self._now())
        for lane in self._lanes:
            if lane.ready is not None and lane.ready():
                lane.wake.notify()

    def _wait_until(self, lane: Lane, verb: WaitUntil) -> None:
        began_s = time.perf_counter()
        ready = verb.ready
        with self._state:
            lane.ready = ready
            lane.wake.wait_for(lambda: self._end_s is not None or ready(), verb.timeout_s)
            lane.ready = None
        lane.outside_s += time.perf_counter() - began_s

    def _poll_until(self, lane: Lane, verb: PollUntil) -> None:
        began_s = time.perf_counter()
        ready, interval_s, state, over = verb.ready, verb.interval_s, self._state, self._over
        while not over.is_set():
            with state:
                if ready():
                    break
            time.sleep(interval_s)
        lane.outside_s += time.perf_counter() - began_s

    def _acquire(self, lane: Lane, verb: Acquire) -> None:
        began_s = time.perf_counter()
        lane.queued_s = began_s - self._start_s
        self.locks[verb.lock].acquire()
        lane.held.append(verb.lock)
        lane.outside_s += time.perf_counter() - began_s

    def _release(self, lane: Lane, verb: Release) -> None:
        lane.queued_s = -1.0
        lane.held.remove(verb.lock)
        self.locks[verb.lock].release()

    # The device

    def _launch(self, lane: Lane, verb: Launch) -> Operation:
        stage, stream, after = verb.stage, verb.stream, verb.after
        drafts = self.config.draft_tokens if verb.draft_tokens is None else verb.draft_tokens
        batch, drafts = self.failures.going_on(verb.batch, drafts)
        new = query_tokens(self.executor, stage, batch, drafts)
        context = sum([request.context_tokens for request in batch])
        tickets = [event.ticket for event in after]
        began_s, began_cpu_s = time.perf_counter(), time.thread_time()
        ticket: Ticket = NoTicket(stage)
        while batch:
            try:
                ticket = self.engine.launch(stage, batch, stream, tickets, drafts)
                self._launched(batch)
                break
            except FATAL:
                raise
            except Exception as error:
                self._give_up(batch, error)
                batch, drafts = self.failures.going_on(batch, drafts)
        cpu_s, wall_s = time.thread_time() - began_cpu_s, time.perf_counter() - began_s
        lane.outside_s += wall_s
        launched_s = began_s - self._start_s
        queued_s = lane.queued_s if lane.queued_s >= 0.0 else launched_s
        # A thread that waits for the GIL burns no CPU, so its CPU time is its launch alone.
        operation = Operation(
            ticket,
            stage,
            batch,
            stream,
            lane.take,
            drafts,
            new,
            context,
            queued_s,
            launched_s,
            launched_s + wall_s,
            min(cpu_s, wall_s),
            after,
            settled=not batch,
        )
        lane.launched = operation
        return operation

    def _launched(self, batch: Sequence[Request]) -> None:
        if self._taken:
            with self._state:
                for request in batch:
                    self._taken.pop(request.id, None)

    def _give_up(self, batch: Sequence[Request], error: Exception) -> None:
        with self._state:
            self._moved_s = self._now()
            self.failures.give_up(batch, error)

    def _wait(self, lane: Lane, verb: Wait) -> None:
        operation: Operation = verb.event
        began_s = time.perf_counter()
        try:
            operation.ticket.wait()
            lane.outside_s += time.perf_counter() - began_s
            self._settle(lane, operation)
        except (_Over, *FATAL):
            raise
        except Exception as error:  # what the work came to is lost, for all in it
            with self._state:
                self.failures.give_up_all(operation.batch, error)

    def _settle(self, lane: Lane, operation: Operation) -> None:
        if operation.settled:
            return
        operation.settled = True
        for earlier in operation.after:  # a lane waits for the last of a chain only
            self._settle(lane, earlier)
        operation.after = ()
        ticket = operation.ticket
        began_s = time.perf_counter()
        checked = self.engine.settle(ticket)
        span_s = ticket.device_span_s()
        lane.outside_s += time.perf_counter() - began_s
        with self._state:
            now = self._enter()
            self._moved_s = now
            operation.set_device_times(span_s, self._start_s, now)
            if len(ticket.served) < len(operation.batch):
                checked = operation.only(ticket.served, checked)
            emitted = settle(
                self.executor,
                operation.stage,
                operation.batch,
                operation.draft_tokens,
                now,
                checked,
            )
            self.recorder.stage(operation, lane.index, now, emitted)


def run(config: Config, workload: Workload, engine: Engine, stuck_s: float = STUCK_S) -> RunRecord:
    """Run `workload` on `config` with real threads; see `RealWorld.run`."""
    return RealWorld(config, workload, engine, stuck_s).run()
