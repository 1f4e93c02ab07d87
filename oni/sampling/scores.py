"""The reward model's scores over training, for people: now and then those that changed."""

import time
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

MAX_AT_ONCE = 1_000
"""Scores in one report; of more changes the largest are told, and the others at the next one."""

MAX_AT_THE_END = 4_000
"""Scores in the last report of a run. Of more changes the others are never told: what waits to be sent has a limit, and
the end of a run does not wait for a hundred thousand scores to be stored."""

LEAST_CHANGE = 0.005
"""Changes below it are not told, but for the last report of a run. A helpful caption scores 1 with most models."""

_LAST_CHANGE = 1e-6


class ScoreLog:
    """Which scores to tell, and when.

    Args:
        every_s: seconds between two reports. clock: seconds of any steady clock.
    """

    def __init__(self, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._due_at = clock() + every_s
        self._told = np.zeros(0, np.float32)

    def due(
        self, texts: Sequence[bytes], scores: Float[np.ndarray, " V"], *, last: bool = False
    ) -> list[tuple[bytes, float]]:
        """Returns captions with their scores, those of which changed since they were told; nothing between reports.

        Args:
            scores: by caption id, NaN where a caption has not been scored yet.
            last: this is the last report of the run, at any time.

        Of more than `MAX_AT_ONCE` (at the end `MAX_AT_THE_END`) the largest changes are told; those never told before
        come first, by their scores.
        """
        if not last and self._clock() < self._due_at:
            return []
        self._due_at = self._clock() + self._every_s
        size = min(len(scores), len(texts))
        told = np.full(size, np.nan, np.float32)
        known = min(size, len(self._told))
        told[:known] = self._told[:known]
        change = np.abs(scores[:size] - told)
        change[np.isnan(told) & ~np.isnan(scores[:size])] = np.inf
        (ids,) = np.nonzero(change > (_LAST_CHANGE if last else LEAST_CHANGE))  # NaN is not
        ids = ids[ids > 0]  # 0 is the empty caption
        most = MAX_AT_THE_END if last else MAX_AT_ONCE
        if len(ids) > most:
            ids = ids[np.lexsort((-scores[ids], -change[ids]))[:most]]
        told[ids] = scores[ids]
        self._told = told
        return [(texts[i], float(scores[i])) for i in ids]
