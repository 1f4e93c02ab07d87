"""The annotator without its network: runs and captions (or pairs of them) in, labels (or comparisons) out.

It joins the store, the engine and a backend that may come up late, and knows the labelers of all runs.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from llm_annotator.backends.base import Backend
from llm_annotator.config import AnnotatorConfig, BackendConfig, EngineConfig
from llm_annotator.engine import Engine
from llm_annotator.errors import ServiceError, StoreError
from llm_annotator.jobs import Offer
from llm_annotator.keeper import Keeper
from llm_annotator.labeler import Labeler, LabelerSpec
from llm_annotator.lookup import Stored, look_up
from llm_annotator.presence import Presence
from llm_annotator.question import Question
from llm_annotator.recorder import Recorder
from llm_annotator.report import labeler_status, status_line
from llm_annotator.store.writer import RECOMBINING_PAUSE_S, Store
from llm_annotator.types import CaptionScore, LabelStatus, News, Occurrence, SampledTransition, Subject
from llm_annotator.wire import MAX_UPDATES, LabelerStatus

_log = logging.getLogger(__name__)

RECHECK_S = 2.0
"""How often a waiting poll looks into the store unasked, for what another process changed there."""


UPKEEP_S = 1.0
"""How often what was spent is stored, and runs that are gone are forgotten. A service that is killed loses the account
of what it spent since, never a label."""

LAST_COMBINED_S = 3.0
"""How long the end waits for labels of captions to follow those of their parts. The next annotator goes on."""

LAST_ANSWERS_S = 2.0
"""How long the end waits for answers that are under way: they are paid for."""


class NotReady(ServiceError):
    """The backend is not open yet; the message says why."""


class Unregistered(ServiceError):
    """The run or its labeler is not known to this service: it must be registered (again)."""


@dataclass(frozen=True, kw_only=True)
class OfferReply:
    """`known`: answers that were there already. The rest is `Offer`."""

    known: list[News]
    offer: Offer


class Annotator:
    """Labels captions for any number of runs, with one model.

    open_backend: makes the backend of one server, not yet opened; called again if opening it failed.

    Raises:
        ConfigError: addresses of servers that contradict each other.
    """

    def __init__(
        self,
        store: Store,
        config: AnnotatorConfig,
        open_backend: Callable[[BackendConfig], Backend],
        *,
        redact: Callable[[str], str] = str,
    ) -> None:
        self._config = config
        self._recorder = Recorder(store, on_commit=self._announce)
        self._labelers: dict[str, Labeler] = {}
        self._keeper = Keeper(config, self._recorder, open_backend, on_restart=self._labelers.clear, redact=redact)
        self._runs = Presence(time.monotonic)
        self._news = asyncio.Event()
        self._stopping = False

    @property
    def instance(self) -> str:
        """Another one each time an annotator is made, or has to begin anew."""
        return self._keeper.instance

    @property
    def engine(self) -> Engine | None:
        """What asks, None while no server is open."""
        return self._keeper.engine

    @property
    def model(self) -> str:
        """Name of the model, empty until a server is open."""
        return self._keeper.model

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Works while the context is open. At its end the asking stops and all answers are committed."""
        recording = asyncio.create_task(self._recorder.run())
        asking = asyncio.create_task(self._keeper.run())
        upkeep = asyncio.create_task(self._keep_up())
        combining = asyncio.create_task(self._combine())
        try:
            yield
        finally:
            self.stop_waiting()
            if self.engine is not None:
                await asyncio.wait([asking], timeout=LAST_ANSWERS_S)
            await _end(asking)
            await _end(upkeep)
            await _end(combining)
            await self._keeper.save_spent()
            self._recorder.stop()
            await recording
            await self._finish_combining()
            await self._recorder.close()

    def stop_waiting(self) -> None:
        """Lets waiting polls answer at once, and asks nothing more, for the service is about to end."""
        self._stopping = True
        self._keeper.stop()
        self._announce()

    async def register(
        self, run_id: str, name: str, config: Mapping[str, Any], spec: LabelerSpec
    ) -> tuple[str, int, list[News]]:
        """Makes a run known; returns its labeler's id, the cursor from which its labels count, and what stands already.

        Raises:
            NotReady, StoreError
        """
        if self.engine is None:
            raise NotReady(self.problem)
        labeler = Labeler(spec, self.model)
        # A known one is kept: it has been calibrated.
        labeler = self._labelers.setdefault(labeler.id, labeler)

        def write(store: Store) -> tuple[int, list[News]]:
            store.add_labeler(labeler.id, spec.to_wire(), labeler.model)
            store.add_run(run_id, name, config, labeler_id=labeler.id, goal=spec.goal)
            question = labeler.question
            return store.last_change(), [question.news(stored) for stored in question.standing(store, labeler.id)]

        cursor, standing = await self._recorder.call(write)
        self._runs.add(run_id, labeler.id)
        return labeler.id, cursor, standing

    def question(self, labeler_id: str) -> Question:
        """Returns what a labeler is asked.

        Raises:
            Unregistered
        """
        return self._registered(labeler_id)[1].question

    async def offer(
        self, run_id: str, labeler_id: str, subjects: Sequence[Subject], *, older: bool = False
    ) -> OfferReply:
        """Queues subjects without an answer, the last one to be asked first; returns the answers about the others.

        older: as in `Engine.offer`.

        Raises:
            Unregistered, StoreError
        """
        engine, labeler = self._registered(labeler_id, run_id)
        now, config = time.time(), self._config.engine

        def may_ask_again(answer: Stored) -> bool:
            return _may_ask_again(answer, now, config)

        found = await self._recorder.call(lambda store: look_up(store, labeler, subjects, may_ask_again))
        counts = engine.tally.counts(labeler_id)
        counts.saved_by_parts += found.saved
        counts.saved_by_cache += found.cached
        known = [labeler.question.news(answer) for answer in found.known]
        return OfferReply(known=known, offer=engine.offer(labeler, found.to_ask, run_id=run_id, older=older))

    async def labels(
        self, labeler_id: str, after: int, wait_s: float, *, run_id: str | None = None
    ) -> tuple[list[News], int]:
        """Returns what changed after the cursor and the new cursor; waits up to `wait_s` for a first change.

        run_id: the run that asks, None if it does not say.

        Raises:
            Unregistered, StoreError
        """
        question = self._registered(labeler_id, run_id)[1].question
        deadline = time.monotonic() + wait_s
        while True:
            news = self._news
            rows = await self._recorder.call(
                lambda store: question.stored_since(store, labeler_id, after, limit=MAX_UPDATES)
            )
            left_s = deadline - time.monotonic()
            if rows or left_s <= 0 or self._stopping:
                return [question.news(row) for row in rows], (rows[-1].change if rows else after)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), timeout=min(left_s, RECHECK_S))

    async def record(self, run_id: str, occurrences: Sequence[Occurrence]) -> None:
        """Keeps occurrences; returns once they are committed.

        Raises:
            Unregistered, StoreError
        """
        self._check_run(run_id)
        ids = await self._recorder.call(lambda store: store.add_occurrences(run_id, occurrences))
        labeler_id = self._runs.labeler(run_id)
        if self.engine is not None and labeler_id is not None:
            parts = await self._recorder.call(lambda store: store.unanswered_parts(labeler_id, run_id, ids))
            episodes = [item.episode_count or item.count for item in occurrences]
            self.engine.came_up(labeler_id, [*zip(ids, episodes, strict=True), *parts])

    def leave(self, run_id: str) -> None:
        """Forgets a run that has ended: what only it waits for is not asked."""
        self._runs.remove(run_id)
        if self.engine is not None:
            self.engine.leave(run_id)

    async def record_transitions(self, run_id: str, moments: Sequence[SampledTransition]) -> None:
        """Keeps moments of a run; returns once they are committed.

        Raises:
            Unregistered, StoreError
        """
        self._check_run(run_id)
        await self._recorder.call(lambda store: store.add_transitions(run_id, moments))

    async def record_scores(self, run_id: str, scores: Sequence[CaptionScore]) -> None:
        """Keeps what the reward model of a run made of captions; returns once they are committed.

        Raises:
            Unregistered, StoreError
        """
        self._check_run(run_id)
        await self._recorder.call(lambda store: store.add_scores(run_id, scores))

    def status(self, labeler_id: str, run_id: str = "") -> LabelerStatus:
        """Returns how things stand with one labeler, and with one run where that matters."""
        if self.engine is None:
            return LabelerStatus(problem=self.problem)
        return labeler_status(self.engine, labeler_id, run_id, self.problem)

    def overview(self) -> dict[str, Any]:
        """Returns how things stand altogether, as JSON types."""
        labelers = {
            labeler_id: self.status(labeler_id).to_wire()
            | {"goal": labeler.spec.goal, "failures": dict(self.engine.tally.counts(labeler_id).failures)}
            for labeler_id, labeler in self._labelers.items()
            if self.engine is not None
        }
        endpoints = self._keeper.endpoints()
        return {
            "instance": self.instance,
            "pid": os.getpid(),
            "backend": self._config.backend.kind,
            "model": self.model,
            "capabilities": endpoints[0]["capabilities"],
            "problem": self.problem,
            "runs": self._runs.names(),
            "endpoints": endpoints,
            "spent": None if self.engine is None else self.engine.budget.spent._asdict(),
            "budget_left": None if self.engine is None else self.engine.budget.left,
            "labelers": labelers,
        }

    @property
    def line(self) -> str:
        """How things stand altogether, as one line for a log; empty while nothing was ever asked."""
        if self.engine is None or not self.engine.tally.by_labeler():
            return ""
        return status_line(self.engine) + (f". {self.problem}" if self.problem else "")

    @property
    def problem(self) -> str:
        """What is wrong and what to do, in words; empty if all is well."""
        return self._recorder.problem or self._keeper.problem

    async def _keep_up(self) -> None:
        """Does what is due now and then."""
        while True:
            await asyncio.sleep(UPKEEP_S)
            await self._keeper.save_spent()
            for run_id in self._runs.absent():
                _log.info("nothing was heard of run %s for long: its captions are no longer asked about", run_id)
                self.leave(run_id)

    async def _combine(self) -> None:
        """Lets labels of captions follow those of parts that very many captions hold, whoever changed them."""
        while True:
            news = self._news
            if await self._recombine():
                self._announce()
                await asyncio.sleep(RECOMBINING_PAUSE_S)
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), UPKEEP_S)

    async def _finish_combining(self) -> None:
        deadline = time.monotonic() + LAST_COMBINED_S
        while time.monotonic() < deadline and await self._recombine():
            pass

    async def _recombine(self) -> int:
        try:
            return await self._recorder.call(lambda store: store.recombine())
        except StoreError:  # what is wrong with it the recorder says; it is tried again
            return 0

    def _check_run(self, run_id: str) -> None:
        if run_id not in self._runs:
            raise Unregistered(f"run {run_id!r} is not registered with this service")
        self._runs.heard(run_id)

    def _registered(self, labeler_id: str, run_id: str | None = None) -> tuple[Engine, Labeler]:
        labeler = self._labelers.get(labeler_id)
        if self.engine is None or labeler is None or (run_id is not None and run_id not in self._runs):
            raise Unregistered(f"run {run_id!r} or labeler {labeler_id!r} is not registered with this service")
        if run_id is not None:
            self._runs.heard(run_id)
        return self.engine, labeler

    def _announce(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _may_ask_again(answer: Stored, now: float, config: EngineConfig) -> bool:
    if answer.status is LabelStatus.LABELLED:
        return False
    return not answer.asked or now - answer.updated_at >= config.retry_failed_s
