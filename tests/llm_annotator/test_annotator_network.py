"""The connections of the backend `completions`: kept, given up, encrypted, through proxies, and under odd servers."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from typing import Any, Self

import httpcore
import pytest

from llm_annotator.backends import completions, create_backend
from llm_annotator.backends.network import MOST_UNREAD_BYTES, Network
from llm_annotator.config import BackendConfig, LabelerConfig
from llm_annotator.errors import BackendError, BackendOverloaded, BackendUnreachable
from llm_annotator.labeler import resolve_labeler
from llm_annotator.types import Completion

REQUEST = resolve_labeler(LabelerConfig(goal="open the box")).request(b"You open the box.")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def answer(text: str = "yes", *, padding: int = 0) -> bytes:
    top = [{"token": word, "logprob": value} for word, value in (("yes", -0.1), ("no", -3.0))]
    choice = {"message": {"content": text}, "logprobs": {"content": [{"top_logprobs": top}]}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice], "model": "m"}).encode() + b" " * padding
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Returns a request's head, once it has come in whole; nothing if the client is gone."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    length = next(
        (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")),
        0,
    )
    await reader.readexactly(length)
    return head


class Raw:
    """A server that is told what to do with each connection; `act` gets their number, from 1."""

    def __init__(self, act: Callable[[int, Streams], Awaitable[None]], tls: SSLContext | None = None) -> None:
        self._act, self._tls = act, tls
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._attend, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._act(self.connections, (reader, writer))
        finally:
            writer.transport.abort()


def config(server: Raw, **changes: Any) -> BackendConfig:
    values: dict[str, Any] = {"kind": "completions", "model": "m", "base_url": f"http://127.0.0.1:{server.port}/v1"}
    return BackendConfig(**values | {"timeout_s": 10.0, "api_key_env": "ONI_TEST_NO_KEY"} | changes)


def play(scene: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(20):
            await scene()

    asyncio.run(whole())


async def answer_all(number: int, streams: Streams) -> None:
    reader, writer = streams
    while await read_request(reader):
        writer.write(answer())
        await writer.drain()


def check(completion: Completion) -> None:
    assert completion.logprobs == {"yes": -0.1, "no": -3.0}


def test_a_connection_is_kept_and_another_opened_only_for_requests_at_once() -> None:
    async def scene() -> None:
        async with Raw(answer_all) as server, create_backend(config(server)) as backend:
            for _ in range(5):
                check(await backend.complete(REQUEST))
            assert server.connections == 1
            for completion in await asyncio.gather(*(backend.complete(REQUEST) for _ in range(3))):
                check(completion)
            assert 1 < server.connections <= 3

    play(scene)


@pytest.mark.parametrize("last_words", [b"", b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n"])
def test_an_idle_connection_that_the_server_closes_costs_no_request(last_words: bytes) -> None:
    closed = asyncio.Event()

    async def act(number: int, streams: Streams) -> None:
        reader, writer = streams
        await read_request(reader)
        writer.write(answer())
        if number == 1:
            await asyncio.sleep(0.02)
            writer.write(last_words)
            await writer.drain()
            writer.close()
            closed.set()
        else:
            await reader.read()

    async def scene() -> None:
        async with Raw(act) as server, create_backend(config(server)) as backend:
            check(await backend.complete(REQUEST))
            await closed.wait()
            await asyncio.sleep(0.05)
            check(await backend.complete(REQUEST))
            assert server.connections == 2

    play(scene)


@pytest.mark.parametrize("sent", [b"", answer()[:-10], b"SSH-2.0-OpenSSH_9\r\n\r\n", b"HTTP/1.1 200 OK\r\n"])
def test_a_connection_that_breaks_is_a_fault_of_the_server(sent: bytes) -> None:
    async def act(number: int, streams: Streams) -> None:
        reader, writer = streams
        await read_request(reader)
        writer.write(sent)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def scene() -> None:
        async with Raw(act) as server, create_backend(config(server)) as backend:
            for _ in range(2):
                with pytest.raises(BackendUnreachable, match="nothing answers at"):
                    await backend.complete(REQUEST)

    play(scene)


def test_a_reset_amid_the_answer_is_a_fault_of_the_server() -> None:
    async def act(number: int, streams: Streams) -> None:
        reader, writer = streams
        await reader.readexactly(10)  # the rest unread: closing resets
        writer.write(answer()[:40])
        await writer.drain()

    async def scene() -> None:
        async with Raw(act) as server, create_backend(config(server)) as backend:
            with pytest.raises(BackendUnreachable):
                await backend.complete(REQUEST)

    play(scene)


def test_a_long_answer_comes_whole_though_its_reader_pauses_the_server() -> None:
    async def act(number: int, streams: Streams) -> None:
        reader, writer = streams
        await read_request(reader)
        writer.write(answer(padding=4 * MOST_UNREAD_BYTES))
        await writer.drain()
        await reader.read()

    async def scene() -> None:
        async with Raw(act) as server, create_backend(config(server)) as backend:
            check(await backend.complete(REQUEST))
            stream = await Network().connect_tcp("127.0.0.1", server.port)
            await stream.write(b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n")
            size = len(await stream.read(1))
            await asyncio.sleep(0.1)
            waiting = len(stream._wire.unread)
            assert waiting <= 2 * MOST_UNREAD_BYTES, "no more is taken in than is read"
            while size < 4 * MOST_UNREAD_BYTES:
                size += len(await stream.read(65_536))
            await stream.aclose()
            assert await stream.read(1 << 30) is not None, "what had come in may still be read"

    play(scene)


def test_one_that_drips_is_given_up_and_its_connection_too() -> None:
    gone = asyncio.Event()

    async def act(number: int, streams: Streams) -> None:
        reader, writer = streams
        await read_request(reader)
        try:
            for byte in answer(padding=1000):
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.05)
        finally:
            gone.set()

    async def scene() -> None:
        async with Raw(act) as server, create_backend(config(server, timeout_s=0.3)) as backend:
            with pytest.raises(BackendOverloaded, match="did not answer within 0.3 s"):
                await backend.complete(REQUEST)
            await gone.wait()

    play(scene)


def test_the_promises_that_httpcore_relies_on() -> None:
    async def act(number: int, streams: Streams) -> None:
        await streams[0].read()

    async def scene() -> None:
        network = Network()
        async with Raw(act) as server:
            stream = await network.connect_tcp("127.0.0.1", server.port, timeout=5.0, local_address="127.0.0.1")
            assert stream.get_extra_info("is_readable") is False
            with pytest.raises(httpcore.ReadTimeout):
                await stream.read(10, timeout=0.01)
            await stream.aclose()
            assert stream.get_extra_info("is_readable") is True
            assert await stream.read(10) == b""
            port = server.port
        with pytest.raises(httpcore.ConnectError):
            await network.connect_tcp("127.0.0.1", port)

    play(scene)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key, and a certificate for llm.example and this machine that it signed itself."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificate")
    key, cert, both = folder / "key.pem", folder / "cert.pem", folder / "both.pem"
    names = "subjectAltName=DNS:llm.example,IP:127.0.0.1"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    where = ["-keyout", str(key), "-out", str(cert), "-subj", "/CN=llm.example", "-addext", names]
    subprocess.run(["openssl", "req", *kind, *where], check=True, capture_output=True)
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    return both


def tls_server(certificate: Path) -> SSLContext:
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_tls_is_spoken_and_the_certificate_is_checked(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with Raw(answer_all, tls_server(certificate)) as server:
            settings = config(server, base_url=f"https://127.0.0.1:{server.port}/v1")
            async with create_backend(settings) as backend:
                with pytest.raises(BackendUnreachable, match="certificate verify failed"):
                    await backend.complete(REQUEST)
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            async with create_backend(settings) as backend:
                for _ in range(3):
                    check(await backend.complete(REQUEST))
                assert server.connections == 1, "it is kept; that of the refused certificate never came about"

    play(scene)


def test_a_proxy_is_asked_for_plain_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes] = []

    async def act(number: int, streams: Streams) -> None:
        reader, writer = streams
        heads.append(await read_request(reader))
        writer.write(answer())
        await writer.drain()
        await reader.read()

    async def scene() -> None:
        async with Raw(act) as proxy:
            monkeypatch.setenv("http_proxy", f"http://user:pass@127.0.0.1:{proxy.port}")
            async with create_backend(config(proxy, base_url="http://llm.example:81/v1")) as backend:
                check(await backend.complete(REQUEST))

    play(scene)
    (head,) = heads
    assert head.startswith(b"POST http://llm.example:81/v1/chat/completions HTTP/1.1\r\n")
    assert b"Host: llm.example:81\r\n" in head
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNz\r\n" in head


def test_a_proxy_tunnels_what_is_encrypted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes] = []

    async def scene() -> None:
        async with Raw(answer_all, tls_server(certificate)) as server:

            async def tunnel(number: int, streams: Streams) -> None:
                reader, writer = streams
                heads.append(await read_request(reader))
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server.port)
                await asyncio.gather(pipe(reader, inner_writer), pipe(inner_reader, writer))

            async with Raw(tunnel) as proxy:
                monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
                monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
                async with create_backend(config(proxy, base_url="https://llm.example/v1")) as backend:
                    check(await backend.complete(REQUEST))
                    check(await backend.complete(REQUEST))

    play(scene)
    assert [head.split(b"\r\n")[0] for head in heads] == [b"CONNECT llm.example:443 HTTP/1.1"]


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()


def test_a_proxy_that_refuses_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(number: int, streams: Streams) -> None:
        reader, writer = streams
        await read_request(reader)
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    async def scene() -> None:
        async with Raw(act) as proxy:
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
            async with create_backend(config(proxy, base_url="https://llm.example/v1")) as backend:
                with pytest.raises(BackendError, match="407"):
                    await backend.complete(REQUEST)

    play(scene)


def test_nothing_is_asked_outside_of_its_context() -> None:
    async def scene() -> None:
        async with Raw(answer_all) as server:
            backend = completions.create(config(server))
            with pytest.raises(RuntimeError, match="outside"):
                await backend.complete(REQUEST)
            async with backend:
                check(await backend.complete(REQUEST))
            with pytest.raises(RuntimeError, match="outside"):
                await backend.complete(REQUEST)

    play(scene)
