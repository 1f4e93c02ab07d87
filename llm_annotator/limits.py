"""How many requests one server gets at once: as many as bring more answers, found by trying."""

import math
from collections.abc import Callable
from typing import NamedTuple

FIRST = 4
"""Requests in flight at first. Latency alone never brings it below: what a queue of three costs cannot be measured."""

WORTH = 0.2
"""Growth of answers per growth of requests in flight, both as logarithms, from which more in flight are worth it: to
double them must bring 15% more answers a second. Of a server with so many slots and a queue everything beyond the slots
brings nothing; one that batches (vLLM) brings ever less."""

LARGEST_STEP, SMALLEST_STEP = 2.0, 1.1
"""Factors between two levels that are compared."""

FEWEST_SAMPLES, MOST_SAMPLES = 24, 512
"""Answers from which a level is judged: the more, the more they vary, but these and those in flight at most."""

CERTAINTY = 8.0
"""A step, as a logarithm, spans so many standard errors of what is measured at least; a smaller one shows noise."""

REFUSED_SHARE = 0.02
"""Difference in the share of refused requests from which two levels differ in it, beside what is chance."""

HOLD_EPOCHS, HOLD_S = 8, 5.0
"""How long a level is kept that is better than those around it, before they are tried again."""

CEILING_S = 60.0
"""Time in which the server is not asked for as many at once as it refused; doubles each time, up to ten times."""

_LONGEST_CEILING_S = 10 * CEILING_S


NO_QUEUE = 0.05
"""Latency above the lowest one seen, as a share of it, up to which nothing waits at the server."""

FORGET = 0.05
"""How much nearer the lowest latency comes to that of now with each hold."""

NEWEST_WEIGHT = 0.3
"""Weight of the newest epoch in what is known of the level that is kept."""


class _Epoch(NamedTuple):
    """What was seen at one level: good answers a second, their relative standard error, share of refused requests.

    seconds: mean latency. refused_error: twice the standard error of the share.
    """

    level: int
    seconds: float
    per_s: float
    error: float
    refused: float
    refused_error: float


class ConcurrencyLimit:
    """How many requests may be in flight, `limit`, at most `most`.

    A level is compared with a higher and a lower one, in ever smaller steps. By Little's law, answers a second are
    requests in flight over mean latency, so only latencies need to be seen; requests that the server refuses for being
    busy count as time spent without an answer. That measures what matters, unlike a latency above the lowest one seen
    (TCP Vegas, the gradient limits of Netflix), which is no sign of a queue at a server that batches.

    Levels are judged only while there is more to ask than the limit lets through.
    """

    def __init__(self, most: int, *, clock: Callable[[], float]) -> None:
        self.most = most
        self.limit = min(most, FIRST)
        self._clock = clock
        self._level = self.limit
        self._known: _Epoch | None = None  # what was seen at `_level`
        self._trial = 0  # 1 while more than `_level` are tried, -1 while fewer
        self._accepted = 0  # trials in this direction that were better, one after another
        self._verified = True  # whether more than `_level` were found no better
        self._step = LARGEST_STEP
        self._epochs_to_hold = 0
        self._hold_until = 0.0
        self._ceiling: int | None = None
        self._ceiling_until = 0.0
        self._ceiling_s = CEILING_S
        self._ended = self._epochs = 0
        self._held_back_at = -most
        self._level_since = self._skip = 0
        self._fastest_s = math.inf  # smallest mean latency of an epoch
        self._begin_epoch(self.limit)

    def held_back(self) -> None:
        """Notes that the limit kept a request from going out."""
        self._held_back_at = self._ended

    def began(self) -> int:
        """Notes that a request goes out; returns what `ended` is to be told."""
        return self._epochs

    def ended(self, began: int, seconds: float, *, refused: bool = False, pause_s: float = 0.0) -> None:
        """Notes that a request ended, after so many seconds in flight.

        refused: the server was too busy for it. Requests that failed otherwise are not told of.
        pause_s: for how long it made all requests wait.
        """
        self._ended += 1
        if refused:
            self._held_back_at = self._ended  # by the server
        if self._ended - self._held_back_at > self.limit:
            # Nobody waited: what the server does with `limit` requests is not seen.
            self._begin_epoch(self.limit)
            return
        if began < self._level_since:
            return  # it went out at another level
        self._refused += refused
        if self._trial > 0 and self._is_refused_outright(pause_s):
            self._refuse_level()
            return
        if self._skip > 0:
            self._skip -= 1
            return
        self._samples += 1
        self._refused_samples += refused
        self._paused_s += pause_s
        self._seconds += seconds
        self._squares += seconds * seconds
        if self._is_enough():
            self._judge(self._epoch())

    def _begin_epoch(self, level: int) -> None:
        self._epochs += 1
        if level != self.limit or self._known is None:
            # The first ones meet the queue, or the lack of one, of the level before.
            self._level_since, self._skip = self._epochs, level
        self.limit = level
        self._samples = self._refused = self._refused_samples = 0
        self._seconds = self._squares = self._paused_s = 0.0

    def _error(self) -> float:
        """Returns the relative standard error of answers a second.

        It is that of the time that the server itself needs. Those that wait in its queue wait about as long as each
        other: relative to their own mean, latencies would seem steadier than the server is.
        """
        mean = self._seconds / self._samples
        answers = self._samples - self._refused_samples
        if mean <= 0 or not answers:
            return 0.0
        variance = max(0.0, self._squares / self._samples - mean * mean)
        relative = variance / min(mean, self._fastest_s) ** 2
        return math.sqrt((relative + self._refused_samples / answers) / self._samples)

    def _is_enough(self) -> bool:
        if self._samples < max(FEWEST_SAMPLES, self.limit):
            return False
        if self._refused_samples and self._samples < MOST_SAMPLES:
            return False  # refusals are rare events: a few of them show little
        known = self._known
        ratio = abs(math.log(self.limit / known.level)) if self._trial and known else math.log(self._step)
        return self._samples >= max(MOST_SAMPLES, self.limit) or self._error() * CERTAINTY <= ratio

    def _epoch(self) -> _Epoch:
        answers = self._samples - self._refused_samples
        per_s = answers / max(self._seconds / self.limit + self._paused_s, 1e-9)
        refused = self._refused_samples / self._samples
        chance = 2.0 * math.sqrt(refused * (1.0 - refused) / self._samples)
        mean_s = self._seconds / self._samples
        epoch = _Epoch(self.limit, mean_s, max(per_s, 1e-9), self._error(), refused, chance)
        self._fastest_s = min(self._fastest_s, mean_s)
        return epoch

    def _judge(self, epoch: _Epoch) -> None:
        known = self._known
        if not self._trial or known is None:
            self._known = epoch if known is None else _mean(known, epoch)
            self._epochs_to_hold -= 1
            if self._epochs_to_hold > 0 or self._clock() < self._hold_until:
                self._begin_epoch(self._level)
            else:
                self._try(-1 if epoch.refused > REFUSED_SHARE else 1)
            return
        if self._trial > 0:
            if _refuses_more(epoch, known):
                self._refuse_level()
            elif _elasticity(known, epoch) >= WORTH:
                self._accept(epoch)
            else:
                self._reject()
        elif _elasticity(epoch, known) < WORTH or _refuses_more(known, epoch):
            self._accept(epoch)
        else:
            self._reject()

    def _accept(self, epoch: _Epoch) -> None:
        self._level, self._known = epoch.level, epoch
        self._verified = self._trial > 0  # the level below has just been found worse
        self._accepted += 1
        if self._accepted > 1:
            self._step = min(LARGEST_STEP, self._step * self._step)
        self._try(self._trial)

    def _reject(self) -> None:
        direction = self._trial
        if direction > 0:
            self._verified = True
            self._try(-1)
            return
        assert self._known is not None
        noise = min(LARGEST_STEP, math.exp(CERTAINTY * self._known.error))
        if self._step <= max(SMALLEST_STEP, noise):
            if self._verified:
                self._hold()
            else:
                self._try(1)
        else:
            self._step = max(SMALLEST_STEP, noise, math.sqrt(self._step))
            self._try(1)

    def _refuse_level(self) -> None:
        now = self._clock()
        # Refused again soon after it was tried again: it is tried less often.
        again = self._ceiling is not None and self.limit <= self._ceiling * SMALLEST_STEP
        self._ceiling_s = min(2 * self._ceiling_s, _LONGEST_CEILING_S) if again else CEILING_S
        self._ceiling, self._ceiling_until = self.limit, now + self._ceiling_s
        self._reject()

    def _is_refused_outright(self, pause_s: float) -> bool:
        """Returns whether so much was refused, or at such a price, that the trial need not be brought to its end."""
        known = self._known
        if known is None or known.refused > REFUSED_SHARE:
            return False
        return pause_s > 0 or self._refused >= max(3, self.limit // 8)

    def _try(self, direction: int) -> None:
        """Begins to measure another level in this direction; if there is none, takes it as worse."""
        if direction != self._trial:
            self._accepted = 0
        self._trial = direction
        level = self._next_level(direction)
        if level == self._level or (direction < 0 and self._has_no_queue()):
            self._reject()
        else:
            self._begin_epoch(level)

    def _has_no_queue(self) -> bool:
        """Returns whether the server answers about as fast as ever, so that fewer requests would only cost answers."""
        known = self._known
        if known is None or known.refused > REFUSED_SHARE:
            return False
        return known.seconds <= self._fastest_s * (1.0 + NO_QUEUE + CERTAINTY / 2 * known.error)

    def _next_level(self, direction: int) -> int:
        if direction > 0:
            level = min(self.most, max(self._level + 1, round(self._level * self._step)))
            if self._ceiling is not None and self._clock() < self._ceiling_until:
                level = max(self._level, min(level, self._ceiling - 1))
            return level
        # The server itself must say that it is busy before it gets fewer than FIRST.
        known = self._known
        floor = 1 if known is not None and known.refused > REFUSED_SHARE else min(FIRST, self._level)
        return max(floor, min(self._level - 1, round(self._level / self._step)))

    def _hold(self) -> None:
        self._trial = self._accepted = 0
        self._epochs_to_hold = HOLD_EPOCHS
        self._hold_until = self._clock() + HOLD_S
        if self._known is not None:  # what was fast long ago is no measure for ever
            self._fastest_s += FORGET * (self._known.seconds - self._fastest_s)
        self._begin_epoch(self._level)


def _mean(before: _Epoch, now: _Epoch) -> _Epoch:
    """Returns what was seen at one level, where newer epochs count more."""
    return now._replace(
        seconds=before.seconds + NEWEST_WEIGHT * (now.seconds - before.seconds),
        error=math.hypot((1.0 - NEWEST_WEIGHT) * before.error, NEWEST_WEIGHT * now.error),
        per_s=before.per_s + NEWEST_WEIGHT * (now.per_s - before.per_s),
        refused=before.refused + NEWEST_WEIGHT * (now.refused - before.refused),
    )


def _refuses_more(one: _Epoch, other: _Epoch) -> bool:
    return one.refused - other.refused > REFUSED_SHARE + one.refused_error + other.refused_error


def _elasticity(lower: _Epoch, higher: _Epoch) -> float:
    """Returns by how much answers a second grow from one level to the higher one, as a share of what they could."""
    return math.log(higher.per_s / lower.per_s) / math.log(higher.level / lower.level)
