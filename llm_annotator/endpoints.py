"""One server of the LLM: when it may be asked, how much at once, and how it fared."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from llm_annotator.backends.base import Backend
from llm_annotator.config import EngineConfig
from llm_annotator.errors import BackendAnswerInvalid, BackendError, BackendOverloaded, ConfigError
from llm_annotator.gate import BackendGate, asked_pause_s, backoff_s, explain
from llm_annotator.limits import ConcurrencyLimit
from llm_annotator.rates import Histogram

_log = logging.getLogger(__name__)

REST_S = 0.25
"""How long one that was refused for being too many stays away, if the server names no pause of its own."""


MOST_CREDIT, FAULT_COST = 10, 2
"""An answer earns a server one point of credit, a fault costs it two; one that it has no credit for closes the gate. So
a server that fails now and then, at less than every third request, is asked on, and one that is down a few times."""


SILENCE_S = 20.0
"""A server that answers nothing at all while a request waits for so long in vain is down, whatever its credit."""


class Visit(NamedTuple):
    """One request under way: the ticket of the gate, that of the limit, the answers given before, when it began."""

    ticket: int
    level: int
    answers: int
    began_at: float


class Endpoint:
    """One server, or whatever else a backend asks.

    name: how people know it: its address.
    backend: None while it is not open.
    """

    def __init__(
        self,
        name: str,
        config: EngineConfig,
        *,
        clock: Callable[[], float],
        draw: Callable[[], float],
        backend: Backend | None = None,
    ) -> None:
        self.name = name
        self.backend: Backend | None = None
        self.gate = BackendGate(config, clock=clock, draw=draw)
        self.limit = ConcurrencyLimit(1, clock=clock)
        self.in_flight = 0
        self.answers = 0
        self.outcomes: Counter[str] = Counter()
        """Requests that ended, by outcome: "answered", or the name of the error's class."""
        self.latency = Histogram()
        """Of the requests that were answered."""
        self._config = config
        self._clock = clock
        self._draw = draw
        self._resting = 0  # of those in flight
        self._credit = 0
        self._opening = ""  # why it could not be opened
        if backend is not None:
            self.open(backend)

    def open(self, backend: Backend) -> None:
        """Takes a backend that can be asked from now on."""
        self.backend = backend
        self.limit = ConcurrencyLimit(backend.max_concurrent, clock=self._clock)
        self._opening = ""

    @property
    def problem(self) -> str:
        """What is wrong and what to do, in words; empty if all is well."""
        return self._opening or self.gate.problem

    def delay_s(self) -> float | None:
        """Returns the seconds until a request may go out; None if that takes the end of another one, or an opening.

        To be called when there is a request that could: the limit takes note of those that it holds back.
        """
        if self.backend is None:
            return None
        if self.in_flight >= self.limit.limit:
            self.limit.held_back()
            return None
        return self.gate.delay_s()

    def begin(self) -> Visit:
        """Notes that a request goes out."""
        self.in_flight += 1
        return Visit(self.gate.begin(), self.limit.began(), self.answers, self._clock())

    def answered(self, visit: Visit, *, invalid: bool = False) -> None:
        """Notes that the server answered; invalid: nonsense."""
        seconds = self._clock() - visit.began_at
        self.answers += 1
        if self.gate.state == "closed":
            self._credit = min(MOST_CREDIT, self._credit + 1)
        self.outcomes[BackendAnswerInvalid.__name__ if invalid else "answered"] += 1
        self.latency.add(seconds)
        self.gate.answered(visit.ticket)
        self.limit.ended(visit.level, seconds)

    def faulted(self, visit: Visit, error: BackendError) -> float:
        """Notes that a request failed; returns for how many seconds its place is to stay taken.

        A server that is too busy for one request while it works on others is not down, but asked for less.
        """
        self.outcomes[type(error).__name__] += 1
        answers_others = self.answers > visit.answers
        is_silent = not answers_others and self._clock() - visit.began_at >= SILENCE_S
        works = answers_others or (self.in_flight - self._resting > 1 and not is_silent)
        if works and isinstance(error, BackendOverloaded):
            return self._refused(visit, error)
        self._credit -= FAULT_COST
        if self._credit < 0 or is_silent:
            self._credit = 0
            self.gate.faulted(visit.ticket, error)
        return 0.0

    def _refused(self, visit: Visit, error: BackendError) -> float:
        asks_for_pause = asked_pause_s(error) > 0
        pause_s = self.gate.paused(visit.ticket, error) if asks_for_pause else 0.0
        rest_s = 0.0 if asks_for_pause else REST_S * (0.75 + 0.25 * self._draw())
        self._resting += rest_s > 0
        self.limit.ended(visit.level, self._clock() - visit.began_at + rest_s, refused=True, pause_s=pause_s)
        return rest_s

    def left(self, visit: Visit, *, rested: bool = False) -> None:
        """Notes that the place of a request is free. rested: it stayed taken as `faulted` said."""
        self.in_flight -= 1
        self._resting -= rested
        self.gate.abandoned(visit.ticket)

    async def keep_open(
        self, make: Callable[[], Backend], check: Callable[[Backend], None], changed: Callable[[], None]
    ) -> None:
        """Opens a backend, again and again if need be, and keeps it open until cancelled.

        make: returns the backend, not yet opened.
        check: raises ConfigError for a backend that cannot be used beside the others.
        changed: called when the backend is open, or cannot be opened.
        """
        failures = 0
        while True:
            try:
                async with make() as backend:
                    check(backend)
                    self.open(backend)
                    changed()
                    await asyncio.Event().wait()
            except BackendError as error:
                self._opening = explain(error)
            except ConfigError as error:
                self._opening = f"The LLM cannot be opened: {error}."
            except Exception as error:  # noqa: BLE001 - outermost frame of a task: the others must live on, and it is said
                _log.exception("opening the backend failed")
                self._opening = f"The LLM cannot be opened: {type(error).__name__}: {error}. See the log."
            changed()
            failures += 1
            await asyncio.sleep(backoff_s(failures, self._config))
