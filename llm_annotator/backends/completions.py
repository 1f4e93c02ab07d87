"""Backend `completions`: any server with an OpenAI-compatible API, asked by plain HTTP.

It does what `openai` does, and needs no SDK: with it the annotator takes about a fifth of the processor time (1.2 ms of
5.8 ms a label, `scripts/bench annotator` on a busy machine). Both are the same labeler if they ask the same model.
"""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from llm_annotator.backends.compatible import CompatibleBackend, Server
from llm_annotator.backends.network import Network
from llm_annotator.config import BackendConfig
from llm_annotator.errors import BackendAnswerInvalid

MAX_BODY_BYTES = 8 << 20
"""Largest answer that is read. One token with 20 alternatives has some 3 kB."""

KEEPALIVE_S = 4.0
"""Time that an unused connection is kept. uvicorn, which serves vLLM and SGLang, closes it after 5 s: a request that
crosses its closing would be lost."""


class _HttpTransport:
    """Carries requests by httpcore, without the layers of httpx for redirects, cookies and logins.

    There is no pool, which looks at every connection for every request: at 64 of them that took four times the
    processor time of all else. Whoever calls `send` sees to it that it ends.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        url = httpx.URL(server.url.rstrip("/") + server.path)
        self._url = _core_url(url)
        self._headers = [
            (b"Host", url.netloc),
            (b"Content-Type", b"application/json"),
            (b"Accept", b"application/json"),
        ]
        if server.key is not None:
            self._headers.append((b"Authorization", f"Bearer {server.key}".encode("ascii")))
        self._network = Network()
        self._is_open = False
        self._free: list[_Connection] = []  # the one used last is used next, so that spare ones expire
        self._busy: set[_Connection] = set()

    async def open(self) -> None:
        self._is_open = True
        proxy = _proxy(self._server.url)
        self._tls = httpx.create_ssl_context()  # reading the certificates takes longer than a request
        self._proxy = None if proxy is None else _core_proxy(httpx.Proxy(proxy))

    async def close(self) -> None:
        self._is_open = False
        connections = [*self._free, *self._busy]
        self._free.clear()
        for connection in connections:
            await connection.aclose()

    async def _take(self) -> "_Connection":
        """Returns a connection that no other request uses."""
        if not self._is_open:
            raise RuntimeError("the backend is used outside of 'async with'")
        while self._free and _is_spent(self._free[-1]):
            await self._free.pop().aclose()
        connection = self._free.pop() if self._free else self._connection()
        self._busy.add(connection)
        return connection

    def _connection(self) -> "_Connection":
        if self._proxy is None:
            return httpcore.AsyncHTTPConnection(
                self._url.origin, ssl_context=self._tls, keepalive_expiry=KEEPALIVE_S, network_backend=self._network
            )
        return httpcore.AsyncConnectionPool(
            ssl_context=self._tls,
            proxy=self._proxy,
            max_connections=1,
            keepalive_expiry=KEEPALIVE_S,
            network_backend=self._network,
        )

    async def _put_back(self, connection: "_Connection") -> None:
        self._busy.discard(connection)
        if self._is_open and not _is_spent(connection):
            self._free.append(connection)
        else:
            await connection.aclose()

    async def send(self, fields: Mapping[str, Any]) -> object:
        failures = self._server.failures
        body = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
        headers = [*self._headers, (b"Content-Length", b"%d" % len(body))]
        request = httpcore.Request("POST", self._url, headers=headers, content=body)
        connection = await self._take()
        try:
            response = await connection.handle_async_request(request)
            try:
                content = await self._read(response)
            finally:
                await response.aclose()
        except httpcore.TimeoutException:
            raise failures.timed_out() from None
        except httpx.DecodingError:
            raise failures.not_json() from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.ProxyError) as error:
            connected = not isinstance(error, httpcore.ConnectError | httpcore.ProxyError)
            raise failures.unreachable(error, connected=connected) from None
        finally:
            await self._put_back(connection)
        if not 200 <= response.status < 300:
            raise failures.status(response.status, httpx.Headers(response.headers), content.decode("utf-8", "replace"))
        return json.loads(content)

    async def _read(self, response: httpcore.Response) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in _plain(response):
            size += len(part)
            if size > MAX_BODY_BYTES:
                raise BackendAnswerInvalid(
                    f"{self._server.failures.server} answered more than {MAX_BODY_BYTES} bytes, which were not read"
                )
            parts.append(part)
        return b"".join(parts)


_Connection = httpcore.AsyncHTTPConnection | httpcore.AsyncConnectionPool
"""To the server, or through a proxy, which httpcore does by its pools alone."""


def _is_spent(connection: _Connection) -> bool:
    """Returns whether a connection cannot be used again; a pool opens another one by itself."""
    return isinstance(connection, httpcore.AsyncHTTPConnection) and (connection.is_closed() or connection.has_expired())


class _Parts(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._response.aiter_stream():
            yield part


def _plain(response: httpcore.Response) -> AsyncIterator[bytes]:
    """Returns the parts of an answer, unpacked where the server packed them unasked."""
    if all(name.lower() != b"content-encoding" for name, _ in response.headers):
        return response.aiter_stream()
    return httpx.Response(response.status, headers=response.headers, stream=_Parts(response)).aiter_bytes()


def _core_url(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _core_proxy(proxy: httpx.Proxy) -> httpcore.Proxy:
    return httpcore.Proxy(_core_url(proxy.url), auth=proxy.raw_auth, headers=proxy.headers.raw)


def _proxy(url: str) -> str | None:
    """Returns the proxy that the environment names for an address, None if there is none; a loopback has none."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in ("localhost", "127.0.0.1", "::1") or proxy_bypass(host):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def create(config: BackendConfig) -> CompatibleBackend:
    """Returns the backend `completions`."""
    return CompatibleBackend("completions", config, _HttpTransport)
