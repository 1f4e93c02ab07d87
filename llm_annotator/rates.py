"""Counting events: per second, by duration, and how long the latest ones took."""

import bisect
from collections import deque
from collections.abc import Callable, Sequence
from statistics import median

WINDOW_S = 10
"""Seconds over which a rate is averaged: long enough to be steady, short enough to show an outage."""

LATEST = 256
"""Durations of which the median is taken."""

LATENCY_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the classes of a histogram: from a small model on a GPU to one that thinks."""


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
            self._forget()

    def per_s(self) -> float:
        """Returns events per second; 0 before the first one."""
        self._forget()
        span_s = min(max(self._clock() - self._since, 1.0), float(WINDOW_S))
        return sum(events for _, events in self._counts) / span_s

    def _forget(self) -> None:
        now = self._clock()
        while self._counts and self._counts[0][0] < now - WINDOW_S:
            self._counts.popleft()


class Latest:
    """The median of the last `LATEST` durations."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=LATEST)

    def add(self, seconds: float) -> None:
        """Adds a duration, and forgets the oldest."""
        self._seconds.append(seconds)

    def median_s(self) -> float:
        """Returns the median in seconds; 0 before the first one."""
        return median(self._seconds) if self._seconds else 0.0


class Histogram:
    """How many durations fell below each bound, as Prometheus counts them."""

    def __init__(self, bounds_s: Sequence[float] = LATENCY_BUCKETS_S) -> None:
        self.sum_s = 0.0
        """All durations together."""
        self._bounds_s = tuple(bounds_s)
        self._counts = [0] * (len(self._bounds_s) + 1)

    def add(self, seconds: float) -> None:
        """Counts a duration."""
        self._counts[bisect.bisect_left(self._bounds_s, seconds)] += 1
        self.sum_s += seconds

    def buckets(self) -> list[tuple[str, int]]:
        """Returns each bound in seconds, as text, with the number of durations up to it; the last one is "+Inf"."""
        total = 0
        rows: list[tuple[str, int]] = []
        for bound, count in zip([*map(str, self._bounds_s), "+Inf"], self._counts, strict=True):
            total += count
            rows.append((bound, total))
        return rows
