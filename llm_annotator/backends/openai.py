"""Backend `openai`: any server with an OpenAI-compatible API, asked through the `openai` SDK.

The SDK's own retries are off: the engine alone decides whether to ask again.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llm_annotator.backends.compatible import CompatibleBackend, Server
from llm_annotator.config import BackendConfig

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_KNOWN = ("model", "messages", "prompt")
"""What the SDK's methods ask for; all other fields go through unseen, those of other servers too."""

_NOT_CONNECTED = ("ConnectError", "ProxyError")
"""Errors of the library that carries the SDK's requests. By name, for which library that is depends on the SDK."""


class _SdkTransport:
    """Carries requests by the SDK."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._client: AsyncOpenAI | None = None

    async def open(self) -> None:
        from openai import AsyncOpenAI

        self._client = AsyncOpenAI(
            # Never None: the SDK would then send the value of OPENAI_API_KEY, whatever server this is.
            api_key=self._server.key or "none",
            base_url=self._server.url,
            timeout=self._server.timeout_s,
            max_retries=0,
        )

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def send(self, fields: Mapping[str, Any]) -> object:
        import openai

        if self._client is None:
            raise RuntimeError("the backend is used outside of 'async with'")
        given: dict[str, Any] = {name: fields[name] for name in _KNOWN if name in fields}
        given["extra_body"] = {name: value for name, value in fields.items() if name not in _KNOWN}
        if self._server.key is None:
            given["extra_headers"] = {"Authorization": openai.Omit()}
        # Any: the overloads of the SDK cannot be told apart by a dictionary of fields.
        chat = self._server.path == "/chat/completions"
        endpoint: Any = self._client.chat.completions if chat else self._client.completions
        failures = self._server.failures
        try:
            answer = await endpoint.with_raw_response.create(**given)
        except openai.APITimeoutError:
            raise failures.timed_out() from None
        except openai.APIStatusError as error:
            raise failures.status(error.status_code, error.response.headers, error.response.text) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise failures.unreachable(cause, connected=type(cause).__name__ not in _NOT_CONNECTED) from None
        return json.loads(answer.content)


def create(config: BackendConfig) -> CompatibleBackend:
    """Returns the backend `openai`."""
    return CompatibleBackend("openai", config, _SdkTransport)
