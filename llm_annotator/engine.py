"""The engine: asks a backend about captions or pairs of them, newest first, and hands every outcome on to be kept.

Three rules decide what a failure means:
- A fault of the backend (unreachable, overloaded, refused) is not the caption's fault. The caption goes back into the
  queue, the `BackendGate` slows down, and labels resume when the backend does.
- Unless the backend answered other captions meanwhile: then a refusal or a broken connection counts against the
  caption, so that one caption that a server chokes on cannot be asked for ever. Overload never counts.
- An answer that is no answer (garbled, truncated) counts against the caption. After `max_attempts` it is FAILED; at
  once if the backend says that asking again is of no use (`retryable`).
Neither FAILED nor UNPARSED is ever a label.
"""

import asyncio
import heapq
import itertools
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

from llm_annotator.backends.base import Backend
from llm_annotator.config import EngineConfig
from llm_annotator.errors import (
    BackendAnswerInvalid,
    BackendError,
    BackendOverloaded,
    BackendRejected,
    ConfigError,
)
from llm_annotator.gate import BackendGate, asked_pause_s, backoff_s
from llm_annotator.jobs import Job, JobKey, LabelerCounts, Offer
from llm_annotator.labeler import Labeler
from llm_annotator.questions import SubjectId
from llm_annotator.rates import RateMeter
from llm_annotator.store.records import AnnotationRecord, ComparisonRecord
from llm_annotator.types import Completion, Judgement, LabelStatus, Subject

_log = logging.getLogger(__name__)

UNPARSED_ALARM = 20
"""Answers in a row without a label after which the health sentence speaks of it."""

Sink = Callable[[AnnotationRecord | ComparisonRecord], Awaitable[None]]
"""Keeps one outcome; returns when it is kept for good."""


class Engine:
    """Asks about subjects (captions, or pairs of them) until cancelled.

    Everything runs on one event loop, so nothing is locked.

    sink: called with each outcome; a caption counts as in flight until it returns, so a store that cannot write
        stops the asking instead of losing answers.
    redact: applied to every error text before it is shown or kept.
    """

    def __init__(
        self,
        backend: Backend,
        config: EngineConfig,
        sink: Sink,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
        redact: Callable[[str], str] = str,
    ) -> None:
        self._backend = backend
        self._config = config
        self._sink = sink
        self._clock = clock
        self._wall_clock = wall_clock
        self._sleep = sleep
        self._draw = draw
        self._redact = redact
        self._gate = BackendGate(config, clock=clock, draw=draw)
        self._queue: OrderedDict[JobKey, Job] = OrderedDict()  # newest last
        self._delayed: list[tuple[float, int, Job]] = []  # a heap by due time
        self._ties = itertools.count()
        self._open: dict[JobKey, Job] = {}  # every job that is queued, delayed or in flight
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._answers = 0
        self._unparsed_in_a_row = 0
        self._last_unparsed = ""
        self._internal_error = ""
        self._counts: dict[str, LabelerCounts] = {}
        self._rates: dict[str, RateMeter] = {}

    def counts(self, labeler_id: str) -> LabelerCounts:
        """Returns the counts of one labeler, live."""
        return self._counts.setdefault(labeler_id, LabelerCounts())

    def labels_per_s(self, labeler_id: str) -> float:
        """Returns the labels a second over the last few seconds."""
        return self._rate(labeler_id).per_s()

    @property
    def room(self) -> int:
        """How many captions that were dropped may be offered again: none until half of the queue is free."""
        free = self._config.max_queue - len(self._queue)
        return free if free * 2 >= self._config.max_queue else 0

    @property
    def problem(self) -> str:
        """What is wrong and what to do, in words; empty if all is well."""
        if self._gate.problem:
            return self._redact(self._gate.problem)
        if self._unparsed_in_a_row >= UNPARSED_ALARM:
            return (
                f"The last {self._unparsed_in_a_row} answers of the LLM held no label ({self._last_unparsed}). "
                "Try the prompt with `oni label`, or another model."
            )
        if self._internal_error:
            return f"The annotator itself failed on a caption ({self._redact(self._internal_error)}): see its log."
        return ""

    def offer(self, labeler: Labeler, subjects: Sequence[tuple[SubjectId, Subject]], *, older: bool = False) -> Offer:
        """Queues subjects with their ids, the last one to be asked first.

        One that is queued already becomes the newest; one that is being asked or waits for its next attempt stays.
        older: they were offered before. They are asked after everything that is queued, and drop nothing: those for
            which there is no room, the first of them, are not taken.
        """
        offer = self._offer_older(labeler, subjects) if older else self._offer_newer(labeler, subjects)
        self._wake.set()
        return offer

    def _offer_newer(self, labeler: Labeler, subjects: Sequence[tuple[SubjectId, Subject]]) -> Offer:
        accepted = dropped = 0
        for subject_id, subject in subjects:
            key = (labeler.id, subject_id)
            if key in self._queue:
                self._queue.move_to_end(key)
            elif key not in self._open:
                self._add(Job(labeler=labeler, subject_id=subject_id, subject=subject), newest=True)
                accepted += 1
        while len(self._queue) > self._config.max_queue:
            key, job = self._queue.popitem(last=False)
            del self._open[key]
            counts = self.counts(job.labeler.id)
            counts.queued -= 1
            counts.dropped += 1
            dropped += 1
        return Offer(accepted, dropped)

    def _offer_older(self, labeler: Labeler, subjects: Sequence[tuple[SubjectId, Subject]]) -> Offer:
        new = [pair for pair in reversed(subjects) if (labeler.id, pair[0]) not in self._open]
        taken = new[: max(0, self._config.max_queue - len(self._queue))]
        for subject_id, subject in taken:
            self._add(Job(labeler=labeler, subject_id=subject_id, subject=subject), newest=False)
        return Offer(len(taken), len(new) - len(taken))

    def _add(self, job: Job, *, newest: bool) -> None:
        self._open[job.key] = job
        self._enqueue(job, newest=newest)

    async def run(self) -> None:
        """Asks until cancelled; requests in flight are then given up."""
        try:
            while True:
                self._wake.clear()
                await self._wait(self._start_all())
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start_all(self) -> float | None:
        """Starts every request that may start now; returns seconds until another may, None if only news can tell."""
        while True:
            self._take_due()
            if len(self._tasks) >= self._backend.max_concurrent:
                return None
            if not self._queue:
                return max(0.0, self._delayed[0][0] - self._clock()) if self._delayed else None
            delay = self._gate.delay_s()
            if delay is None or delay > 0:
                return delay
            _, job = self._queue.popitem(last=True)
            counts = self.counts(job.labeler.id)
            counts.queued -= 1
            counts.in_flight += 1
            task = asyncio.create_task(self._attend(job, self._gate.begin()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _wait(self, delay_s: float | None) -> None:
        if delay_s is None:
            await self._wake.wait()
            return
        waiters = {asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(self._sleep(delay_s))}
        try:
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()

    async def _attend(self, job: Job, ticket: int) -> None:
        counts = self.counts(job.labeler.id)
        try:
            await self._ask(job, ticket)
        except Exception as error:  # noqa: BLE001 - outermost frame of the task: a fault of ours must not stop the other captions
            _log.exception("asking about a caption failed inside the annotator")
            self._internal_error = f"{type(error).__name__}: {error}"
            await self._count_internal_failure(job, error)
        finally:
            self._gate.abandoned(ticket)
            counts.in_flight -= 1
            # Not in the done callback, which runs later: `run` must find the slot free when it wakes.
            self._tasks.discard(asyncio.current_task())  # type: ignore[arg-type]
            self._wake.set()

    async def _ask(self, job: Job, ticket: int) -> None:
        counts = self.counts(job.labeler.id)
        try:
            completion = await self._complete(job)
        except BackendAnswerInvalid as error:
            counts.failures[type(error).__name__] += 1
            self._count_answer(ticket)
            await self._failed(job, error, ask_again=error.retryable)
        except BackendError as error:
            counts.failures[type(error).__name__] += 1
            self._gate.faulted(ticket, error)
            await self._backend_faulted(job, error)
        else:
            self._count_answer(ticket)
            judgement = job.labeler.judge(completion)
            await self._finish(job, judgement, completion)

    async def _complete(self, job: Job) -> Completion:
        try:
            await job.labeler.prepare(self._backend)
            request = job.labeler.request(job.subject)
            self.counts(job.labeler.id).requests += 1
            job.requests += 1
            return await self._backend.complete(request)
        except ConfigError as error:
            # Labeler and backend do not fit each other: no fault of the caption. Wait, and say so.
            raise BackendRejected(str(error)) from error

    def _count_answer(self, ticket: int) -> None:
        self._answers += 1
        self._gate.answered(ticket)

    async def _backend_faulted(self, job: Job, error: BackendError) -> None:
        backend_answered_others = job.answers_at_fault is not None and self._answers > job.answers_at_fault
        job.answers_at_fault = self._answers
        if backend_answered_others and not isinstance(error, BackendOverloaded):
            await self._failed(job, error)
        else:
            # To the end of the line, so that another caption probes the backend next.
            self._enqueue(job, newest=False)

    async def _failed(self, job: Job, error: Exception, *, ask_again: bool = True) -> None:
        job.attempts += 1
        if ask_again and job.attempts < self._config.max_attempts:
            pause_s = max(backoff_s(job.attempts, self._config, self._draw), asked_pause_s(error))
            heapq.heappush(self._delayed, (self._clock() + pause_s, next(self._ties), job))
            self.counts(job.labeler.id).queued += 1
            return
        detail = f"no usable answer after {job.requests} requests; the last: {self._redact(str(error))}"
        nothing = Judgement(status=LabelStatus.FAILED, helpful=None, p_helpful=None, score=None, detail=detail)
        await self._finish(job, nothing, None)

    async def _count_internal_failure(self, job: Job, error: Exception) -> None:
        try:
            await self._failed(job, error)
        except Exception:  # noqa: BLE001 - as above; nothing about it can be kept, either
            _log.exception("%r is given up", job.subject)

    async def _finish(self, job: Job, judgement: Judgement, completion: Completion | None) -> None:
        try:
            record = job.record(judgement, completion, backend=self._backend.name, created_at=self._wall_clock())
            await self._sink(record)
        except Exception:
            if judgement.status is LabelStatus.FAILED:
                del self._open[job.key]  # given up, though not even that could be kept: it may be offered again
            raise
        del self._open[job.key]
        counts = self.counts(job.labeler.id)
        match judgement.status:
            case LabelStatus.LABELLED:
                counts.labelled += 1
                self._unparsed_in_a_row = 0
                self._rate(job.labeler.id).add()
            case LabelStatus.UNPARSED:
                counts.unparsed += 1
                self._unparsed_in_a_row += 1
                self._last_unparsed = judgement.detail
            case LabelStatus.FAILED:
                counts.failed += 1

    def _enqueue(self, job: Job, *, newest: bool) -> None:
        self._queue[job.key] = job
        if not newest:
            self._queue.move_to_end(job.key, last=False)
        self.counts(job.labeler.id).queued += 1

    def _take_due(self) -> None:
        while self._delayed and self._delayed[0][0] <= self._clock():
            job = heapq.heappop(self._delayed)[2]
            self.counts(job.labeler.id).queued -= 1
            self._enqueue(job, newest=True)

    def _rate(self, labeler_id: str) -> RateMeter:
        return self._rates.setdefault(labeler_id, RateMeter(self._clock))
