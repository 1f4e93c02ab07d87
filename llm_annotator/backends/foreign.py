"""Backends of third parties: what they answer and raise is made what the annotator can keep and understand."""

import logging
import math
import numbers
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self, cast

from llm_annotator.backends.answers import as_count, merge_logprobs
from llm_annotator.backends.base import Backend
from llm_annotator.backends.capabilities import Capabilities, ShowsCapabilities
from llm_annotator.captions import printable
from llm_annotator.errors import (
    AnnotatorError,
    BackendAnswerInvalid,
    BackendError,
    BackendOverloaded,
    BackendRejected,
    BackendUnreachable,
    ConfigError,
)
from llm_annotator.types import Completion, Request

_log = logging.getLogger(__name__)

_OURS = (BackendUnreachable, BackendOverloaded, BackendRejected, BackendAnswerInvalid)


MAX_SHOWN_CHARS = 100
"""How much of a value that cannot be used is shown."""


class ForeignBackend:
    """A third party's backend that repeats no secret, and raises nothing but this package's errors.

    kind: its registry name, by which messages call it.
    redact: blots secrets out of a text; applied to all that is stored of an answer, and to the text of errors.
    """

    def __init__(self, backend: Backend, kind: str, redact: Callable[[str], str]) -> None:
        self._backend = backend
        self._kind = kind
        self._redact = redact
        self._has_told = False
        self._take_over()

    async def complete(self, request: Request) -> Completion:
        """Asks once.

        Raises:
            BackendError: of the class that the backend raised; `BackendAnswerInvalid` for any other exception, and for
                what is no `Completion`.
        """
        try:
            return self._clean(await self._backend.complete(request))
        except AnnotatorError as error:
            raise self._ours(error) from None
        except Exception as error:  # noqa: BLE001 - not our code: its fault must not be taken for one of the annotator
            raise BackendAnswerInvalid(f"backend {self._kind!r} failed on a question ({self._told(error)})") from None

    async def __aenter__(self) -> Self:
        try:
            self._backend = await self._backend.__aenter__()
        except AnnotatorError as error:
            raise self._ours(error) from None
        except Exception as error:  # noqa: BLE001 - as above
            raise ConfigError(f"backend {self._kind!r} failed as it was opened ({self._told(error)})") from None
        self._take_over()  # some know their model only now
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._backend.__aexit__(kind, error, trace)

    def _take_over(self) -> None:
        try:
            self.name, self.model = self._redact(str(self._backend.name)), self._redact(str(self._backend.model))
            self.max_concurrent = int(self._backend.max_concurrent)
        except (AttributeError, TypeError, ValueError) as error:
            raise ConfigError(
                f"backend {self._kind!r} is no backend ({error}): it needs name, model and max_concurrent"
            ) from None

    def _clean(self, answer: object) -> Completion:
        if not isinstance(answer, Completion) or not isinstance(answer.text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise BackendAnswerInvalid(
                f"backend {self._kind!r} returned {type(answer).__name__}, not a Completion with a text"
            )
        return replace(
            answer,
            sent_prefix=self._text(answer, "sent_prefix"),
            sent_suffix=self._text(answer, "sent_suffix"),
            text=self._text(answer, "text"),
            model=self._text(answer, "model"),
            constraint=self._text(answer, "constraint"),
            latency_s=self._seconds(answer.latency_s),
            logprobs=self._logprobs(answer.logprobs),
            tokens_in=as_count(answer.tokens_in),
            tokens_out=as_count(answer.tokens_out),
            cut=bool(answer.cut),
        )

    def _text(self, answer: Completion, name: str) -> str:
        value: object = getattr(answer, name)
        if not isinstance(value, str):
            raise self._unusable(name, value, "a text")
        return self._redact(value)

    def _seconds(self, value: object) -> float:
        seconds = float(value) if isinstance(value, numbers.Real) else math.nan
        if not 0.0 <= seconds < math.inf:
            raise self._unusable("latency_s", value, "a number of seconds")
        return seconds

    def _logprobs(self, value: object) -> Mapping[str, float] | None:
        if value is None:
            return None
        wanted = "a mapping of texts to natural log-probabilities"
        if not isinstance(value, Mapping):
            raise self._unusable("logprobs", value, wanted)
        pairs: list[tuple[str, float]] = []
        given = cast("Mapping[object, object]", value)
        for token, logprob in given.items():
            number = float(logprob) if isinstance(logprob, numbers.Real) else math.nan
            if not isinstance(token, str) or not number < math.inf:
                raise self._unusable("logprobs", given, wanted)
            pairs.append((self._redact(token), number))
        return merge_logprobs(pairs)

    def _unusable(self, name: str, value: object, wanted: str) -> BackendAnswerInvalid:
        """Returns the error of a field that the annotator could not keep."""
        shown = printable(self._redact(repr(value))[:MAX_SHOWN_CHARS])
        return BackendAnswerInvalid(
            f"backend {self._kind!r} returned a Completion whose {name} is not {wanted}, but {shown}"
        )

    def _ours(self, error: AnnotatorError) -> AnnotatorError:
        """Returns an error that can be shown, without secrets or what a terminal obeys: itself, if it is that."""
        text = printable(self._redact(str(error)))
        if not isinstance(error, BackendError):
            return error if text == str(error) else ConfigError(text)
        pause_s = _pause_s(error.retry_after_s)
        if text == str(error) and pause_s == error.retry_after_s:
            return error
        ours = next((kind for kind in _OURS if isinstance(error, kind)), BackendError)
        again = ours(text, retry_after_s=pause_s)
        again.retryable, again.status, again.may_cost = error.retryable, error.status, error.may_cost
        return again

    def _told(self, error: Exception) -> str:
        """Returns an exception in words; the log has its traceback, the first time."""
        if not self._has_told:
            self._has_told = True
            trace = "".join(traceback.format_exception(error)).rstrip()
            _log.error("backend %r is at fault:\n%s", self._kind, printable(self._redact(trace), keep_lines=True))
        return printable(self._redact(f"{type(error).__name__}: {error}")) + "; a fault of its package, see the log"


class TellingForeignBackend(ForeignBackend):
    """One that says what its server can do (`ShowsCapabilities`)."""

    @property
    def capabilities(self) -> Capabilities:
        """What is known by now."""
        assert isinstance(self._backend, ShowsCapabilities)
        return self._backend.capabilities

    async def look(self) -> Capabilities:
        """Returns everything, found out now.

        Raises:
            BackendError: the server does not answer.
        """
        assert isinstance(self._backend, ShowsCapabilities)
        try:
            return await self._backend.look()
        except AnnotatorError as error:
            raise self._ours(error) from None


def _pause_s(value: object) -> float | None:
    """Returns a pause that a backend asks for, None where that is no number of seconds."""
    seconds = float(value) if isinstance(value, numbers.Real) else math.nan
    return seconds if seconds >= 0.0 else None


def adopt(backend: Backend, kind: str, redact: Callable[[str], str]) -> ForeignBackend:
    """Returns a third party's backend as one that keeps to the rules."""
    telling = isinstance(backend, ShowsCapabilities)
    return (TellingForeignBackend if telling else ForeignBackend)(backend, kind, redact)
