"""When a backend may be asked: paces questions while it is down, refuses, or asks for a pause."""

import random
from collections.abc import Callable
from typing import Literal

from llm_annotator.config import EngineConfig
from llm_annotator.errors import BackendError, BackendOverloaded, BackendRejected, BackendUnreachable

MAX_RETRY_AFTER_S = 300.0
"""Longest pause that is made because a server asks for it (`Retry-After`). One that names hours is asked again sooner:
its clock or its mind may have changed, and one question every five minutes harms nobody."""

GateState = Literal["closed", "half-open", "open"]
"""As of a circuit breaker: questions go through, one goes through to see, or none does."""


def asked_pause_s(error: Exception) -> float:
    """Returns the pause that the server asked for with its error, at most `MAX_RETRY_AFTER_S`; 0 if it did not."""
    asked_s = error.retry_after_s if isinstance(error, BackendError) else None
    return min(asked_s or 0.0, MAX_RETRY_AFTER_S)


def backoff_s(failures: int, config: EngineConfig, draw: Callable[[], float] = random.random) -> float:
    """Returns the pause after so many failures in a row, in seconds.

    It doubles from `config.backoff_s` up to `config.max_backoff_s`, and a quarter of it is random, so that many
    clients of one server do not come back in step.
    """
    longest = min(config.backoff_s * 2.0 ** min(failures - 1, 30), config.max_backoff_s)
    return longest * (0.75 + 0.25 * draw())


class BackendGate:
    """A circuit breaker: after a fault one question at a time goes through, at a growing pace, until one is answered.

    A fault here is the backend's own: unreachable, overloaded, or refusing. Many requests in flight fail together, so
    only the first fault of a burst lengthens the pause; `begin` hands out the ticket by which the others are known.
    """

    def __init__(self, config: EngineConfig, *, clock: Callable[[], float], draw: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._draw = draw
        self._generation = 0
        self._failures = 0
        self._resume_at = 0.0
        self._probing = False
        self.problem = ""
        """What is wrong and what to do, in words; empty while the backend answers."""

    @property
    def state(self) -> GateState:
        """Whether questions go through."""
        if self._resume_at > self._clock():
            return "open"
        return "half-open" if self._failures else "closed"

    def delay_s(self) -> float | None:
        """Returns the seconds until the next question may go out; None until the one under way has ended."""
        if self._probing:
            return None
        return max(0.0, self._resume_at - self._clock())

    def begin(self) -> int:
        """Notes that a question goes out; returns its ticket."""
        self._probing = self._failures > 0
        return self._generation

    def answered(self, ticket: int) -> None:
        """Notes that the backend answered: it is open again, unless the question is older than the fault."""
        if ticket == self._generation and self.problem:
            self._failures = 0
            self._probing = False
            self._generation += 1
            self.problem = ""

    def faulted(self, ticket: int, error: BackendError) -> None:
        """Notes a fault of the backend: the next question waits, at least as long as the server asked for.

        A question that is older than the backend's last answer says nothing: the gate stays open.
        """
        now = self._clock()
        if ticket == self._generation:
            self._failures += 1
            self._generation += 1
            self._probing = False
            self._resume_at = now + backoff_s(self._failures, self._config, self._draw)
            self.problem = explain(error)
        if self._failures:
            self._resume_at = max(self._resume_at, now + asked_pause_s(error))

    def paused(self, ticket: int, error: BackendError) -> float:
        """Notes that a backend that answers others asks for a pause; returns by how many seconds all now wait longer.

        It is no fault: afterwards all questions go out again.
        """
        if ticket != self._generation and not self.problem:
            return 0.0  # as above
        now = self._clock()
        if ticket == self._generation:
            self._generation += 1
            self._probing = False  # its end will come with a ticket of before
            self.problem = explain(error)
        before = max(now, self._resume_at)
        self._resume_at = max(before, now + asked_pause_s(error))
        return self._resume_at - before

    def abandoned(self, ticket: int) -> None:
        """Notes that a question ended without showing anything about the backend."""
        if ticket == self._generation:
            self._probing = False


def explain(error: BackendError) -> str:
    """Returns what is wrong with the backend and what to do about it, as one sentence."""
    said = str(error).strip().rstrip(".") or type(error).__name__
    match error:
        case BackendUnreachable():
            return (
                f"The LLM cannot be reached: {said}. Start its server or correct backend.base_url; labels resume then."
            )
        case BackendOverloaded():
            return f"The LLM is overloaded: {said}. Asking more slowly; lower backend.max_concurrent if this lasts."
        case BackendRejected():
            return (
                f"The LLM's server refuses to answer: {said}. Check backend.model and the key in the environment "
                "variable that backend.api_key_env names."
            )
        case _:
            return f"The LLM's answers cannot be used: {said}."
