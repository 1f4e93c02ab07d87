"""The annotator without its network: runs and captions (or pairs of them) in, labels (or comparisons) out.

It joins the store, the engine and a backend that may come up late, and knows the labelers of all runs.
"""

import asyncio
import contextlib
import logging
import os
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from llm_annotator.backends.base import Backend
from llm_annotator.config import AnnotatorConfig, EngineConfig
from llm_annotator.engine import Engine, Offer
from llm_annotator.errors import BackendError, ConfigError, ServiceError
from llm_annotator.gate import backoff_s, explain
from llm_annotator.labeler import Labeler, LabelerSpec
from llm_annotator.questions import Question, SubjectId
from llm_annotator.recorder import Recorder
from llm_annotator.store.records import StoredComparison, StoredLabel
from llm_annotator.store.writer import Store
from llm_annotator.types import LabelStatus, News, Occurrence, Subject
from llm_annotator.wire import MAX_UPDATES, LabelerStatus

_log = logging.getLogger(__name__)

RECHECK_S = 2.0
"""How often a waiting poll looks into the store unasked, for what another process changed there."""

_Stored = StoredLabel | StoredComparison


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
    """Labels captions for any number of runs, with one backend.

    open_backend: makes the backend, not yet opened; called again if opening it failed.
    """

    def __init__(
        self,
        store: Store,
        config: AnnotatorConfig,
        open_backend: Callable[[], Backend],
        *,
        redact: Callable[[str], str] = str,
    ) -> None:
        self.instance = uuid.uuid4().hex
        """Another one each time an annotator is made."""
        self._config = config
        self._open_backend = open_backend
        self._redact = redact
        self._recorder = Recorder(store, on_commit=self._announce)
        self._engine: Engine | None = None
        self._opening = "The annotator is opening its LLM."
        self._labelers: dict[str, Labeler] = {}
        self._runs: set[str] = set()
        self._news = asyncio.Event()
        self._stopping = False
        self.model = ""
        """Name of the model, empty until the backend is open."""

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Works while the context is open. At its end the asking stops and all answers are committed."""
        recording = asyncio.create_task(self._recorder.run())
        asking = asyncio.create_task(self._ask())
        try:
            yield
        finally:
            self.stop_waiting()
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking
            self._recorder.stop()
            await recording
            await self._recorder.close()

    def stop_waiting(self) -> None:
        """Lets waiting polls answer at once, for the service is about to end."""
        self._stopping = True
        self._announce()

    async def register(self, run_id: str, name: str, config: Mapping[str, Any], spec: LabelerSpec) -> tuple[str, int]:
        """Makes a run known; returns its labeler's id and the cursor from which its labels count.

        Raises:
            NotReady, StoreError
        """
        if self._engine is None:
            raise NotReady(self._opening)
        labeler = Labeler(spec, self.model)
        # A known one is kept: it has been calibrated.
        labeler = self._labelers.setdefault(labeler.id, labeler)

        def write(store: Store) -> int:
            store.add_labeler(labeler.id, spec.to_wire(), labeler.model)
            store.add_run(run_id, name, config, labeler_id=labeler.id, goal=spec.goal)
            return store.last_change()

        cursor = await self._recorder.call(write)
        self._runs.add(run_id)
        return labeler.id, cursor

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
        question = labeler.question

        def look_up(store: Store) -> tuple[Sequence[SubjectId], Sequence[_Stored | None]]:
            ids = question.intern(store, subjects)
            return ids, question.stored(store, labeler_id, ids)

        ids, answers = await self._recorder.call(look_up)
        now = time.time()
        config = self._config.engine
        known = [question.news(answer) for answer in answers if answer and not _may_ask_again(answer, now, config)]
        to_ask = [
            (subject_id, subject)
            for subject_id, subject, answer in zip(ids, subjects, answers, strict=True)
            if answer is None or _may_ask_again(answer, now, config)
        ]
        return OfferReply(known=known, offer=engine.offer(labeler, to_ask, older=older))

    async def labels(self, labeler_id: str, after: int, wait_s: float) -> tuple[list[News], int]:
        """Returns what changed after the cursor and the new cursor; waits up to `wait_s` for a first change.

        Raises:
            Unregistered, StoreError
        """
        question = self.question(labeler_id)
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
        if run_id not in self._runs:
            raise Unregistered(f"run {run_id!r} is not registered with this service")
        await self._recorder.call(lambda store: store.add_occurrences(run_id, occurrences))

    def status(self, labeler_id: str) -> LabelerStatus:
        """Returns how things stand with one labeler."""
        if self._engine is None:
            return LabelerStatus(problem=self.problem)
        counts = self._engine.counts(labeler_id)
        return LabelerStatus(
            queued=counts.queued,
            in_flight=counts.in_flight,
            labelled=counts.labelled,
            failed=counts.failed,
            unparsed=counts.unparsed,
            dropped=counts.dropped,
            requests=counts.requests,
            labels_per_s=self._engine.labels_per_s(labeler_id),
            room=self._engine.room,
            problem=self.problem,
        )

    def overview(self) -> dict[str, Any]:
        """Returns how things stand altogether, as JSON types."""
        labelers = {
            labeler_id: self.status(labeler_id).to_wire()
            | {"goal": labeler.spec.goal, "failures": dict(self._engine.counts(labeler_id).failures)}
            for labeler_id, labeler in self._labelers.items()
            if self._engine is not None
        }
        return {
            "instance": self.instance,
            "pid": os.getpid(),
            "backend": self._config.backend.kind,
            "model": self.model,
            "problem": self.problem,
            "runs": sorted(self._runs),
            "labelers": labelers,
        }

    @property
    def problem(self) -> str:
        """What is wrong and what to do, in words; empty if all is well."""
        return self._recorder.problem or (self._opening if self._engine is None else self._engine.problem)

    async def _ask(self) -> None:
        """Opens the backend, again and again if need be, and asks until cancelled."""
        failures = 0
        while True:
            try:
                async with self._open_backend() as backend:
                    failures = 0
                    self.model = backend.model
                    self._engine = Engine(backend, self._config.engine, self._recorder.add, redact=self._redact)
                    await self._engine.run()
            except BackendError as error:
                self._opening = self._redact(explain(error))
            except ConfigError as error:
                self._opening = self._redact(f"The LLM cannot be opened: {error}.")
            except Exception as error:  # noqa: BLE001 - outermost frame of the asking: the service must live on to say so
                _log.exception("opening the backend failed")
                self._opening = self._redact(f"The LLM cannot be opened: {type(error).__name__}: {error}. See the log.")
            if self._engine is not None:
                # The queue is gone with the engine. Another instance makes the clients offer their captions again.
                self._engine = None
                self._labelers.clear()
                self.instance = uuid.uuid4().hex
            failures += 1
            _log.warning("%s", self._opening)
            await asyncio.sleep(backoff_s(failures, self._config.engine))

    def _registered(self, labeler_id: str, run_id: str | None = None) -> tuple[Engine, Labeler]:
        labeler = self._labelers.get(labeler_id)
        if self._engine is None or labeler is None or (run_id is not None and run_id not in self._runs):
            raise Unregistered(f"run {run_id!r} or labeler {labeler_id!r} is not registered with this service")
        return self._engine, labeler

    def _announce(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _may_ask_again(answer: _Stored, now: float, config: EngineConfig) -> bool:
    if answer.status is LabelStatus.LABELLED:
        return False
    return not answer.asked or now - answer.updated_at >= config.retry_failed_s
