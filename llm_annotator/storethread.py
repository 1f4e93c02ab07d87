"""A store for programs with an event loop, which must not wait for a disk or for another process's lock."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from llm_annotator.store.writer import Store

Result = TypeVar("Result")


class StoreThread:
    """A store, opened, used and closed in a thread of its own; to be used as an asynchronous context manager.

    Raises:
        StoreError: on entering, the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="annotation-store")

    async def __aenter__(self) -> Self:
        try:
            self._store = await self._run(lambda: Store(self._path))
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._run(self._store.close)  # after all calls, those nobody waits for any more included
        finally:
            self._thread.shutdown(wait=False)

    async def call(self, function: Callable[[Store], Result]) -> Result:
        """Returns what `function` makes of the store."""
        return await self._run(lambda: function(self._store))

    async def _run(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)
