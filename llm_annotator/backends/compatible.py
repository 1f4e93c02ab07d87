"""What the backends for OpenAI-compatible servers share: everything but the library that carries a request.

The API key is read from the environment, goes into the header of a request, and never stands in a message, a repr, an
exception, or in what is kept of an answer, even where a server repeats it.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Annotated, Any, Literal, Protocol, Self, cast
from urllib.parse import urlsplit, urlunsplit

from annotated_types import Ge, Le

from llm_annotator.backends.answers import as_count, as_list, as_mapping, first_token
from llm_annotator.backends.capabilities import Capabilities, Detector, Fields, Way
from llm_annotator.backends.failures import Failures, FieldRefused
from llm_annotator.backends.options import read_options
from llm_annotator.config import BackendConfig
from llm_annotator.errors import BackendAnswerInvalid, BackendOverloaded, BackendUnreachable, ConfigError
from llm_annotator.forms import Form
from llm_annotator.secret import clean_secret
from llm_annotator.types import Completion, Message, Request

DEFAULT_BASE_URL = "https://api.openai.com/v1"

MAX_ANSWER_CHARS = 65_536
"""How much of an answer is kept. Servers are asked for some hundred tokens; one that sends more is cut off here."""


@dataclass(frozen=True)
class CompatibleOptions:
    """Options of the backends `openai` and `completions` (`BackendConfig.options`)."""

    top_logprobs: Annotated[int, Ge(0), Le(100)] = 20
    """Alternatives asked for, 20 being the most that OpenAI and vLLM give by default; fewer if the server refuses them.
    0 asks for none: the server is then bound to the words, or its answers are read from their first word."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Name of the field that bounds the answer; the other one is used with a server that refuses it."""
    temperature: Annotated[float, Ge(0)] | None = 0.0
    """Sampling temperature; None leaves the field out, as is done with a server that refuses it."""
    constrain: bool = True
    """Whether a server that can be bound to a form of answer is, where that is of use."""
    extra_body: str = ""
    """Further fields of a request, as a JSON object: {"chat_template_kwargs": {"enable_thinking": false}}."""


@dataclass(frozen=True)
class Server:
    """Where requests go. connections: how many may be open at once."""

    url: str
    path: Literal["/chat/completions", "/completions"]
    key: str | None
    timeout_s: float
    connections: int
    failures: Failures


class Transport(Protocol):
    """A library that carries requests; opened and closed by the backend."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, fields: Mapping[str, Any]) -> object:
        """Returns the answer's JSON.

        Raises:
            BackendError: of the kind that `Failures` says; a time-out of the whole request is not its matter.
            ValueError: the answer is not JSON.
        """
        ...


class CompatibleBackend:
    """Asks an OpenAI-compatible server, in the best way that the server shows to know."""

    def __init__(self, name: str, config: BackendConfig, carry: Callable[[Server], Transport]) -> None:
        if not config.model:
            raise ConfigError(f"backend {name!r} needs the name of a model: set annotator.backend.model")
        options = read_options(name, config.options, CompatibleOptions)
        url = _check_url(config.base_url or DEFAULT_BASE_URL)
        variable = config.api_key_env
        key = clean_secret(os.environ.get(variable), f"the API key in the environment variable {variable}")
        self._failures = Failures(config, url=_without_login(url), key=key)
        self._chat = config.api == "chat"
        self._extra = _extra_body(options.extra_body, name)
        self._timeout_s = config.timeout_s
        self._served = config.model
        self._shared: tuple[tuple[Message, ...], str] = ((), "[")
        self._transport = carry(
            Server(
                url=url,
                path="/chat/completions" if self._chat else "/completions",
                key=key,
                timeout_s=config.timeout_s,
                connections=config.max_concurrent,
                failures=self._failures,
            )
        )
        first = Fields(options.top_logprobs, options.max_tokens_field, options.temperature)
        self._detector = Detector(self._ask, first, constrain=options.constrain)
        self.name = name
        self.model = _identity(config.model, self._extra, chat=self._chat, text_only=options.top_logprobs == 0)
        self.max_concurrent = config.max_concurrent

    @property
    def capabilities(self) -> Capabilities:
        """What the server has shown by now."""
        return self._detector.capabilities

    async def look(self) -> Capabilities:
        """Returns what the server can do, found out by harmless questions."""
        try:
            return await self._detector.look()
        except FieldRefused as error:
            raise error.plain() from None

    async def __aenter__(self) -> Self:
        await self._transport.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.close()

    async def complete(self, request: Request) -> Completion:
        """Asks once; again, in another way, where the server turned out not to know the first one."""
        try:
            return await self._complete(request)
        except FieldRefused as error:
            raise error.plain() from None

    async def _complete(self, request: Request) -> Completion:
        way = await self._detector.way(request)
        try:
            completion = await self._ask(request, way)
        except FieldRefused:
            if way.proven:
                raise
        else:
            if way.proven or completion.logprobs or not way.fields.alternatives or not completion.text.strip():
                return completion
        return await self._ask(request, await self._detector.way_after_refusal(request))

    async def _ask(self, request: Request, way: Way) -> Completion:
        started = time.perf_counter()
        body = await self._send(self._fields(request, way))
        latency_s = time.perf_counter() - started
        choice, usage = self._only_choice(body), as_mapping(body.get("usage"))
        text = self._failures.scrub(self._text(choice))
        logprobs = self._logprobs(choice) if way.fields.alternatives else None
        prefix, suffix = self._sent(request)
        completion = Completion(
            sent_prefix=prefix,
            sent_suffix=suffix,
            text=text[:MAX_ANSWER_CHARS],
            logprobs=logprobs and {self._failures.scrub(token): value for token, value in logprobs.items()},
            model=self.model,
            tokens_in=as_count(usage.get("prompt_tokens")),
            tokens_out=as_count(usage.get("completion_tokens")),
            latency_s=latency_s,
            constraint=way.constraint.name if way.constraint else "",
            cut=request.reasoned and (choice.get("finish_reason") == "length" or len(text) > MAX_ANSWER_CHARS),
        )
        self._detector.answered(request, way, completion, str(body.get("model")))
        return completion

    def _only_choice(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        choices = as_list(body.get("choices"))
        if len(choices) != 1:  # of several none is known to be the answer
            how = f"with {len(choices)} choices instead of one" if choices else "without any choice"
            raise BackendAnswerInvalid(f"{self._failures.server} answered {how}")
        return as_mapping(choices[0])

    def _logprobs(self, choice: Mapping[str, Any]) -> Mapping[str, float] | None:
        try:
            return first_token(as_mapping(choice.get("logprobs")))
        except ValueError as error:
            raise BackendAnswerInvalid(
                f"{self._failures.server} answered with {error}; if it always does, set the option top_logprobs to 0"
            ) from None

    async def _send(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            # The libraries' time-outs are per read: a server that drips would hold the request for ever.
            async with asyncio.timeout(self._timeout_s):
                body = await self._transport.send(fields)
        except TimeoutError:
            raise self._failures.timed_out() from None
        except (ValueError, RecursionError):
            raise self._failures.not_json() from None
        except (BackendUnreachable, BackendOverloaded):
            self._detector.server_failed()
            raise
        if not isinstance(body, dict):
            raise self._failures.not_json()
        return as_mapping(cast("object", body))

    def _fields(self, request: Request, way: Way) -> dict[str, Any]:
        alternatives = way.fields.alternatives if request.choices and not request.reasoned else 0
        tokens = max(request.max_tokens, way.constraint.tokens if way.constraint else 0)
        if way.proven and alternatives:
            tokens = 1  # the log-probabilities of the first one say it all
        fields: dict[str, Any] = {"model": self._served, way.fields.bound: tokens}
        if way.fields.temperature is not None:
            fields["temperature"] = way.fields.temperature
        if self._chat:
            fields["messages"] = [message._asdict() for message in request.messages]
            if alternatives:
                fields |= {"logprobs": True, "top_logprobs": alternatives}
        else:
            fields["prompt"] = request.text_prefix + request.text_suffix
            if alternatives:
                fields["logprobs"] = alternatives
            if request.stop:
                fields["stop"] = list(request.stop)
        if way.constraint is not None:
            lead = "" if self._chat else " "
            fields |= way.constraint.fields(Form(request.choices, request.reasoned, tokens, lead=lead))
        return fields | self._extra

    def _sent(self, request: Request) -> tuple[str, str]:
        """Returns the prompt as it was sent, split after what all questions of a labeler share."""
        if not self._chat:
            return request.text_prefix, request.text_suffix
        turns, last = request.messages[:-1], request.messages[-1]
        if turns != self._shared[0]:  # quick while one labeler asks: the turns are the same objects
            shared = json.dumps([turn._asdict() for turn in turns], ensure_ascii=False)
            self._shared = (turns, shared[:-1] + ", " if turns else "[")
        return self._shared[1], json.dumps(last._asdict(), ensure_ascii=False) + "]"

    def _text(self, choice: Mapping[str, Any]) -> str:
        """Returns the answer; thinking that the server gives apart stands before it, as models write it themselves."""
        if not self._chat:
            text = choice.get("text")
            return text if isinstance(text, str) else ""
        message = as_mapping(choice.get("message"))
        content, thinking = message.get("content"), message.get("reasoning_content") or message.get("reasoning")
        text = content if isinstance(content, str) else ""
        return f"<think>\n{thinking}\n</think>\n{text}" if isinstance(thinking, str) and thinking else text


def _identity(model: str, extra: Mapping[str, Any], *, chat: bool, text_only: bool) -> str:
    """Returns the model's name with what else decides an answer and its reading, so that each is a labeler of its own.

    A chat template makes another prompt of the same request; an answer read from its first word has no score.
    """
    ways = [way for way, taken in (("completions", not chat), ("first word", text_only)) if taken]
    ways += [f"with {json.dumps(extra, sort_keys=True)}"] if extra else []
    return f"{model} ({', '.join(ways)})" if ways else model


def _extra_body(text: str, name: str) -> dict[str, Any]:
    try:
        extra: object = json.loads(text) if text else {}
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise ConfigError(f"option 'extra_body' of backend {name!r} must be a JSON object, not {text!r}")
    return cast("dict[str, Any]", extra)


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        ok = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        ok = False
    if not ok:
        shown = url if "@" not in url else "(not shown: it holds a login)"
        raise ConfigError(f"base_url must look like http://127.0.0.1:8000/v1, not {shown!r}")
    return url


def _without_login(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
