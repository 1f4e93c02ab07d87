"""Several servers of one model as one backend, for the foreground: the command line asks without an engine."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from llm_annotator.backends.base import Backend
from llm_annotator.errors import BackendAnswerInvalid, BackendError, ConfigError
from llm_annotator.types import Completion, Request

_log = logging.getLogger(__name__)

SHUNNED_S = 10.0
"""How long a server that failed is asked only if all others fail too."""


class _Server:
    def __init__(self, name: str, backend: Backend) -> None:
        self.name = name
        self.backend = backend
        self.in_flight = 0
        self.shunned_until = 0.0


class SeveralServers:
    """A question goes to the server with the smallest share of its places taken, and on to the next if that one fails.

    backends: not yet opened, by the name of their server. One that cannot be opened is named in the log and left out.
    """

    def __init__(self, backends: Mapping[str, Backend], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._servers = [_Server(name, backend) for name, backend in backends.items()]
        self._clock = clock
        self._stack = AsyncExitStack()
        self._take_over()

    async def complete(self, request: Request) -> Completion:
        """Asks once, each server at most.

        Raises:
            BackendError: the last server's, if all failed; at once if one answered what is no answer.
        """
        untried = list(self._servers)
        while True:
            server = min(untried, key=self._burden)
            untried.remove(server)
            server.in_flight += 1
            try:
                return await server.backend.complete(request)
            except BackendAnswerInvalid:
                raise  # it is up, and the question may be to blame
            except BackendError as error:
                if server.shunned_until <= self._clock():
                    _log.warning("%s: %s", server.name, error)
                server.shunned_until = self._clock() + SHUNNED_S
                if not untried:
                    raise
            finally:
                server.in_flight -= 1

    def _burden(self, server: _Server) -> tuple[bool, float]:
        return server.shunned_until > self._clock(), server.in_flight / server.backend.max_concurrent

    async def __aenter__(self) -> Self:
        outcomes = await asyncio.gather(*map(self._open, self._servers), return_exceptions=True)
        errors = {server.name: error for server, error in zip(self._servers, outcomes, strict=True) if error}
        others = [error for error in errors.values() if not isinstance(error, BackendError)]
        try:
            if others or len(errors) == len(self._servers):
                raise [*others, *errors.values()][0]
            for name, error in errors.items():
                _log.warning("%s is left out: %s", name, error)
            self._servers = [server for server in self._servers if server.name not in errors]
            self._take_over()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _open(self, server: _Server) -> None:
        server.backend = await self._stack.enter_async_context(server.backend)

    def _take_over(self) -> None:
        backends = [server.backend for server in self._servers]
        if len(models := {backend.model for backend in backends}) > 1:
            raise ConfigError(
                f"the servers of backend.endpoints have different models ({', '.join(sorted(models))}): "
                "they must be servers of the same one"
            )
        self.name, self.model = backends[0].name, backends[0].model
        self.max_concurrent = sum(backend.max_concurrent for backend in backends)
