"""Keeps an engine at work: opens the servers of the LLM, asks, starts anew if that fails, and keeps account of it."""

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from llm_annotator.addresses import endpoint_configs
from llm_annotator.backends.base import Backend
from llm_annotator.budget import Budget
from llm_annotator.config import AnnotatorConfig, BackendConfig
from llm_annotator.endpoints import Endpoint
from llm_annotator.engine import Engine
from llm_annotator.errors import StoreError
from llm_annotator.gate import backoff_s
from llm_annotator.pool import OPENING, Pool
from llm_annotator.recorder import Recorder
from llm_annotator.report import endpoint_report
from llm_annotator.store.spending import Spent
from llm_annotator.store.writer import Store

_log = logging.getLogger(__name__)


class Keeper:
    """The engine of an annotator, whatever becomes of its servers.

    open_backend: makes the backend of one server, not yet opened; called again if opening it failed.
    on_restart: called when an engine is gone, and its queue with it.

    Raises:
        ConfigError: addresses of servers that contradict each other.
    """

    def __init__(
        self,
        config: AnnotatorConfig,
        recorder: Recorder,
        open_backend: Callable[[BackendConfig], Backend],
        *,
        on_restart: Callable[[], None],
        redact: Callable[[str], str],
    ) -> None:
        self.engine: Engine | None = None
        """What asks, None before the first server is open."""
        self.instance = uuid.uuid4().hex
        """Another one for each engine: a client that sees another one offers its captions again."""
        self.model = ""
        """Name of the model, empty until a server is open."""
        self._config = config
        self._recorder = recorder
        self._open_backend = open_backend
        self._on_restart = on_restart
        self._redact = redact
        self._configs = endpoint_configs(config.backend)
        self._pool = self._make_pool()
        self._stopping = False
        self._fault = ""
        self._account_fails = False

    @property
    def problem(self) -> str:
        """What is wrong and what to do, in words; empty if all is well."""
        if self.engine is not None:
            return self.engine.problem
        return self._redact(self._fault or self._pool.problem) or OPENING  # a server is open before the asking begins

    def endpoints(self) -> list[dict[str, Any]]:
        """Returns how each server fares, as JSON types."""
        return [endpoint_report(each, self._redact(each.problem)) for each in self._pool.endpoints]

    def stop(self) -> None:
        """Lets `run` end once what is in flight has ended."""
        self._stopping = True
        if self.engine is not None:
            self.engine.stop()

    async def run(self) -> None:
        """Opens the servers, again and again if need be, and asks until stopped."""
        failures = 0
        while not self._stopping:
            try:
                await self._ask()
            except Exception as error:  # noqa: BLE001 - outermost frame of the asking: the service must live on to say so
                _log.exception("the asking failed")
                self._fault = f"The annotator itself failed ({type(error).__name__}: {error}): see its log."
            else:
                return
            await self.save_spent()
            self.engine = None
            self.instance = uuid.uuid4().hex
            self._on_restart()
            failures += 1
            await asyncio.sleep(backoff_s(failures, self._config.engine))

    async def _ask(self) -> None:
        self._pool = self._make_pool()
        makers = {name: partial(self._open_backend, config) for name, config in self._configs.items()}
        async with self._pool.opened(makers, self._opened):
            await self._pool.first()
            spent = await self._recorder.call(lambda store: store.spent())
            self.model = self._pool.model
            self.engine = Engine(
                self._pool,
                self._config.engine,
                self._recorder.add,
                budget=Budget(self._config.engine, self._config.backend, spent),
                redact=self._redact,
            )
            self._fault = ""
            await self.engine.run()

    async def save_spent(self) -> None:
        """Adds to the account of the store what was spent since the last time.

        It is done even if this is cancelled. What cannot be stored is tried again the next time, and the log says so.
        """
        if self.engine is None:
            return
        budget = self.engine.budget
        unsaved = budget.take_unsaved()
        if any(unsaved):
            await asyncio.shield(self._save(budget, unsaved))

    async def _save(self, budget: Budget, unsaved: Spent) -> None:
        model = self.model

        def save(store: Store) -> Spent:
            store.add_spent(model, unsaved)
            return store.spent()

        try:
            budget.saved(await self._recorder.call(save))
        except Exception as error:  # noqa: BLE001 - the account must stop neither the asking nor an end in order
            budget.give_back(unsaved)
            # What is wrong with a store the recorder says.
            if not (isinstance(error, StoreError) or self._account_fails):
                _log.exception("what was spent cannot be added to the account of the store; it is tried again")
            self._account_fails = True
        else:
            self._account_fails = False

    def _opened(self) -> None:
        """Takes note that a server was opened, or could not be."""
        if self.problem:
            _log.warning("%s", self.problem)
        if self.engine is not None:
            self.engine.wake()

    def _make_pool(self) -> Pool:
        config = self._config.engine
        return Pool([Endpoint(name, config, clock=time.monotonic, draw=random.random) for name in self._configs])
