"""Counting events per second."""

from collections import deque
from collections.abc import Callable

WINDOW_S = 10
"""Seconds over which a rate is averaged: long enough to be steady, short enough to show an outage."""


class RateMeter:
    """Events per second over the last `WINDOW_S` seconds, kept as one count a second."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = clock()
        self._counts: deque[tuple[int, int]] = deque()  # (second, events), oldest first

    def add(self) -> None:
        """Counts one event."""
        second = int(self._clock())
        if self._counts and self._counts[-1][0] == second:
            self._counts[-1] = (second, self._counts[-1][1] + 1)
        else:
            self._counts.append((second, 1))

    def per_s(self) -> float:
        """Returns events per second; 0 before the first one."""
        now = self._clock()
        while self._counts and self._counts[0][0] < now - WINDOW_S:
            self._counts.popleft()
        span_s = min(max(now - self._since, 1.0), float(WINDOW_S))
        return sum(events for _, events in self._counts) / span_s
