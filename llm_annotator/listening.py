"""The address of a service: a socket that listens, how it is written, and what answers there."""

import asyncio
import errno
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager

from starlette.types import ASGIApp

from llm_annotator.errors import PortInUse, ServiceError

GRACE_S = 3
"""Time that open requests have once the service is to end."""


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens; port 0 takes a free one.

    Raises:
        PortInUse, ServiceError: no such address, or it cannot be had.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, proto)
    except OSError as error:
        raise ServiceError(f"{host} is no address of this machine: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"another process listens on {host}:{port}: end it, or choose another port (0 takes a free one)"
            ) from error
        raise ServiceError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Returns the address at which a socket listens, without a path."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def serve_app(
    app: ASGIApp, listener: socket.socket, *, on_ready: Callable[[str], None] | None, on_stop: Callable[[], None]
) -> None:
    """Answers requests until SIGTERM or SIGINT.

    on_ready: called with the address once requests are taken. on_stop: called when a signal has come, before the open
    requests end.
    """
    import uvicorn

    settings = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACE_S,
        server_header=False,
    )

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Generator[None]:
            yield  # uvicorn would end this process by the signal itself; ours ends in order, below

    server = Server(settings)

    def stop() -> None:
        on_stop()
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    if on_ready is not None:
        on_ready(url_of(listener))
    await server.serve(sockets=[listener])
