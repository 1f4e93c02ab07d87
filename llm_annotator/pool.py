"""The servers of the LLM together: requests go to those that answer."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from llm_annotator.backends.base import Backend
from llm_annotator.endpoints import Endpoint
from llm_annotator.errors import ConfigError

OPENING = "The annotator is opening its LLM."


class Pool:
    """Servers of one model. The next request goes to the one with most of its places free."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.endpoints = tuple(endpoints)
        self._changed = asyncio.Event()

    @property
    def model(self) -> str:
        """Name of the model, empty until a server is open."""
        return next((endpoint.backend.model for endpoint in self.endpoints if endpoint.backend), "")

    @property
    def name(self) -> str:
        """Registry name of the backend, empty until a server is open."""
        return next((endpoint.backend.name for endpoint in self.endpoints if endpoint.backend), "")

    @property
    def limit(self) -> int:
        """Requests that may be in flight at once."""
        return sum(endpoint.limit.limit for endpoint in self.endpoints if endpoint.backend)

    @property
    def problem(self) -> str:
        """What is wrong and what to do, in words; empty if all is well. It names the servers that do not answer."""
        troubled = [endpoint for endpoint in self.endpoints if endpoint.problem]
        if not troubled:
            return "" if self.model else OPENING
        first = troubled[0].problem
        if len(self.endpoints) == 1:
            return first
        names = ", ".join(endpoint.name for endpoint in troubled)
        if len(troubled) == len(self.endpoints):
            return f"None of the {len(troubled)} servers of the LLM answers ({names}). {first}"
        return f"Labels come from the other servers of the LLM, but not from {names}. {first}"

    def free(self) -> Endpoint | None:
        """Returns the server that the next request goes to, None if none may be asked now."""
        ready = [endpoint for endpoint in self.endpoints if endpoint.delay_s() == 0]
        return min(ready, key=lambda endpoint: endpoint.in_flight / endpoint.limit.limit, default=None)

    def delay_s(self) -> float | None:
        """Returns the seconds until a server may be asked; None if that takes the end of a request."""
        delays = [delay for endpoint in self.endpoints if (delay := endpoint.delay_s()) is not None]
        return min(delays, default=None)

    @asynccontextmanager
    async def opened(
        self, makers: Mapping[str, Callable[[], Backend]], changed: Callable[[], None]
    ) -> AsyncGenerator[None]:
        """Opens the servers and keeps them open while the context is.

        makers: what makes the backend of each server, by its name.
        changed: called when one has opened, or failed to.
        """

        def announce() -> None:
            self._changed.set()
            changed()

        tasks = [
            asyncio.create_task(endpoint.keep_open(makers[endpoint.name], self._check, announce))
            for endpoint in self.endpoints
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def first(self) -> None:
        """Returns once a server is open."""
        while not self.model:
            self._changed.clear()
            await self._changed.wait()

    def _check(self, backend: Backend) -> None:
        if self.model not in ("", backend.model):
            raise ConfigError(
                f"this server's model is {backend.model!r}, that of the others {self.model!r}: "
                "backend.endpoints are servers of the same model"
            )
