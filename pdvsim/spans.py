"""Sets of moments: disjoint intervals of time, in seconds, and how much of them lies where."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]


class Spans:
    """A union of closed intervals [starts[i], ends[i]]; empty and backward ones are dropped."""

    def __init__(self, starts: Times, ends: Times) -> None:
        some = ends > starts
        starts, ends = starts[some], ends[some]
        order = np.argsort(starts, kind="stable")
        starts, latest = starts[order], np.maximum.accumulate(ends[order])
        # A new interval of the union begins where all earlier ones have ended.
        first = np.concatenate(([True], starts[1:] > latest[:-1])) if len(starts) else starts > 0
        last = np.concatenate((first[1:], [True])) if len(starts) else first
        self.starts: Times = starts[first]
        self.ends: Times = latest[last]
        self._edges = np.column_stack((self.starts, self.ends)).ravel()
        lengths = np.column_stack((np.zeros(len(self.starts)), self.ends - self.starts)).ravel()
        self._covered = np.cumsum(lengths)

    @property
    def length_s(self) -> float:
        """Seconds of the whole set."""
        return float(self._covered[-1]) if len(self._covered) else 0.0

    def __or__(self, other: Spans) -> Spans:
        return Spans(
            np.concatenate((self.starts, other.starts)), np.concatenate((self.ends, other.ends))
        )

    def __sub__(self, other: Spans) -> Spans:
        """What of this lies outside `other`: the gaps of `other` less the gaps of both, which
        lie inside them. It begins where a gap of `other` begins or one of both ends."""
        outer, inner = other._gaps(), (self | other)._gaps()
        starts = np.sort(np.concatenate((outer[0], inner[1])))
        ends = np.sort(np.concatenate((outer[1], inner[0])))
        return Spans(starts, ends)

    def _gaps(self) -> tuple[Times, Times]:
        return np.append(-np.inf, self.ends), np.append(self.starts, np.inf)

    def within(self, start: Times, end: Times) -> Times:
        """Seconds of the set inside each [start, end], shape of `start`."""
        if not len(self._edges):
            return np.zeros_like(start)
        covered = np.interp(end, self._edges, self._covered)
        covered -= np.interp(start, self._edges, self._covered)
        return np.clip(covered, 0.0, np.maximum(end - start, 0.0))
