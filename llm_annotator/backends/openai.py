"""Backend `openai`: any server with an OpenAI-compatible API, asked through the `openai` SDK.

The SDK's own retries are off: the engine alone decides whether to ask again. The API key is read from the environment
and never stands in a message, a repr or an exception.
"""

import asyncio
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast
from urllib.parse import urlsplit, urlunsplit

from annotated_types import Ge, Le

from llm_annotator.backends.answers import as_count, as_list, as_mapping, merge_logprobs
from llm_annotator.backends.openai_errors import Failures
from llm_annotator.backends.options import read_options
from llm_annotator.config import BackendConfig
from llm_annotator.errors import BackendAnswerInvalid, ConfigError
from llm_annotator.secret import clean_secret
from llm_annotator.types import Completion, Request

if TYPE_CHECKING:
    from openai import AsyncOpenAI

DEFAULT_BASE_URL = "https://api.openai.com/v1"


@dataclass(frozen=True)
class OpenAIOptions:
    """Options of the backend `openai` (`BackendConfig.options`)."""

    top_logprobs: Annotated[int, Ge(0), Le(100)] = 20
    """Alternatives asked for, 20 being the most that OpenAI and vLLM give by default (5 for OpenAI's completions).
    0 asks for none, for servers that refuse the field: answers are then read from their first word."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Name of the field that bounds the answer; newer models of OpenAI want the second."""
    temperature: Annotated[float, Ge(0)] | None = 0.0
    """Sampling temperature; None leaves the field out, for models that refuse it."""


class OpenAIBackend:
    """Asks an OpenAI-compatible server."""

    name = "openai"

    def __init__(self, config: BackendConfig) -> None:
        if not config.model:
            raise ConfigError("backend 'openai' needs the name of a model: set annotator.backend.model")
        self._options = read_options("openai", config.options, OpenAIOptions)
        self._url = _check_url(config.base_url or DEFAULT_BASE_URL)
        variable = config.api_key_env
        self._key = clean_secret(os.environ.get(variable), f"the API key in the environment variable {variable}")
        self._failures = Failures(config, url=_without_login(self._url), key=self._key)
        self._timeout_s = config.timeout_s
        self._served = config.model
        self._chat = config.api == "chat"
        self.model = _identity(config.model, chat=self._chat, text_only=self._options.top_logprobs == 0)
        self.max_concurrent = config.max_concurrent
        self._client: AsyncOpenAI | None = None

    async def __aenter__(self) -> Self:
        from openai import AsyncOpenAI

        self._client = AsyncOpenAI(
            # Never None: the SDK would then send the value of OPENAI_API_KEY, whatever server this is.
            api_key=self._key or "none",
            base_url=self._url,
            timeout=self._timeout_s,
            max_retries=0,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def complete(self, request: Request) -> Completion:
        """Asks once."""
        started = time.perf_counter()
        body = await self._ask(request)
        latency_s = time.perf_counter() - started
        choices = as_list(body.get("choices"))
        if not choices:
            raise BackendAnswerInvalid(f"{self._failures.server} answered without any choice")
        choice, usage = as_mapping(choices[0]), as_mapping(body.get("usage"))
        text = as_mapping(choice.get("message")).get("content") if self._chat else choice.get("text")
        prefix, suffix = _sent(request, chat=self._chat)
        return Completion(
            sent_prefix=prefix,
            sent_suffix=suffix,
            text=text if isinstance(text, str) else "",
            logprobs=_first_token(as_mapping(choice.get("logprobs"))),
            model=self.model,
            tokens_in=as_count(usage.get("prompt_tokens")),
            tokens_out=as_count(usage.get("completion_tokens")),
            latency_s=latency_s,
        )

    async def _ask(self, request: Request) -> Mapping[str, Any]:
        import openai

        if self._client is None:
            raise RuntimeError("the backend is used outside of 'async with'")
        fields = self._fields(request)
        if self._key is None:
            fields["extra_headers"] = {"Authorization": openai.Omit()}
        try:
            # The SDK's time-out is per read: a server that drips would hold the request for ever.
            async with asyncio.timeout(self._timeout_s):
                # Any: the overloads of the SDK cannot be told apart by a dictionary of fields.
                endpoint: Any = self._client.chat.completions if self._chat else self._client.completions
                answer = await endpoint.with_raw_response.create(**fields)
                body: object = json.loads(answer.content)
        except (TimeoutError, openai.APITimeoutError):
            raise self._failures.timed_out() from None
        except openai.OpenAIError as error:
            raise self._failures.translate(error) from None
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise self._failures.not_json() from None
        if not isinstance(body, dict):
            raise self._failures.not_json()
        return as_mapping(cast("object", body))

    def _fields(self, request: Request) -> dict[str, Any]:
        options = self._options
        fields: dict[str, Any] = {"model": self._served, options.max_tokens_field: request.max_tokens}
        if options.temperature is not None:
            fields["temperature"] = options.temperature
        alternatives = options.top_logprobs if request.choices else 0
        if self._chat:
            fields["messages"] = [message._asdict() for message in request.messages]
            if alternatives:
                fields |= {"logprobs": True, "top_logprobs": alternatives}
            return fields
        fields["prompt"] = request.text_prefix + request.text_suffix
        if alternatives:
            fields["logprobs"] = alternatives
        return fields


def _identity(model: str, *, chat: bool, text_only: bool) -> str:
    """Returns the model's name with what else decides an answer and its reading, so that each is a labeler of its own.

    A chat template makes another prompt of the same request; an answer read from its first word has no score.
    """
    ways = [way for way, taken in (("completions", not chat), ("first word", text_only)) if taken]
    return f"{model} ({', '.join(ways)})" if ways else model


def _first_token(logprobs: Mapping[str, Any]) -> dict[str, float] | None:
    """Returns the alternatives of the first token, in either of the two forms that servers use."""
    content = as_list(logprobs.get("content"))
    if content:  # chat, and the completions of newer llama.cpp
        tops = [as_mapping(item) for item in as_list(as_mapping(content[0]).get("top_logprobs"))]
        pairs = [(item.get("token"), item.get("logprob")) for item in tops]
    else:
        legacy = as_list(logprobs.get("top_logprobs"))
        pairs = list(as_mapping(legacy[0]).items()) if legacy else []
    read = [(token, value) for token, value in pairs if isinstance(token, str) and isinstance(value, int | float)]
    return merge_logprobs(read) or None


def _sent(request: Request, *, chat: bool) -> tuple[str, str]:
    if not chat:
        return request.text_prefix, request.text_suffix
    shared = json.dumps([message._asdict() for message in request.messages[:-1]], ensure_ascii=False)
    last = json.dumps(request.messages[-1]._asdict(), ensure_ascii=False)
    return (shared[:-1] + ", " if len(request.messages) > 1 else "["), last + "]"


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


def create(config: BackendConfig) -> OpenAIBackend:
    """Returns the backend `openai`."""
    return OpenAIBackend(config)
