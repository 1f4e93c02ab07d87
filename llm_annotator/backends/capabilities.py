"""What a server can do, found out by what it shows, never by its name.

Three ways to read an answer, the best first: the log-probabilities of the answer words; an answer that the server was
bound to give in the form asked for; an answer read as it comes. The first question of a run asks for log-probabilities.
If they are there, that is settled, and nothing else was asked. If they are not, or a field is refused, the server gets
harmless questions, whose answers nobody needs: without the fields that it may have refused, and with each way of
binding it (`constraints`) to an answer that it would not give by itself.

What was found is remembered, and looked for again when the server may be another one: when it breaks what it showed
before, and when it failed or the model answers under another name, if there is something better to be found.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

from llm_annotator import forms
from llm_annotator.backends.constraints import CONSTRAINTS, Constraint
from llm_annotator.backends.failures import FieldRefused
from llm_annotator.errors import BackendAnswerInvalid, BackendOverloaded, BackendRejected
from llm_annotator.types import Completion, Message, Request

RECHECK_S = 60.0
"""Least time between two looks for something better."""

BROKEN_PROMISES = 3
"""Answers in a row without what the server showed before, after which it counts as another one."""

FEWER_ALTERNATIVES = 5
"""What servers allow that do not allow 20: OpenAI's completions."""

_FAULTS = (500, 501)
"""Statuses by which servers refuse a constraint that they cannot work with."""

_QUESTION = "How many legs does a horse have?"
_WORDS = ("plum", "quartz")
"""Nobody answers the question like this unless he must."""


class Capabilities(NamedTuple):
    """What a server has shown so far.

    log_probabilities: whether it gives those of the first token; None if it was not asked yet.
    choice, final: the means by which it can be bound to one of two words, and to thoughts with a final field; empty if
        there is none, None if none was looked for.
    left_out: fields of the API that it refused, so that they are left out or replaced.
    """

    log_probabilities: bool | None = None
    choice: str | None = None
    final: str | None = None
    left_out: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON types."""
        return self._asdict() | {"left_out": list(self.left_out)}


@runtime_checkable
class ShowsCapabilities(Protocol):
    """A backend that can say what its server can do. Others are taken as they answer."""

    @property
    def capabilities(self) -> Capabilities:
        """What is known by now."""
        ...

    async def look(self) -> Capabilities:
        """Returns everything, found out now.

        Raises:
            BackendError: the server does not answer.
        """
        ...


def shown_by(backend: object) -> dict[str, Any] | None:
    """Returns what a backend has shown so far as JSON types, None if it cannot tell."""
    return backend.capabilities.to_json() if isinstance(backend, ShowsCapabilities) else None


@dataclass(frozen=True)
class Fields:
    """The optional fields of a request.

    alternatives: log-probabilities asked for, 0 for none. bound: name of the limit of tokens.
    """

    alternatives: int
    bound: str
    temperature: float | None


class Way(NamedTuple):
    """How to ask a question. proven: the server has answered in this way before."""

    fields: Fields
    constraint: Constraint | None
    proven: bool


class Detector:
    """Knows how one server is to be asked.

    ask: asks once, in a given way, as `Backend.complete`.
    fields: the fields to begin with.
    constrain: whether the server may be bound to a form of answer.
    """

    def __init__(
        self,
        ask: Callable[[Request, Way], Awaitable[Completion]],
        fields: Fields,
        *,
        constrain: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._first = fields
        self._constrain = constrain
        self._clock = clock
        self._looking = asyncio.Lock()  # guards what is found by questions: one look at a time
        self._model = ""
        self._forget()

    def _forget(self) -> None:
        self._fields = self._first
        self._accepted = False
        self._logprobs: bool | None = None if self._first.alternatives else False
        self._constraints: dict[bool, Constraint | None] = {}  # by whether the model thinks first
        self._broken = 0
        self._suspect = False
        self._looked_at = self._clock()

    @property
    def capabilities(self) -> Capabilities:
        """What is known by now."""
        choice, final = (
            (found.name if (found := self._constraints[reasoned]) else "") if reasoned in self._constraints else None
            for reasoned in (False, True)
        )
        left_out = [
            name for name in ("bound", "temperature") if getattr(self._fields, name) != getattr(self._first, name)
        ]
        left_out = [self._first.bound if name == "bound" else name for name in left_out]
        return Capabilities(self._logprobs, choice, final, tuple(left_out))

    async def look(self) -> Capabilities:
        """Returns everything, found out now."""
        self._forget()
        async with self._looking:
            await self._show_logprobs()
            for reasoned in (False, True):
                await self._show_constraint(reasoned=reasoned)
        return self.capabilities

    async def way(self, request: Request) -> Way:
        """Returns how to ask this question; asks the server harmless ones if need be.

        Raises:
            BackendError: the server did not answer those.
        """
        if self._suspect and not self._is_best(request) and self._clock() - self._looked_at >= RECHECK_S:
            self._forget()
        if not request.choices:
            return Way(replace(self._fields, alternatives=0), None, self._accepted)
        if not request.reasoned and self._logprobs is not False:
            return Way(self._fields, None, self._logprobs is True)
        return await self._way_without_logprobs(request)

    async def way_after_refusal(self, request: Request) -> Way:
        """Returns how to ask a question that was refused, or was answered without log-probabilities."""
        async with self._looking:
            if self._logprobs is None:
                await self._show_logprobs()
        return await self.way(request)

    def answered(self, request: Request, way: Way, completion: Completion, model: str) -> None:
        """Notes an answer.

        Raises:
            BackendAnswerInvalid: it lacks what the server showed before, so nothing is to be read from it.
        """
        if model != self._model:
            self._suspect = self._suspect or bool(self._model)
            self._model = model
        if _keeps(request, way, completion):
            self._broken = 0
            if way.fields.alternatives and completion.logprobs:
                self._logprobs, self._accepted = True, True
            return
        self._broken += 1
        if self._broken >= BROKEN_PROMISES:
            self._forget()
        what = f"the form that {way.constraint.name} asks for" if way.constraint else "log-probabilities"
        raise BackendAnswerInvalid(f"the server answered {completion.text[:40]!r}, without {what}, as it did before")

    def server_failed(self) -> None:
        """Notes that the server may be another one when it is back, or may have failed while it was looked at."""
        self._suspect = True

    def _is_best(self, request: Request) -> bool:
        if not request.choices or (not request.reasoned and self._logprobs is not False):
            return True
        return request.reasoned and (not self._constrain or self._constraints.get(True) is not None)

    async def _way_without_logprobs(self, request: Request) -> Way:
        async with self._looking:
            await self._show_constraint(reasoned=request.reasoned)
            return Way(replace(self._fields, alternatives=0), self._constraints[request.reasoned], True)

    async def _show_logprobs(self) -> None:
        completion = await self._accept()
        if self._first.alternatives:
            self._logprobs = bool(completion.logprobs)

    async def _accept(self) -> Completion:
        """Asks with fewer and fewer fields until the server takes them; returns its answer."""
        refusal: FieldRefused | None = None
        tried: list[Fields] = []
        waiting = [self._first]
        while waiting:
            fields = waiting.pop(0)
            tried.append(fields)
            try:
                completion = await self._ask(_harmless(reasoned=False), Way(fields, None, False))
            except FieldRefused as error:
                refusal = refusal or error
                less = _without(fields, error.field)
                waiting = [item for item in (less or waiting) if item not in tried]
            else:
                self._fields, self._accepted = fields, True
                return completion
        assert refusal is not None
        raise refusal

    async def _show_constraint(self, *, reasoned: bool) -> None:
        if reasoned in self._constraints:
            return
        if not self._accepted:
            await self._show_logprobs()
        self._constraints[reasoned] = await self._first_heeded(reasoned=reasoned) if self._constrain else None

    async def _first_heeded(self, *, reasoned: bool) -> Constraint | None:
        question = _harmless(reasoned=reasoned)
        for constraint in CONSTRAINTS:
            way = Way(replace(self._fields, alternatives=0), constraint, False)
            try:
                completion = await self._ask(question, way)
            except BackendRejected:
                continue
            except BackendOverloaded as error:
                if error.status not in _FAULTS:
                    raise
                continue
            if _heeds(question, completion):
                return constraint
        return None


def _keeps(request: Request, way: Way, completion: Completion) -> bool:
    """Returns whether an answer has what the server showed before. One without any words breaks no promise."""
    if not way.proven or not request.choices or not completion.text.strip():
        return True
    if way.constraint is not None:
        return completion.cut or _heeds(request, completion)
    return not way.fields.alternatives or bool(completion.logprobs)


def _heeds(request: Request, completion: Completion) -> bool:
    if request.reasoned:
        return forms.read_final(completion.text, request.choices) is not None
    return forms.is_exactly(completion.text, request.choices)


def _without(fields: Fields, refused: str) -> list[Fields]:
    """Returns what to try without the field that was refused, the best first; if none was named, without each."""
    fewer = [replace(fields, alternatives=number) for number in (FEWER_ALTERNATIVES, 0) if number < fields.alternatives]
    renamed = replace(fields, bound="max_completion_tokens" if fields.bound == "max_tokens" else "max_tokens")
    unheated = replace(fields, temperature=None)
    if "logprobs" in refused:
        return fewer
    if refused:
        return [unheated if refused == "temperature" else renamed]
    both = replace(renamed, temperature=None)
    return [*fewer[:1], renamed, unheated, both, *fewer[1:], replace(both, alternatives=0)]


def _harmless(*, reasoned: bool) -> Request:
    return Request(
        captions=(),
        messages=(Message("user", _QUESTION),),
        text_prefix="",
        text_suffix=f"Question: {_QUESTION}\nReply:",
        choices=_WORDS,
        max_tokens=48 if reasoned else 3,
        reasoned=reasoned,
        stop=("\nQuestion:",) if reasoned else (),
    )
