"""The one place through which the service touches its store: a thread of its own, writes in batches."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from llm_annotator.errors import StoreError
from llm_annotator.store.records import AnnotationRecord, ComparisonRecord
from llm_annotator.store.writer import Store

_log = logging.getLogger(__name__)

RETRY_S = 5.0
"""Pause before a write that failed (full disk, locked file) is tried again."""

Record = AnnotationRecord | ComparisonRecord

Result = TypeVar("Result")


class Recorder:
    """Runs store calls in one thread, and gathers the outcomes that arrive during a write into the next one.

    on_commit: called on the event loop after labels were written.
    """

    def __init__(self, store: Store, *, on_commit: Callable[[], None]) -> None:
        self._store = store
        self._on_commit = on_commit
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="annotation-store")
        self._waiting: list[tuple[Record, asyncio.Future[None]]] = []
        self._kick = asyncio.Event()
        self._stopping = False
        self.problem = ""
        """Why nothing can be stored at the moment, in words; empty if all is well."""

    async def call(self, function: Callable[[Store], Result]) -> Result:
        """Returns what `function` makes of the store, run in the store's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, self._store)

    async def add(self, record: Record) -> None:
        """Keeps one outcome; returns once it is committed. While the store cannot be written, it waits."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((record, done))
        self._kick.set()
        await done

    async def run(self) -> None:
        """Writes until `stop`, then once more what is left."""
        while self._waiting or not self._stopping:
            if not self._waiting:
                self._kick.clear()
                await self._kick.wait()
                continue
            try:
                await self._write(self._waiting.copy())
                self.problem = ""
            except StoreError as error:
                if not self.problem:
                    _log.error("%s", error)
                self.problem = f"Labels cannot be stored, so none are asked for: {error}."
                if self._stopping:
                    _log.error("the last %d answers are lost: they could not be stored", len(self._waiting))
                    return
                await self._pause()

    def stop(self) -> None:
        """Lets `run` end. It must not be cancelled: a batch whose commit is under way would be written twice."""
        self._stopping = True
        self._kick.set()

    async def close(self) -> None:
        """Closes the store, after `run` has ended."""
        await self.call(Store.close)
        self._thread.shutdown()

    async def _pause(self) -> None:
        pause = asyncio.get_running_loop().time() + RETRY_S
        while not self._stopping and asyncio.get_running_loop().time() < pause:
            self._kick.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._kick.wait(), timeout=pause - asyncio.get_running_loop().time())

    async def _write(self, batch: list[tuple[Record, asyncio.Future[None]]]) -> None:
        records = [record for record, _ in batch]
        try:
            await self.call(lambda store: store.add_annotations(records))
            error = None
        except StoreError:
            raise
        except Exception as fault:  # noqa: BLE001 - handed on: one of the records cannot be stored at all: its asker shall hear of it
            error = fault
        if error is not None and len(batch) > 1:
            for item in batch:
                await self._write([item])
            return
        # Ours are the first ones: new ones are appended, and nobody else takes any away.
        del self._waiting[: len(batch)]
        for _, done in batch:
            _resolve(done, error)
        self._on_commit()


def _resolve(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():  # its asker was cancelled meanwhile
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
