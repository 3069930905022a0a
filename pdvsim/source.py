"""Releases a workload's requests: on time, or, in a closed loop, one for each completion."""

from __future__ import annotations

from pdvsim.core import Request
from pdvsim.workload import Workload


class Source:
    """The workload's side of a run, the same in both worlds. Not thread-safe."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self._requests = workload.requests()
        self.released = 0

    @property
    def released_requests(self) -> list[Request]:
        return self._requests[: self.released]

    @property
    def longest(self) -> Request:
        """The one of all requests that comes to the most tokens."""
        return max(self._requests, key=lambda one: one.prompt_tokens + one.output_tokens)

    def initial(self) -> list[Request]:
        """Requests that come by themselves, in order of arrival."""
        closed = self.workload.in_flight
        self.released = len(self._requests) if closed is None else closed
        return self.released_requests

    def next(self, now_s: float) -> Request | None:
        """The request that a completion at `now_s` brings in, if any."""
        if self.workload.in_flight is None or self.released == len(self._requests):
            return None
        request = self._requests[self.released]
        self.released += 1
        request.arrival_s = now_s
        return request

    def over(self, completed: int) -> bool:
        """Whether the run ends with this many completions."""
        target = self.workload.stop_after
        return completed >= (len(self._requests) if target is None else target)
